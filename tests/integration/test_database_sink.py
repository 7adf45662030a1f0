"""The sink that writes to MLflow's tables leaves what `MlflowClient` would have left."""

from __future__ import annotations

import contextlib
import math
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

import trackdsl
from tests.conftest import client, examples
from tests.equal_stores import PROGRAM, DrawnProgram, deliver_to, delivered_both_ways
from trackdsl import experiment, settings, stage
from trackdsl.delivery.database._changes import ChangeSet
from trackdsl.delivery.database._server_connection import _statements
from trackdsl.delivery.database.sink import DatabaseSink
from trackdsl.delivery.process._stores import open_store
from trackdsl.delivery.store._errors import Refused, RefusedTogether
from trackdsl.delivery.store._local_artifacts import LocalArtifacts
from trackdsl.delivery.store._sink import GONE, Batch, Sink
from trackdsl.journal import _target


def record_everything() -> None:
    """A program with each kind of event."""

    @stage(returns=True)
    def fit(lr: float, *, name: str = "näive", depth: int | None = None) -> dict[str, float]:
        trackdsl.log_metric("loss", 0.5)
        trackdsl.log_metric("loss", 0.5)
        trackdsl.log_metric("loss", math.nan, step=3)
        trackdsl.log_metric("up", math.inf, step=-2)
        trackdsl.log_metric("down", -math.inf, step=1 << 62)
        trackdsl.log_param("text", "x" * 7000)
        trackdsl.log_param("a=b", "escaped")
        trackdsl.set_tag("long", "y" * 9000)
        trackdsl.set_tag("mlflow.note.content", "a description")
        return {"accuracy": 0.1 + lr}

    @experiment("every kind", description="about it")
    def root() -> None:
        for number in range(3):
            fit(number / 10)
        trackdsl.log_text("hello", "notes/a.txt")
        trackdsl.log_dict({"a": 1}, "d.json")
        trackdsl.log_table({"word": ["a", "b"], "count": [1, 2]}, "words.json")
        trackdsl.log_input(np.arange(6.0).reshape(3, 2), "training", name="numbers")
        with pytest.raises(ZeroDivisionError), stage("fails"):
            1 / 0
        with stage("renamed", seed=1) as run:
            run.set_tag("mlflow.runName", "another name")

    root()


def test_both_sinks_leave_equal_rows(sqlite_store: str, tmp_path: Path) -> None:
    """From the same journals, the two sinks leave equal stores, but for the ids of runs."""
    ours, theirs = delivered_both_ways(record_everything, sqlite_store, tmp_path)

    assert len(ours["runs"]) == 6
    for table, rows in theirs.items():
        assert rows, table
        assert ours[table] == rows, table


def test_only_what_a_database_refuses_is_left_out(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 3,000 points, one that the database refuses is named in a tag; all others arrive in few transactions."""
    refused, transactions = "refused-by-the-database", list[int]()
    path = tmp_path / "store" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(empty_store, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON metrics WHEN NEW.key = 'odd' AND NEW.step = 1500 "
            f"BEGIN SELECT RAISE(ABORT, '{refused}'); END"
        )

    @experiment("refused")
    def program() -> None:
        for step in range(3000):
            trackdsl.log_metric("odd", float(step), step=step)

    program()
    _target.close_all()
    spool = settings.spool()
    assert spool is not None

    def open_sink(_uri: str, cwd: str) -> Sink:
        sink = open_store(f"sqlite:///{path}", cwd, own=True)
        assert isinstance(sink, DatabaseSink)
        carry_out = sink._tables.carry_out

        def count(changes: ChangeSet) -> None:
            transactions.append(len(changes))
            carry_out(changes)

        monkeypatch.setattr(sink._tables, "carry_out", count)
        return sink

    deliver_to(spool, open_sink)

    with closing(sqlite3.connect(path)) as connection:
        steps = [step for (step,) in connection.execute("SELECT step FROM metrics ORDER BY step")]
        tags = dict(connection.execute("SELECT key, value FROM tags").fetchall())
        assert connection.execute("SELECT status FROM runs").fetchall() == [("FINISHED",)]
    assert steps == [step for step in range(3000) if step != 1500]
    assert refused in tags["trackdsl.refused.odd"]
    assert len(transactions) < 100


@pytest.mark.usefixtures("no_pauses")
@hypothesis_settings(deadline=None, max_examples=examples(40))
@given(operations=PROGRAM)
def test_both_sinks_leave_equal_rows_of_any_program(empty_store: Path, operations: list[Any]) -> None:
    """Drawn programs leave equal rows too: odd numbers and texts, resumed and killed runs, several processes."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(empty_store, f"{folder}/mlflow.db")
        trackdsl.configure(spool=f"{folder}/spool")
        uri = f"sqlite:///{folder}/mlflow.db"
        ours, theirs = delivered_both_ways(lambda: DrawnProgram().perform(operations), uri, Path(folder))
    assert ours == theirs


def opened(uri: str) -> DatabaseSink:
    """The database sink of a store."""
    sink = open_store(uri, str(Path.cwd()), own=True)
    assert isinstance(sink, DatabaseSink)
    return sink


def test_an_experiment_that_another_process_creates_meanwhile(sqlite_store: str) -> None:
    """A delivery that did not find an experiment uses the one that another process has created since."""
    first, second = opened(sqlite_store), opened(sqlite_store)
    second._tables.create_experiment("churn")
    first._tables.create_experiment("churn")
    assert first.experiment("churn") == second.experiment("churn")
    (found,) = client(sqlite_store).search_experiments(filter_string="name = 'churn'")
    assert found.experiment_id == first.experiment("churn")


@pytest.mark.parametrize(
    "batch",
    [
        Batch(tags={"text": "\udc80"}),
        Batch(params={"text": "\udc80"}),
        Batch(metrics=[("step", 1.0, 0, 1 << 63)]),
        Batch(metrics=[("time", 1.0, 1 << 63, 0)]),
    ],
)
def test_what_a_driver_cannot_send_is_refused(sqlite_store: str, batch: Batch) -> None:
    """What a driver cannot send is refused like content that the database rejects; the rest of the run arrives."""
    sink = opened(sqlite_store)
    run_id = sink.create_run("0", "run", 0, {"trackdsl.id": "ab" * 16})
    with pytest.raises(Refused):
        sink.write(run_id, batch)
    with pytest.raises(Refused):
        sink.experiment("\udc80")
    sink.write(run_id, Batch(tags={"a": "b"}))
    assert sink.tags(run_id)["a"] == "b"


def test_a_deleted_run_is_not_reopened(sqlite_store: str) -> None:
    """As with MLflow, a deleted run keeps its status until it is restored."""
    sink = opened(sqlite_store)
    run_id = sink.create_run("0", "run", 0, {"trackdsl.id": "ab" * 16})
    sink.end_run(run_id, "FAILED", 1)
    client(sqlite_store).delete_run(run_id)
    with pytest.raises(Refused, match="must be in the 'active' state"):
        sink.reopen_run(run_id)
    client(sqlite_store).restore_run(run_id)
    sink.reopen_run(run_id)
    assert (sink.status(run_id), sink.state(run_id).end) == ("RUNNING", 1)  # type: ignore[union-attr]


def test_statements_stay_below_the_limits_of_servers() -> None:
    """Statements are split by number and length of rows, in order; no row is lost, however long it is."""
    lengths = [10, 999_000, 3_000_000, *[5] * 1200]
    values = [value for number, length in enumerate(lengths) for value in (number, "x" * length)]
    parts = list(_statements(values, 2))
    assert [value for part in parts for value in part] == values
    assert [len(part) // 2 for part in parts] == [2, 1, 500, 500, 200]


def test_what_is_collected_is_there_before_it_is_read(sqlite_store: str) -> None:
    """What delivery has collected for a run is written before it reads anything of that run."""
    sink = opened(sqlite_store)
    with sink.collecting():
        run_id = sink.create_run("0", "run", 0, {"trackdsl.id": "ab" * 16})
        assert sink.status(run_id) == "RUNNING"
        sink.write(run_id, Batch({"p": "1"}))
        assert sink.params(run_id) == {"p": "1"}
        sink.write(run_id, Batch(tags={"t": "1"}))
        assert sink.tags(run_id)["t"] == "1"
        sink.write(run_id, Batch(metrics=[("m", 1.0, 2, 3), ("n", math.nan, 2, 3)]))
        assert sink.metric_history(run_id, "m") == [(3, 1.0, 2)]
        ((step, value, time),) = sink.metric_history(run_id, "n", 3)
        assert (step, math.isnan(value), time) == (3, True, 2)
        sink.write(run_id, Batch(tags={"u": "1"}))
        assert set(sink.keys(run_id)["tags"]) >= {"t", "u"}
        sink.end_run(run_id, "FINISHED", 4)
        state = sink.state(run_id)
        assert state is not None
        assert (state.status, state.end, state.params) == ("FINISHED", 4, {"p": "1"})
    client(sqlite_store).delete_run(run_id)
    assert sink.status(run_id) == GONE


def test_a_parameter_keeps_its_first_value(sqlite_store: str) -> None:
    """Another value of a parameter is refused, for an existing run and for a new one; the same value is not."""
    sink = opened(sqlite_store)
    run_id = sink.create_run("0", "run", 0, {"trackdsl.id": "ab" * 16})
    sink.write(run_id, Batch({"p": "1"}))
    sink.write(run_id, Batch({"p": "1"}))
    with pytest.raises(Refused, match="already logged with value '1'"):
        sink.write(run_id, Batch({"p": "2"}, {"t": "1"}))
    with pytest.raises(RefusedTogether), sink.collecting():
        other = sink.create_run("0", "run", 0, {"trackdsl.id": "cd" * 16})
        sink.write(other, Batch({"p": "1"}))
        sink.write(other, Batch({"p": "2"}))
    assert (sink.params(run_id), "t" in sink.tags(run_id)) == ({"p": "1"}, False)
    assert sink.state(other) is None


def test_an_empty_name_is_none(sqlite_store: str) -> None:
    """The name of a run follows its tag, but not an empty one, as MLflow ignores it."""
    sink = opened(sqlite_store)
    run_id = sink.create_run("0", "first", 0, {"trackdsl.id": "ab" * 16})
    for name, expected in (("", "first"), ("second", "second"), ("", "second")):
        sink.write(run_id, Batch(tags={"mlflow.runName": name}))
        assert client(sqlite_store).get_run(run_id).info.run_name == expected
        assert sink.tags(run_id)["mlflow.runName"] == expected


@pytest.mark.parametrize("together", [True, False])
def test_the_latest_point_is_by_step_time_and_value(sqlite_store: str, together: bool) -> None:
    """In any order of points, in one transaction or several, the latest is the one that MLflow would have."""
    points = [(9.0, 9, 1), (1.0, 5, 2), (2.0, 5, 2), (3.0, 4, 2), (0.0, 99, -1)]
    sink = opened(sqlite_store)
    for start in range(len(points)):
        run_id = sink.create_run("0", "run", 0, {"trackdsl.id": f"{start:032x}"})
        with sink.collecting() if together else contextlib.nullcontext():
            for point in points[start:] + points[:start]:
                sink.write(run_id, Batch(metrics=[("m", *point)]))
        run = client(sqlite_store).get_run(run_id)
        assert run.data.metrics == {"m": 2.0}
        assert [(point.timestamp, point.step) for point in run.data._metric_objs] == [(5, 2)]


@pytest.mark.parametrize("path", ["../out.txt", "/out.txt", "a/../../out.txt"])
def test_artifacts_stay_in_their_folder(tmp_path: Path, path: str) -> None:
    """Whatever path an artifact has, nothing is written or read outside of its run's folder."""
    (tmp_path / "out.txt").write_text("theirs")
    files, folder = LocalArtifacts(), tmp_path / "run"
    for act in (
        lambda: files.write_text(folder, "ours", path),
        lambda: files.write(folder, tmp_path / "out.txt", path, directory=False),
        lambda: files.read(folder, path),
    ):
        with pytest.raises(Refused):
            act()
    assert (tmp_path / "out.txt").read_text() == "theirs"
    assert not folder.exists()
