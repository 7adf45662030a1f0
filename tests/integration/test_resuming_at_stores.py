"""Runs that programs resume, at real stores: by every way to name them, requeued jobs, and other libraries."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

import trackdsl
from tests.conftest import StartProgram, all_runs, deliver, points, sync, wait_until
from trackdsl import experiment, stage, start_logging, stop_logging
from trackdsl.store_format.call_tag import call_of
from trackdsl.testing import capture_runs


def run_named(name: str, uri: str | None = None) -> Any:
    (found,) = [run for run in all_runs(uri) if run.info.run_name == name]
    return found


@pytest.mark.parametrize(
    "way", ["experiment", "stage", "session", "decorator", "handle", "MLflow's", "best", "row", "MLFLOW_RUN_ID"]
)
def test_every_way_to_resume_a_run(sqlite_store: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to name a run resumes it, at SQLite: one run, its points in a row, its name and experiment kept."""
    with experiment("churn", run_name="first") as first:
        first.log_params({"lr": 0.1})
        first.log_metric("loss", 2.0, 0)
    deliver()
    (before,) = all_runs()
    _resume_by(way, before.info.run_id, first, monkeypatch)
    assert "MLFLOW_RUN_ID" not in os.environ
    deliver()
    after = run_named("first")
    assert after.info.run_id == before.info.run_id
    assert after.info.experiment_id == before.info.experiment_id
    assert after.info.status == "FINISHED"
    assert after.info.end_time >= before.info.end_time
    assert points(after, "loss") == [(0, 2.0), (1, 1.0)]
    assert (after.data.params["lr"], after.data.params["epochs"]) == ("0.1", "5")
    (child,) = [run for run in all_runs() if run.info.run_name == "epoch"]
    assert child.data.tags["mlflow.parentRunId"] == before.info.run_id


def _resume_by(way: str, run_id: str, first: trackdsl.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def train() -> None:
        trackdsl.log_params({"epochs": 5, "lr": 0.1})
        trackdsl.log_metric("loss", 1.0, 1)
        with stage("epoch"):
            pass

    match way:
        case "experiment":
            with experiment("churn", run_id=run_id):
                train()
        case "stage":
            with stage("again", run_id=first.id):
                train()
        case "session":
            start_logging("again", config={"run_id": run_id})
            train()
            stop_logging()
        case "decorator":
            experiment("churn", run_id=run_id)(train)()
        case "MLflow's" | "best" | "row":
            found = {
                "MLflow's": lambda: mlflow.MlflowClient().get_run(run_id),
                "best": lambda: trackdsl.best("churn", "loss"),
                "row": lambda: trackdsl.runs("churn").iloc[0],
            }
            with experiment(run_id=found[way]()):
                train()
        case "handle":
            with experiment(run_id=first) as again:
                assert again.id == first.id
                train()
        case _:
            monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
            with experiment("churn"):
                train()


@pytest.mark.parametrize("named", ["ours", "MLflow's"])
def test_handle_of_a_resumed_run(sqlite_store: str, named: str) -> None:
    """Its handle and its id lead to the whole run wherever a run is asked for, also in a later program."""
    with experiment("churn", run_name="first") as first:
        trackdsl.log_metric("loss", 2.0, 0)
    deliver()
    (before,) = all_runs()
    with experiment(run_id=first.id if named == "ours" else before.info.run_id, system_metrics=5.0) as again:
        trackdsl.log_metric("loss", 1.0, 1)
        again.log_dict({"a": 1}, "a.json")
        assert again.target.writer is not None
        sampled = (again.target.writer.directory / "sampled").read_text()
    assert sampled.split()[:2] == ["o", again.key.hex()]  # The id that it has in this journal.
    deliver()
    assert trackdsl.load_artifact(again.id, "a.json") == {"a": 1}
    for run in (again, again.id):
        assert trackdsl.history(run, "loss")["value"].tolist() == [2.0, 1.0]
        assert "first" in str(trackdsl.tree(run))
        with experiment(run_id=run):
            pass
    deliver()
    (after,) = all_runs()
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")


def test_it_is_running_meanwhile(sqlite_store: str) -> None:
    """A run that FAILED is RUNNING while it is resumed, then FINISHED at a later time, and has no exception left."""
    with pytest.raises(ValueError, match="bad"), experiment(run_name="train"):
        raise ValueError("bad")
    deliver()
    failed = run_named("train")
    assert failed.info.status == "FAILED"
    with experiment(run_id=failed.info.run_id):
        deliver()  # It ends the journal, so the run counts as that of a program that died.
        assert run_named("train").info.status == "KILLED"
    with experiment(run_id=failed.info.run_id):
        pass
    deliver()
    finished = run_named("train")
    assert finished.info.status == "FINISHED"
    assert finished.info.end_time > failed.info.end_time
    assert not any(key.startswith(("trackdsl.exception", "trackdsl.ended")) for key in finished.data.tags)


_KILLED = """
    import os, signal, sys
    from trackdsl import experiment, log_metric
    with experiment("spot", run_name="train") as run:
        for step in range(3):
            log_metric("loss", 10.0 - step, step)
        print(run.id, flush=True)
        sys.stdin.readline()
"""


_REQUEUED = """
    import sys
    from trackdsl import experiment, log_metric, log_params, steps
    with experiment("spot") as run:
        log_params({"epochs": 6})
        for step in range(3, 6):
            log_metric("loss", 10.0 - step, step)
        print("recorded", flush=True)
        if len(sys.argv) > 1:
            sys.stdin.readline()
"""


def store_of_kind(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The URI of a SQLite store, of a new store of files, or of the shared server."""
    if kind == "file":
        return (folder / "mlruns").as_uri()
    return str(
        request.getfixturevalue("sqlite_store") if kind == "sqlite" else request.getfixturevalue("shared_server").uri
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "file", "server"])
def test_requeued_job(start: StartProgram, request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """A job that is killed and requeued with `MLFLOW_RUN_ID`, twice, is one run with all its points, FINISHED."""
    environment = {"TRACKDSL_MODE": "online"}
    uri = store_of_kind(kind, request, tmp_path)
    environment |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_ALLOW_FILE_STORE": "true"}
    if kind == "file":
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # `private` takes it away again.
    first = start(_KILLED, **environment)
    id_ = first.say()
    run_id = wait_until(lambda: [r.info.run_id for r in all_runs(uri) if r.data.tags.get("trackdsl.id") == id_], "it")[
        0
    ]
    first.kill()
    second = start(_REQUEUED, "wait", MLFLOW_RUN_ID=run_id, **environment)
    assert second.say() == "recorded"
    client = mlflow.MlflowClient(uri)
    wait_until(lambda: client.get_run(run_id).info.status == "RUNNING", "the run to be resumed")
    second.kill()
    wait_until(lambda: client.get_run(run_id).info.status == "KILLED", "the death to be found")
    third = start(_REQUEUED, MLFLOW_RUN_ID=run_id, **environment)
    assert third.finish()[0] == 0
    found = client.get_run(run_id)
    assert (found.info.status, found.data.params) == ("FINISHED", {"epochs": "6"})
    assert sorted(point.step for point in client.get_metric_history(run_id, "loss")) == [0, 1, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.slow
def test_run_of_an_mlflow_project(start: StartProgram, sqlite_store: str, tmp_path: Path) -> None:
    """The run that `mlflow run` has made is the one that the program records to, and MLflow's parameters stay."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "MLproject").write_text(
        "name: p\nentry_points:\n  main:\n    parameters: {lr: {type: float, default: 0.1}}\n"
        "    command: 'python train.py {lr}'\n"
    )
    (project / "train.py").write_text(
        "import sys\nfrom trackdsl import experiment, log_metric\n"
        "@experiment\ndef train(lr: float):\n    log_metric('loss', 1.0)\ntrain(float(sys.argv[1]))\n"
        "@experiment\ndef after(): pass\nafter()\n"
    )
    program = start(
        f"import mlflow\nmlflow.set_tracking_uri({sqlite_store!r})\n"
        f"print(mlflow.projects.run({str(project)!r}, env_manager='local').run_id)",
        TRACKDSL_MODE="online",
    )
    code, out, err = program.finish()
    assert code == 0, err
    run_id = out.split()[-1]
    found = mlflow.MlflowClient(sqlite_store).get_run(run_id)
    assert (found.info.status, found.data.params, found.data.metrics) == ("FINISHED", {"lr": "0.1"}, {"loss": 1.0})
    assert len([run for run in all_runs() if run.info.run_name == "after"]) == 1
    assert len(all_runs()) == 2


@pytest.mark.slow
def test_missing_run_is_reported_at_the_end(start: StartProgram, sqlite_store: str) -> None:
    """A program that is to resume a missing run runs on, and ends with a line that names both ids."""
    program = start(
        """
        from trackdsl import experiment
        with experiment(run_id="0123456789abcdef0123456789abcdef") as run:
            print(run.key.hex())
            run.log_metric("m", 1)
        """,
        TRACKDSL_MODE="online",
    )
    code, out, err = program.finish()
    assert code == 0
    assert "0123456789abcdef0123456789abcdef" in err
    assert out.strip() in err
    assert not all_runs()


def test_run_that_is_open_here(sqlite_store: str, caplog: pytest.LogCaptureFixture) -> None:
    """Resuming a run that is open in the same program joins it: said once, and it ends where it was begun."""
    with experiment(run_name="train") as run:
        for _ in range(2):
            with stage("again", run_id=run.id, lr=0.1) as again:
                assert again is run
                trackdsl.log_metric("m", 1.0)
        with pytest.raises(ValueError, match="bad"), stage(run_id=run):
            raise ValueError("bad")
        trackdsl.log_metric("m", 2.0)
    deliver()
    (found,) = all_runs()
    assert (found.info.status, found.data.params) == ("FINISHED", {"lr": "0.1"})
    assert len(points(found, "m")) == 3
    assert len([record for record in caplog.records if "open in this program already" in record.message]) == 1


def test_open_run_of_plain_mlflow(sqlite_store: str) -> None:
    """Resuming a run that plain MLflow has open joins it, and MLflow ends it."""
    mlflow.set_tracking_uri(sqlite_store)
    with mlflow.start_run() as active:
        with stage("again", run_id=active.info.run_id):
            trackdsl.log_metric("m", 1.0)
        assert mlflow.active_run() is not None
    deliver()
    (found,) = all_runs()
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"m": 1.0})


@pytest.mark.slow
def test_workers_of_a_continued_run(start: StartProgram, sqlite_store: str) -> None:
    """Forked children and workers of a resumed run write to it, and the stages in them are its children."""
    with experiment(run_name="train") as run:
        pass
    deliver()
    program = start(
        """
        import multiprocessing, sys
        from concurrent.futures import ProcessPoolExecutor
        from trackdsl import experiment, log_metric, stage

        def work(number):
            log_metric("m", number)
            with stage("shard"):
                pass

        if __name__ == "__main__":
            with experiment(run_id=sys.argv[1]):
                fork = multiprocessing.get_context("fork")
                child = fork.Process(target=work, args=(1,))
                child.start(); child.join()
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                    list(pool.map(work, [2, 3]))
        """,
        run.id,
        TRACKDSL_MODE="online",
    )
    code, _, err = program.finish()
    assert code == 0, err
    sync(TRACKDSL_MODE="online")
    found = run_named("train")
    assert sorted(value for _, value in points(found, "m")) == [1.0, 2.0, 3.0]
    shards = [run for run in all_runs() if run.info.run_name == "shard"]
    assert [run.data.tags["mlflow.parentRunId"] for run in shards] == [found.info.run_id] * 3
    assert found.info.status == "FINISHED"


@pytest.mark.parametrize(
    "make",
    [
        lambda: experiment(run_id=5),
        lambda: stage("s", run_id="no id/at all"),
        lambda: stage("s", run_id=""),
        lambda: stage("s", nested=False, run_id="abc"),
        lambda: start_logging("s", config={"run_id": 1.5}),
    ],
)
def test_misuse(make: Callable[[], object]) -> None:
    """What names no run is refused at once, with what to give instead."""
    with pytest.raises(trackdsl.TrackdslError, match="run"):
        make()


def test_captured() -> None:
    """`capture_runs` shows a resumed run as one run."""
    with capture_runs() as captured:
        with experiment(run_name="train") as run:
            run.log_param("lr", 0.1)
        with experiment(run_id=run, tags={"a": "b"}):
            trackdsl.log_params({"lr": 0.2, "epochs": 3})
    (found,) = captured.runs
    assert (found.status, found.tags["a"], found.params["epochs"]) == ("FINISHED", "b", 3)


def test_last_run_is_resumed(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handle of a program's newest root resumes it, as often as one likes; a handle of no run does nothing."""
    with experiment(run_name="train"), stage("epoch"):
        pass
    for _ in range(2):
        with experiment(run_id=trackdsl.last()), stage("epoch"):
            trackdsl.log_metric("m", 1.0)
    deliver()
    (root,) = [run for run in all_runs() if run.info.run_name == "train"]
    epochs = [run for run in all_runs() if run.info.run_name == "epoch"]
    assert [call_of(run.data.tags)["index"] for run in epochs] == [0, 1, 2]
    assert {run.data.tags["mlflow.parentRunId"] for run in epochs} == {root.info.run_id}
    monkeypatch.setenv("TRACKDSL_MODE", "disabled")
    trackdsl.configure()
    with experiment(run_id=trackdsl.last()) as run:
        run.log_metric("m", 1.0)


@pytest.mark.parametrize("kind", ["sqlite", "file", pytest.param("server", marks=pytest.mark.slow)])
def test_session_with_a_run_that_is_gone(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A session begins with no run that is deleted, or not there: an error names its ids and what to do."""
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setenv("TRACKDSL_DELIVERY", "thread")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = store_of_kind(kind, request, tmp_path)
    client = mlflow.MlflowClient(uri)
    run = client.create_run("0", tags={"trackdsl.id": "77" * 16})
    client.set_terminated(run.info.run_id)

    def begin(run_id: str) -> None:
        start_logging("again", config={"run_id": run_id, "tracking_uri": uri})

    begin(run.info.run_id)
    stop_logging()
    assert trackdsl.flush(60)
    client.delete_run(run.info.run_id)
    with pytest.raises(trackdsl.RunNotFound, match=f"{run.info.run_id}.*{'77' * 16}.*mlflow runs restore"):
        begin(run.info.run_id)
    with pytest.raises(trackdsl.RunNotFound, match="no run 0123456789abcdef0123456789abcdef"):
        begin("0123456789abcdef0123456789abcdef")
    assert trackdsl.current_run() is None


def test_another_run_inside_a_run(sqlite_store: str) -> None:
    """A run that is resumed inside another one is itself, by its handle too, and keeps the parent that it had."""
    with experiment(run_name="first") as first:
        pass
    with experiment(run_name="outer"):
        with stage("again", run_id=first):
            trackdsl.log_metric("m", 1.0)
        trackdsl.log_metric("n", 1.0)
    deliver()
    assert (run_named("first").data.metrics, run_named("outer").data.metrics) == ({"m": 1.0}, {"n": 1.0})
    assert "mlflow.parentRunId" not in run_named("first").data.tags


_RANK = """
    import os, sys
    from trackdsl import experiment, log_metric
    with experiment("e", run_id=sys.argv[1] if len(sys.argv) > 1 else None, ranks=os.environ["RANKS"]):
        log_metric("rank", int(os.environ["RANK"]))
"""


_LAUNCH = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29511", "TORCHELASTIC_RUN_ID": "x"}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", ["children", "separate"])
def test_ranks_of_a_run_that_is_named(start: StartProgram, sqlite_store: str, ranks: str) -> None:
    """Ranks that are all to resume one run are its children; where each has its own, it is that of the first."""
    with experiment(run_name="train") as run:
        pass
    deliver()
    (before,) = all_runs()
    # As the argument of all of them in the first case, as a variable that all inherit in the second.
    named = {"MLFLOW_RUN_ID": before.info.run_id} if ranks == "separate" else {}
    arguments = [run.id] if ranks == "children" else []
    for program in [
        start(_RANK, *arguments, RANK=str(rank), RANKS=ranks, **named, **_LAUNCH) for rank in (0, 1)
    ]:  # fmt: skip
        code, _, err = program.finish()
        assert code == 0, err
    deliver()
    train = run_named("train")
    others = [each for each in all_runs() if each.info.run_id != train.info.run_id]
    assert {each.info.status for each in [train, *others]} == {"FINISHED"}
    if ranks == "children":
        assert train.data.metrics == {}
        assert sorted(each.data.metrics["rank"] for each in others) == [0.0, 1.0]
        assert {each.data.tags["mlflow.parentRunId"] for each in others} == {train.info.run_id}
    else:
        (other,) = others
        assert (train.data.metrics, other.data.metrics) == ({"rank": 0.0}, {"rank": 1.0})
        assert "mlflow.parentRunId" not in other.data.tags


@pytest.mark.slow
def test_separate_ranks_that_name_their_runs(start: StartProgram, sqlite_store: str) -> None:
    """Separate ranks of which each names a run of its own resume those."""
    ids = []
    for rank in range(2):
        with experiment(run_name=f"train-{rank}") as run:
            ids.append(run.id)
    deliver()
    for rank, program in enumerate(
        start(_RANK, ids[rank], RANK=str(rank), RANKS="separate", **_LAUNCH) for rank in (0, 1)
    ):
        code, _, err = program.finish()
        assert code == 0, (rank, err)
    deliver()
    assert {run.info.run_name: run.data.metrics for run in all_runs()} == {
        "train-0": {"rank": 0.0}, "train-1": {"rank": 1.0},
    }  # fmt: skip
