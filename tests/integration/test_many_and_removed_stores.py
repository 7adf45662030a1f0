"""Many stores at once, and stores whose folders are removed or unmounted."""

from __future__ import annotations

import contextlib
import contextvars
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import PATIENCE, StartProgram, all_runs, memory_of, open_files, sync, wait_until
from tests.delivery_settings import ChangeTiming
from tests.memory_store import MemoryStore
from trackdsl import experiment, stage
from trackdsl.delivery.journals import _streams
from trackdsl.delivery.mlflow_client._sink import MlflowSink
from trackdsl.delivery.process import _removed_stores
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.service import open_sink
from trackdsl.journal import _target
from trackdsl.journal._spool import journals
from trackdsl.store_format import empty_database as _empty_database
from trackdsl.store_format.progress import read_progress


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, empty for this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "trackdsl"


def dump(path: Path) -> tuple[list[str], list[tuple[object, ...]]]:
    """A database's statements in any order, but for the times of its experiments, and the experiments."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        experiments = connection.execute("SELECT experiment_id, name, artifact_location FROM experiments").fetchall()
        connection.execute("UPDATE experiments SET creation_time = 0, last_update_time = 0")
        # SQLAlchemy's sets have another order in each process.
        return sorted("\n".join(connection.iterdump()).replace(",", "").split("\n")), experiments


@pytest.mark.slow
def test_a_copied_store_is_as_mlflow_makes_it(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first store is MLflow's own, kept for copies; a copy for another folder has the same tables and rows."""
    made = []

    for name in ("first", "a copy #é", "by MLflow alone"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "by MLflow alone":
            monkeypatch.setattr(_empty_database, "_original", lambda: None)
        MlflowSink(f"sqlite:///{folder}/mlflow.db", str(folder), own=True).close()
        found, experiments = dump(folder / "mlflow.db")
        made.append([line.replace(str(folder), "") for line in found])
        assert experiments == [(0, "Default", f"{folder}/mlruns/0")]
        assert os.listdir(folder) == ["mlflow.db"]
    assert made[0] == made[1] == made[2]
    assert len(list(cache.iterdir())) == 1


OPEN = """
    import os, sys
    from trackdsl.delivery.service import open_sink

    open_sink("sqlite:///mlflow.db" if sys.argv[1] == "relative" else f"sqlite:///{os.getcwd()}/mlflow.db", os.getcwd())
    print(type(sys.modules.get("mlflow")).__name__)
"""


@pytest.mark.parametrize("uri", ["absolute", "relative"])
def test_a_copy_does_not_import_mlflow(
    uri: str, cache: Path, empty_store: Path, start: StartProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an original is kept, delivery makes a store as MLflow does, and without importing it."""
    original = _empty_database._original()
    assert original is not None
    shutil.copy(empty_store, original)
    folder = Path("of the program #é").absolute()
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert start(OPEN, uri).finish() == (0, "NoneType\n", "")
    lines, experiments = dump(folder / "mlflow.db")
    assert experiments == [(0, "Default", f"{folder}/mlruns/0")]
    expected, ((_, _, location),) = dump(empty_store)
    assert [line.replace(f"{folder}/mlruns/0", "") for line in lines] == [
        line.replace(str(location), "") for line in expected
    ]


def test_a_new_store_is_made_where_a_link_leads(tmp_path: Path) -> None:
    """A link to a file that does not exist yet, on another disk perhaps, stays a link, and the file is made there."""
    link, file = tmp_path / "mlflow.db", tmp_path / "disk" / "runs.db"
    file.parent.mkdir()
    link.symlink_to(file)

    MlflowSink(f"sqlite:///{link}", str(tmp_path), own=True).close()

    assert link.is_symlink()
    assert os.listdir(file.parent) == ["runs.db"]
    assert dump(file)[1] == [(0, "Default", f"{tmp_path}/mlruns/0")]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["empty", "cut", "rows", "link", "folder", "others may write"])
def test_a_damaged_original_is_made_anew(damage: str, cache: Path, tmp_path: Path, empty_store: Path) -> None:
    """Whatever replaces the original, a fresh store works, and nobody else's rows are in it."""
    cache.mkdir(parents=True, mode=0o700)
    original = _empty_database._original()
    assert original is not None
    if damage == "others may write":
        cache.chmod(0o777)
    if damage in ("rows", "others may write", "cut"):
        shutil.copy(empty_store, original)
        with contextlib.closing(sqlite3.connect(original)) as connection, connection:
            connection.execute(
                "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'x', 'active')"
            )
    if damage == "cut":
        os.truncate(original, 300_000)
    elif damage == "empty":
        original.touch()
    elif damage == "link":
        original.symlink_to(empty_store)
    elif damage == "folder":
        original.mkdir()
    sink = MlflowSink(f"sqlite:///{tmp_path}/work/mlflow.db", str(tmp_path / "work"), own=True)
    assert sink.experiment("e") == "1"
    sink.close()


SIXTY = """
    import os, sys, tempfile, trackdsl
    from pathlib import Path

    for number in range(60):
        folder = Path(sys.argv[1], str(number))
        with trackdsl.experiment("e", tracking_uri=f"sqlite:///{folder}/mlflow.db") as run:
            run.log_metric("m", number)
    print("recorded", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.long
@pytest.mark.slow
def test_sixty_stores_within_a_hundred_files(start: StartProgram, empty_store: Path, tmp_path: Path) -> None:
    """One program, sixty stores: a delivery process that may open 100 files delivers all, and holds few of them.

    Five of them are made by delivery, which takes seconds each.
    """
    spool, stores = tmp_path / "spool", tmp_path / "stores"
    for number in range(60):
        (stores / str(number)).mkdir(parents=True)
        if number % 12:
            shutil.copy(empty_store, stores / str(number) / "mlflow.db")
    program = start(SIXTY, str(stores))
    assert program.say() == "recorded"
    delivery = subprocess.Popen(
        ["/bin/sh", "-c", 'ulimit -n 100; exec "$@"', "sh", sys.executable, "-m", "trackdsl.delivery", str(spool)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TRACKDSL_MODE": "online"},
    )
    try:
        found = list(journals(spool))
        assert len(found) == 60
        most, memory = 0, []
        process = psutil.Process(delivery.pid)

        def delivered() -> int:
            nonlocal most
            most = max(most, process.num_fds())
            done = sum(bool((progress := read_progress(each)) and progress.events) for each in found)
            while len(memory) < done:
                memory.append(memory_of(delivery.pid))
            return done == 60

        wait_until(delivered, "all stores to have their runs", PATIENCE)
        further = (memory[-1] - memory[9]) / 50 / 1e6
        sys.stdout.write(f"files at most: {most}; memory for each further store: {further:.2f} MB\n")
        wait_until(lambda: process.num_fds() < 20, "unused files to be closed")
    finally:
        program.kill()
        _, err = delivery.communicate(timeout=PATIENCE)
    assert "WARNING" not in err
    for number in range(60):
        with contextlib.closing(sqlite3.connect(stores / str(number) / "mlflow.db")) as connection:
            assert connection.execute("SELECT key, value FROM metrics").fetchall() == [("m", float(number))]


def test_stores_that_are_not_used_are_closed(
    sqlite_store: str, tmp_path: Path, change_timing: ChangeTiming, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once nothing happens, delivery holds no file of the store or the journal, and continues all the same."""
    change_timing(idle_store=0.0)
    monkeypatch.setattr(_streams, "_MOST_OPEN", 0)
    spool = tmp_path / "spool"
    worker, apart = Worker(spool, open_sink), contextvars.Context()

    with stage("s") as run:
        (journal,) = journals(spool)
        kept = open_files(tmp_path)  # By the program's own side of the journal.
        for number in range(3):
            run.log_metric("m", number, step=number)
            # Delivery has a context of its own, as in its thread: its calls of MLflow are not calls in the scope.
            wait_until(lambda: not apart.run(worker.round) and open_files(tmp_path) == kept, "the files to be closed")
            progress = read_progress(journal)
            assert progress is not None
            assert progress.events == number + 2
    _target.close_all()
    wait_until(lambda: not worker.round() and worker.idle(), "the end")
    worker.close()
    (found,) = all_runs(sqlite_store)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"m": 2.0})


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("uri", ["sqlite:///{}/mlflow.db", "file://{}", "{}"])
@pytest.mark.parametrize("restart", [True, False])
def test_a_store_whose_folder_is_removed(
    uri: str, restart: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A store whose folder is removed is not made again: its journal waits for its program, then is removed."""
    spool, folder = tmp_path / "spool", tmp_path / "store"
    folder.mkdir()
    store = MemoryStore()
    worker = Worker(spool, store.open)
    with experiment("e", tracking_uri=uri.format(folder)) as run:
        worker.round()
        folder.rmdir()
        if restart:
            worker.close()
            worker = Worker(spool, store.open)
        run.log_metric("m", 1)
        for _ in range(3):
            worker.round()
        assert len(list(journals(spool))) == 1
    with experiment("later", tracking_uri="file:."):
        for _ in range(3):
            worker.round()
        assert store.named("later").status == "RUNNING"
        assert not store.named("e").points
    _target.close_all()
    for _ in range(5):
        worker.round()
    worker.close()
    assert not list(journals(spool))
    assert not folder.exists()
    assert store.named("later").status == "FINISHED"
    assert len([record for record in caplog.records if "has been removed" in record.getMessage()]) == 1


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("back", [True, False])
def test_a_store_on_a_disk_that_is_not_mounted(back: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a store's disk is not mounted, the journal of a dead program stays, and is delivered later."""
    spool, folder = tmp_path / "spool", tmp_path / "store"
    folder.mkdir()
    store = MemoryStore()
    with experiment("e", tracking_uri=f"sqlite:///{folder}/mlflow.db"):
        pass
    _target.close_all()
    folder.rmdir()
    monkeypatch.setattr(_removed_stores, "_device_below", lambda folder: -1)
    worker = Worker(spool, store.open)
    for _ in range(3):
        worker.round()
    (journal,) = journals(spool)
    progress = read_progress(journal)
    assert progress is not None
    assert "not mounted" in progress.error
    if back:
        folder.mkdir()
        wait_until(lambda: not worker.round() and not list(journals(spool)), "delivery of the journal")
        assert store.named("e").status == "FINISHED"
    worker.close()
    assert bool(list(journals(spool))) is not back


@pytest.mark.usefixtures("no_pauses")
def test_a_folder_that_delivery_has_made_is_not_made_twice(tmp_path: Path) -> None:
    """A store in a new folder is made, as MLflow does; if the folder is removed later, it is not made again."""
    spool, folder = tmp_path / "spool", tmp_path / "new" / "folder"
    store = MemoryStore()

    def make(uri: str, cwd: str) -> MemoryStore:
        folder.mkdir(parents=True)
        return store

    worker = Worker(spool, make)
    with experiment("e", tracking_uri=f"sqlite:///{folder}/mlflow.db") as run:
        worker.round()
        assert folder.is_dir()
        shutil.rmtree(tmp_path / "new")
        run.log_metric("m", 1)
        worker.round()
    _target.close_all()
    for _ in range(3):
        worker.round()
    worker.close()
    assert not (tmp_path / "new").exists()
    assert not list(journals(spool))


def test_the_working_directory_is_gone(empty_store: Path, tmp_path: Path) -> None:
    """If a program's folder is gone, experiments that delivery makes for it have their artifacts there nevertheless."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    sink = MlflowSink(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "gone"), own=True)
    sink.experiment("e")
    sink.close()
    fresh = MlflowSink(f"sqlite:///{tmp_path}/fresh.db", str(tmp_path / "gone"), own=True)
    fresh.close()
    for name in ("mlflow.db", "fresh.db"):
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as connection:
            (last,) = connection.execute("SELECT max(artifact_location) FROM experiments").fetchone()
        assert last.startswith(f"{tmp_path}/gone/mlruns/")
    assert not (tmp_path / "gone").exists()


@pytest.mark.slow
def test_sync_says_that_a_store_is_gone(start: StartProgram, tmp_path: Path) -> None:
    """What was recorded for a store whose folder was removed is not delivered, and `sync` says so."""
    folder = tmp_path / "store"
    folder.mkdir()
    program = start(f"import trackdsl\nwith trackdsl.experiment('e', tracking_uri='sqlite:///{folder}/x.db'): pass")
    assert program.finish()[0] == 0
    folder.rmdir()
    done = sync()
    assert done.returncode == 1
    assert "all that was not delivered when its store was removed is missing" in done.stderr
    assert not list(journals(tmp_path / "spool"))
    assert not folder.exists()
