"""Plain MLflow inside scopes when the two use different stores, a deleted experiment, or no store at all."""

from __future__ import annotations

import contextvars
import os
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import all_runs, client, deliver, free_port, wait_until
from tests.delivery_settings import ChangeTiming
from tests.plain_mlflow import Tree, artifacts, own_thread
from trackdsl import experiment, log_metric, stage
from trackdsl.errors import TrackingFault
from trackdsl.journal import _target

mlflow = pytest.importorskip("mlflow")


def test_where_mlflow_was_pointed(online: None, sqlite_store: str, tmp_path: Path) -> None:
    """After `set_tracking_uri` and `set_experiment` the runs of scopes go there."""
    Path("other").mkdir()
    uri = f"sqlite:///{tmp_path}/work/other/mlflow.db"
    os.rename("mlflow.db", "other/mlflow.db")
    mlflow.set_tracking_uri(uri)
    chosen = mlflow.set_experiment("chosen").experiment_id
    with stage("s"):
        mlflow.log_metric("m", 1)
        with stage("child"):
            pass
    with experiment("named"):
        pass
    tree = Tree(uri)
    assert tree["s"].data.metrics == {"m": 1}
    named = mlflow.get_experiment_by_name("named").experiment_id
    assert {name: run.info.experiment_id for name, run in tree.runs.items()} == {
        "s": chosen, "child": chosen, "named": named,
    }  # fmt: skip


def test_an_experiment_by_its_id(sqlite_store: str, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]) -> None:
    """`MLFLOW_EXPERIMENT_ID` counts where nothing of ours says otherwise; one that does not exist loses no run."""
    here = client().create_experiment("by-id")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by-name")
    cases = {
        "id": {"MLFLOW_EXPERIMENT_ID": here},
        "missing": {"MLFLOW_EXPERIMENT_ID": "4711"},
        "ours": {"MLFLOW_EXPERIMENT_ID": here, "TRACKDSL_EXPERIMENT_NAME": "ours"},
        "plain": {},
        "other-store": {"MLFLOW_EXPERIMENT_ID": here, "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
                        "TRACKDSL_TRACKING_URI": sqlite_store},
    }  # fmt: skip
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, environment in cases.items():
        with monkeypatch.context() as patch:
            for variable in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI"):
                patch.delenv(variable, raising=False)
            for variable, value in environment.items():
                patch.setenv(variable, value)
            with stage(name), stage(f"{name}-child"):
                pass
    deliver()
    runs = {run.info.run_name: run for run in all_runs(sqlite_store)}
    found = {name: client().get_experiment(runs[name].info.experiment_id).name for name in cases}
    assert found == {"id": "by-id", "missing": "Default", "ours": "ours", "plain": "by-name", "other-store": "by-name"}
    assert {run.info.experiment_id for run in (runs["id"], runs["id-child"])} == {here}
    assert runs["missing"].data.tags["trackdsl.refused.experiment"] == "id 4711"
    assert "4711" in "".join(log_lines)


def test_a_deleted_experiment_is_waited_for(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose experiment, given by its id, is deleted is delivered once that is restored."""
    id_ = client().create_experiment("by-id")
    client().delete_experiment(id_)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", id_)
    with stage("s"):
        pass
    from trackdsl.delivery.process._worker import Worker
    from trackdsl.delivery.service import open_sink
    from trackdsl.journal._spool import journals
    from trackdsl.store_format.progress import read_progress

    _target.close_all()
    spool = Path(os.environ["TRACKDSL_SPOOL"])
    worker = Worker(spool, open_sink)
    worker.round()
    (journal,) = journals(spool)
    progress = read_progress(journal)
    assert progress is not None
    assert "is deleted: restore it" in progress.error
    client().restore_experiment(id_)
    (spool / "wake").touch()
    wait_until(lambda: not worker.round() and worker.idle(), "everything to be delivered")
    worker.close()
    (run,) = all_runs(sqlite_store)
    assert (run.info.experiment_id, "trackdsl.refused.experiment" in run.data.tags) == (id_, False)


def test_a_store_that_only_trackdsl_knows(here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain calls inside a scope reach its store, in every task and thread, and outside MLflow's own stays."""
    Path("other").mkdir()
    uri = f"sqlite:///{tmp_path}/work/other/mlflow.db"
    os.rename("mlflow.db", "other/mlflow.db")
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    before = mlflow.get_tracking_uri()
    with stage("s"):
        assert mlflow.get_tracking_uri() == uri
        own_thread(lambda: mlflow.log_metric("m", 1))
        seen: list[str] = []
        contextvars.Context().run(lambda: seen.append(mlflow.get_tracking_uri()))
        assert seen == [before]
        with mlflow.start_run(run_name="plain"):
            mlflow.log_text("text", "a.txt")
    assert mlflow.get_tracking_uri() == before
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")  # The environment counts less than a scope.
    with stage("t"):
        mlflow.log_metric("m", 2)
    assert mlflow.get_tracking_uri() == "http://127.0.0.1:1"
    tree = Tree(uri)
    assert tree.parents() == {"s": None, "plain": "s", "t": None}
    assert tree["t"].data.metrics == {"m": 2}
    assert tree["s"].data.metrics == {"m": 1}
    assert artifacts(uri, tree["plain"]) == {"a.txt"}


def test_a_program_that_points_mlflow_elsewhere(
    here: str, tmp_path: Path, log_lines: list[str], empty_store: Path
) -> None:
    """`set_tracking_uri` to another store inside a scope counts for plain calls; one log line and a tag say so."""
    Path("other").mkdir()
    Path("other/mlflow.db").write_bytes(empty_store.read_bytes())
    uri = f"sqlite:///{tmp_path}/work/other/mlflow.db"
    with stage("s"):
        mlflow.log_metric("m", 1)
        mlflow.set_tracking_uri(uri)
        for _ in range(2):
            with mlflow.start_run(run_name="theirs"):
                mlflow.log_metric("m", 2)
                log_metric("ours", 3)
        mlflow.set_tracking_uri(None)
        mlflow.log_metric("n", 4)
    assert len([line for line in log_lines if "MLflow points at" in line]) == 1
    assert "set_tracking_uri" in "".join(log_lines)
    tree, other = Tree(here), Tree(uri)
    assert tree["s"].data.metrics == {"m": 1, "ours": 3, "n": 4}
    assert "points at" in tree["s"].data.tags["trackdsl.omitted.mlflow"]
    assert (set(tree.runs), set(other.runs), other.count) == ({"s"}, {"theirs"}, 2)
    assert other["theirs"].data.metrics == {"m": 2}


def test_offline(here: str, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]) -> None:
    """Offline, plain calls behave as outside of a scope and do not wait; one log line and a tag report it."""
    monkeypatch.setenv("TRACKDSL_MODE", "offline")
    mlflow.set_tracking_uri(here)
    for name in ("s", "t"):
        with stage(name):
            with mlflow.start_run(run_name=f"{name}-theirs"):
                mlflow.log_metric("m", 1)
            assert mlflow.active_run() is None
    assert len([line for line in log_lines if "plain MLflow" in line]) == 1
    assert "log_metric" in "".join(log_lines)
    assert {run.info.run_name for run in all_runs(here)} == {"s-theirs", "t-theirs"}
    deliver()
    runs = {run.info.run_name: run for run in all_runs(here)}
    assert "trackdsl.omitted.mlflow" in runs["s"].data.tags
    assert "mlflow.parentRunId" not in runs["s-theirs"].data.tags


@pytest.mark.slow
def test_a_store_that_is_away(
    online: None, tmp_path: Path, change_timing: ChangeTiming, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    """While delivery fails, a plain call waits once; later calls go where MLflow sends them by itself."""
    waits: list[float | None] = []
    wait = trackdsl.Run.wait_for_mlflow

    def counted(run: Any, timeout: float | None = None) -> Any:
        waits.append(timeout)
        return wait(run, timeout)

    monkeypatch.setattr(trackdsl.Run, "wait_for_mlflow", counted)
    change_timing(failing=0.1)
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("TRACKDSL_DELIVERY", "process")  # A thread would try for ever.
    uri = f"sqlite:///{tmp_path}/work/own.db"
    for name in ("s", "t"):
        with stage(name):
            active = mlflow.active_run()
            with monkeypatch.context() as patch:
                patch.setenv("MLFLOW_TRACKING_URI", uri)
                mlflow.log_metric("m", 1)
                assert name == "t" or active.info.run_id == mlflow.active_run().info.run_id
                mlflow.end_run()
                assert mlflow.active_run() is None
    assert waits == [None, 0.0]
    assert len([line for line in log_lines if "plain MLflow" in line]) == 1
    assert "trackdsl status" in "".join(log_lines)
    assert [run.data.metrics for run in all_runs(uri)] == [{"m": 1}, {"m": 1}]


def test_strict(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `TRACKDSL_STRICT`, a plain call that cannot use the run raises."""
    monkeypatch.setenv("TRACKDSL_MODE", "offline")
    trackdsl.errors.set_strict(True)
    with stage("s"), pytest.raises(TrackingFault, match="offline"):
        mlflow.log_metric("m", 1)


def test_a_program_that_only_looks_does_not_wait(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No plain call waits for a run unless it needs MLflow's id of it."""
    from trackdsl.mlflow_bridge import _runs

    asked: list[Any] = []
    monkeypatch.setattr(_runs, "wait_for", asked.append)
    with stage("s"):
        assert mlflow.active_run()
        mlflow.end_run()
        assert mlflow.get_tracking_uri()
        assert mlflow.active_run() is not None
    assert not asked
    with stage("t"):
        mlflow.active_run().info
    assert len(asked) == 1
    while mlflow.active_run() is not None:
        mlflow.end_run()


def test_captured_runs(monkeypatch: pytest.MonkeyPatch, sqlite_store: str, online: None, log_lines: list[str]) -> None:
    """In a test with `capture_runs` plain calls do what they do without a scope, and nothing is logged."""
    from trackdsl.testing import capture_runs

    mlflow.set_tracking_uri(sqlite_store)
    with capture_runs() as captured, stage("s"), mlflow.start_run(run_name="theirs"):
        mlflow.log_metric("m", 1)
    assert captured.one("s").metrics == {}
    assert [run.data.metrics for run in all_runs(sqlite_store)] == [{"m": 1}]
    assert not log_lines
