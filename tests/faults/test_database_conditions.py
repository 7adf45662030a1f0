"""A database in a bad state: delivery waits and says why, and once it works again, all is there once."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import run_command, wait_until
from trackdsl import experiment, settings, stage
from trackdsl._runs import resumable
from trackdsl._server import reachable
from trackdsl.cli import _checks
from trackdsl.delivery.database import _sqlite_connection
from trackdsl.delivery.database.sink import DatabaseSink
from trackdsl.delivery.process._stores import open_store
from trackdsl.delivery.process._worker import Worker
from trackdsl.journal import _target
from trackdsl.query import _store as query_store
from trackdsl.store_format.sinks import CLIENT, TABLES, SinkNote

RUNS = 4


@pytest.fixture
def path(empty_store: Path, tmp_path: Path) -> Path:
    """A store in a folder of its own."""
    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder / "mlflow.db"


@pytest.fixture
def small(tmp_path: Path, empty_store: Path) -> Iterator[Path]:
    """A store on a disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no file system can be mounted here")
    shutil.copy(empty_store, folder / "mlflow.db")
    yield folder / "mlflow.db"
    subprocess.run(["umount", "-l", str(folder)], check=True)


class Delivery:
    """A worker that delivers to one file.

    Attributes:
        notes: how its sinks write, one for each that was opened.
    """

    def __init__(self, path: Path) -> None:
        self.notes: list[SinkNote] = []
        self._uri = f"sqlite:///{path}"
        spool = settings.spool()
        assert spool is not None
        self._worker = Worker(spool, self._open)

    def _open(self, _uri: str, _cwd: str) -> DatabaseSink:
        sink = open_store(self._uri, str(Path.cwd()), own=True, note=self.notes.append)
        assert isinstance(sink, DatabaseSink)
        return sink

    def waits(self, why: str) -> None:
        """Deliver a round, and check that nothing was delivered and `status` says why."""
        assert not self._worker.round()
        status = run_command("status").stdout
        assert why in status, status
        assert "failing for" in status

    def round(self) -> None:
        """Deliver one round."""
        self._worker.round()

    def finish(self) -> None:
        """Deliver the rest; the sinks stay open."""
        wait_until(lambda: not self._worker.round() and self._worker.idle(), "everything to be delivered")


def record() -> None:
    """Record some runs, and let the program end."""
    with experiment("churn"):
        for number in range(RUNS - 1):
            with stage("part", number=number) as run:
                for step in range(20):
                    run.log_metric("loss", step / 3, step=step)
                run.set_tag("text", "x" * 4000)
    _target.close_all()


def check(path: Path) -> None:
    """All that `record` recorded is there once."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT status, count(*) FROM runs GROUP BY status").fetchall()
        assert rows == [("FINISHED", RUNS)]
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            for table in ("params", "metrics", "latest_metrics")
        ]
        assert counts == [RUNS - 1, 20 * (RUNS - 1), RUNS - 1]
        assert connection.execute("SELECT count(*) FROM tags WHERE key LIKE 'trackdsl.refused%'").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM experiments WHERE name = 'churn'").fetchone() == (1,)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.fixture
def impatient(no_pauses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses; and nothing waits long for another connection."""
    monkeypatch.setattr(_sqlite_connection, "_BUSY_TIMEOUT", 0.05)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("lock", ["EXCLUSIVE", "IMMEDIATE"])
def test_a_database_that_is_locked(path: Path, lock: str) -> None:
    """While another program holds the lock, for reading too or only for writing, delivery waits."""
    record()
    delivery = Delivery(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(f"BEGIN {lock}")
        for _ in range(3):
            delivery.waits("is in use by another program")
        other.execute("ROLLBACK")
    delivery.finish()
    check(path)


@pytest.mark.slow
def test_the_doctor_of_a_database_that_is_locked(path: Path) -> None:
    """`doctor` says what keeps it from reading the database, and nothing about an experiment that it cannot see."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        found = {finding.about: finding for finding in _checks.store(f"sqlite:///{path}")}
    assert found["schema"].fix == "Close that program, or wait until it is done"
    assert "experiment" not in found


@pytest.mark.usefixtures("impatient")
def test_no_lock_is_held_between_two_transactions(path: Path) -> None:
    """Between two rounds another program gets the whole database at once, although delivery has it open."""
    delivery = Delivery(path)
    with experiment("churn"):
        for number in range(RUNS - 1):
            with stage("part", number=number):
                pass
            delivery.round()
            with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                assert other.execute("SELECT count(*) FROM runs").fetchone() == (number + 2,)
                other.execute("ROLLBACK")
    _target.close_all()
    delivery.finish()


@pytest.mark.usefixtures("impatient")
def test_a_disk_that_is_full(small: Path) -> None:
    """Where the database cannot grow, nothing of a stretch is written, and all of it once there is space."""
    record()
    filler = small.parent / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    delivery = Delivery(small)
    for _ in range(3):
        delivery.waits("has no space left")
        delivery.waits("Free some space on its disk")
    filler.unlink()
    with closing(sqlite3.connect(small)) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)
    delivery.finish()
    check(small)


@pytest.mark.usefixtures("impatient")
def test_a_disk_that_is_read_only(small: Path) -> None:
    """Where the database cannot be written to, everything waits, and no run is blocked; `doctor` says so too."""
    record()
    delivery = Delivery(small)
    subprocess.run(["mount", "-o", "remount,ro", str(small.parent)], check=True)
    for _ in range(3):
        delivery.waits("cannot be written to")
        delivery.waits("writable for this user")
    (found,) = _checks.store(f"sqlite:///{small}")
    assert (found.level, found.fix) == ("problem", "Make the file and its folder writable for this user")
    subprocess.run(["mount", "-o", "remount,rw", str(small.parent)], check=True)
    delivery.finish()
    check(small)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("damage", [b"not a database at all" * 100, None])
def test_a_file_that_is_damaged(path: Path, damage: bytes | None) -> None:
    """A file with other content, or with pages overwritten, is left as it is; the restored one gets everything."""
    record()
    sound = path.read_bytes()
    broken = damage if damage is not None else sound[:100] + os.urandom(len(sound) - 100)
    path.write_bytes(broken)
    delivery = Delivery(path)
    delivery.waits("is damaged")
    delivery.waits("Restore it from a backup")
    assert path.read_bytes() == broken
    path.write_bytes(sound)
    delivery.finish()
    check(path)


@pytest.mark.parametrize(
    "read",
    [
        lambda uri: reachable.check(uri, "Default").experiment_id == "0",
        lambda uri: resumable._look_up(uri, "0" * 32) is None,
        lambda uri: query_store._check_file(uri) is None,
    ],
    ids=["a session", "a run that continues", "a query"],
)
def test_a_database_whose_writer_was_killed(path: Path, tmp_path: Path, read: Callable[[str], bool]) -> None:
    """Where a writer died within a transaction, its changes are undone, and everything before them can be read."""
    left = tmp_path / "left.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_size = 1")  # Pages are in the file before the end of the transaction.
        writer.execute("BEGIN")
        rows = [(f"half {number}", "x" * 1000) for number in range(100)]
        writer.executemany("INSERT INTO experiments (name, artifact_location) VALUES (?, ?)", rows)
        for suffix in ("", "-journal"):
            shutil.copy(f"{path}{suffix}", f"{left}{suffix}")

    assert read(f"sqlite:///{left}")
    with closing(sqlite3.connect(left)) as connection:
        assert connection.execute("SELECT count(*) FROM experiments").fetchone() == (1,)


@pytest.mark.usefixtures("impatient")
def test_tables_that_are_upgraded_while_delivery_runs(path: Path) -> None:
    """When MLflow moves the tables to another revision, delivery opens them again, and knows them or waits."""
    delivery = Delivery(path)
    record()
    delivery.finish()
    with closing(sqlite3.connect(path)) as connection, connection:
        ((revision,),) = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    _move(path, "bbbbbbbbbbbb")
    with stage("after the upgrade"):
        pass
    _target.close_all()
    delivery.waits("MLflow has upgraded the tables of the database")
    delivery.waits("newer MLflow")
    assert [note.way for note in delivery.notes] == [TABLES, CLIENT]
    _move(path, revision)
    delivery.finish()
    assert delivery.notes[-1].way == TABLES
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT status, count(*) FROM runs GROUP BY status").fetchall() == [
            ("FINISHED", RUNS + 1)
        ]


def _move(path: Path, revision: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("replace", [True, False])
def test_a_file_that_is_replaced_while_delivery_runs(path: Path, empty_store: Path, replace: bool) -> None:
    """What is recorded after the store was removed, or exchanged for another, goes to the new one."""
    delivery = Delivery(path)
    with experiment("churn"), stage("before"):
        pass
    _target.close_all()
    delivery.finish()
    path.unlink()
    if replace:
        shutil.copy(empty_store, path)
    record()
    delivery.finish()
    check(path)


@pytest.mark.usefixtures("impatient")
def test_a_run_is_recorded_while_the_ui_deletes_and_restores_it(path: Path) -> None:
    """What arrives while a run and its experiment are deleted in turn is kept or reported, never written twice."""
    from mlflow import MlflowClient

    mlflow = MlflowClient(f"sqlite:///{path}")
    delivery = Delivery(path)
    with experiment("churn") as root, stage("part") as run:
        delivery.round()
        for number, (delete, restore, id_) in enumerate(
            [
                (mlflow.delete_experiment, mlflow.restore_experiment, mlflow.get_run(run.id).info.experiment_id),
                (mlflow.delete_run, mlflow.restore_run, run.id),
            ]
        ):
            delete(id_)
            run.log_metric("loss", number, step=number)
            root.log_metric("loss", number, step=number)
            for _ in range(3):
                delivery.round()
            restore(id_)
            run.log_metric("after", number, step=number)
            for _ in range(3):
                delivery.round()
    _target.close_all()
    delivery.finish()
    assert _points(mlflow, root.id, "loss") == [(0, 0.0), (1, 1.0)]
    assert _points(mlflow, run.id, "loss")[0] == (0, 0.0)  # Held while the experiment was deleted.
    assert _points(mlflow, run.id, "after") == [(0, 0.0), (1, 1.0)]
    assert {each.info.status for each in (mlflow.get_run(root.id), mlflow.get_run(run.id))} == {"FINISHED"}


def _points(mlflow: object, run_id: str, key: str) -> list[tuple[int, float]]:
    history = mlflow.get_metric_history(run_id, key)  # type: ignore[attr-defined]
    return sorted((point.step, point.value) for point in history)
