"""One program, and a fault at each call to the store in turn: everything is there once, with the right status."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import once
from tests.failing_sink import FailingSink, Faults
from tests.fixed_program import EARLIER, EXPERIMENT, Found, expected, found_in_database, found_in_memory, record
from tests.memory_store import Crash, Held, MemoryStore
from trackdsl._core import runtime
from trackdsl.delivery.database import _collector
from trackdsl.delivery.database.sink import DatabaseSink
from trackdsl.delivery.journals import _stretch_size
from trackdsl.delivery.process._stores import open_store
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.delivery.store._sink import Sink
from trackdsl.journal import _origin
from trackdsl.journal._spool import journals


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spool of the program, recorded once: faults are in the delivery of copies."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRACKDSL_SPOOL", str(folder / "spool"))
            patch.setenv("TRACKDSL_MODE", "offline")
            patch.setenv("TRACKDSL_CHANGES", "0")
            patch.setenv("TRACKDSL_REPORTS", "0")
            patch.setenv("TRACKDSL_TRACKING_URI", "sqlite:////nowhere/mlflow.db")
            patch.setattr(_origin, "ask_git", lambda directory: None)  # It would answer at another time in each run.
            runtime.reset()
            record()
            for journal in journals(folder / "spool"):
                (journal / "git").write_text("commit\nbranch\n\nclean\n")
            runtime.reset()

    return once(tmp_path_factory, "fixed-program", make) / "spool"


@pytest.fixture(autouse=True)
def short_stretches(no_pauses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delivery begins many stretches, and waits for nothing that failed."""
    monkeypatch.setattr(_stretch_size, "_STRETCH", 9)


@dataclass
class Store:
    """A store to deliver to, a new one for each fault."""

    faults: Faults
    open: Callable[[str, str], Sink]
    found: Callable[[], list[tuple[str, Found]]]
    close: Callable[[], None] = lambda: None


def in_memory(
    faults: Faults, folder: Path, request: pytest.FixtureRequest, *, own_ids: bool, side_by_side: bool = False
) -> Store:
    store = MemoryStore()
    store.own_ids, store.side_by_side = own_ids, side_by_side
    store.runs[EARLIER] = Held(f"e-{EXPERIMENT}", "earlier", {}, status="FINISHED")

    def open_it(_uri: str, _cwd: str) -> Any:
        return FailingSink(store, faults)

    return Store(faults, open_it, lambda: found_in_memory(store))


def in_database(faults: Faults, folder: Path, request: pytest.FixtureRequest) -> Store:
    path = made_database(folder, request)

    def open_it(_uri: str, cwd: str) -> Any:
        sink = open_store(f"sqlite:///{path}", cwd, own=True)
        assert isinstance(sink, DatabaseSink)
        return FailingSink(sink, faults)

    return Store(faults, open_it, lambda: found_in_database(path))


def through_the_client(faults: Faults, folder: Path, request: pytest.FixtureRequest) -> Store:
    path = made_database(folder, request)

    def open_it(_uri: str, cwd: str) -> Any:
        from trackdsl.delivery.mlflow_client._sink import MlflowSink

        return FailingSink(MlflowSink(f"sqlite:///{path}", cwd, own=True), faults)

    return Store(faults, open_it, lambda: found_in_database(path))


def at_a_server(faults: Faults, folder: Path, request: pytest.FixtureRequest) -> Store:
    from mlflow.server import handlers
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from tests.plugin_server import Served

    path = made_database(folder, request)
    store = SqlAlchemyStore(f"sqlite:///{path}", str(folder / "artifacts"))
    request.getfixturevalue("monkeypatch").setattr(handlers, "_tracking_store", store)
    server = Served(path)
    # Several parts for each stretch: a thread sends them.
    request.getfixturevalue("monkeypatch").setattr(_collector, "_PART", 10)

    def open_it(_uri: str, cwd: str) -> Any:
        sink = open_store(server.uri, cwd, own=True)
        assert isinstance(sink, DatabaseSink)
        return FailingSink(sink, faults)

    def close() -> None:
        server.close()
        store.engine.dispose()

    return Store(faults, open_it, lambda: found_in_database(path), close)


def made_database(folder: Path, request: pytest.FixtureRequest) -> Path:
    """A database of MLflow's with the experiment of the program and an earlier run."""
    path = folder / "mlflow.db"
    shutil.copy(request.getfixturevalue("empty_store"), path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) VALUES (1, ?, ?, ?)",
            (EXPERIMENT, str(folder / "artifacts"), "active"),
        )
        connection.execute(
            "INSERT INTO runs (run_uuid, name, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri, "
            "experiment_id) VALUES (?, 'earlier', 'me', 'FINISHED', 1, 2, 'active', ?, 1)",
            (EARLIER, str(folder / "artifacts" / EARLIER / "artifacts")),
        )
    return path


STORES = {
    "memory": lambda *arguments: in_memory(*arguments, own_ids=False),
    "memory side by side": lambda *arguments: in_memory(*arguments, own_ids=False, side_by_side=True),
    "memory with our ids": lambda *arguments: in_memory(*arguments, own_ids=True),
    "database": in_database,
}
#: Through MLflow's own code, which takes a second for each delivery.
SLOW_STORES = {"client": through_the_client, "server": at_a_server}


def delivered(store: Store, spool: Path) -> None:
    """Deliver a spool until nothing is left; another worker replaces each that is killed."""
    worker = Worker(spool, store.open)
    for _ in range(200):
        try:
            worker.round()
            if worker.idle():
                break
        except Crash:
            worker.close()
            worker = Worker(spool, store.open)
    worker.close()
    assert not list(journals(spool))


@pytest.fixture
def deliver_with(
    recorded: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[[str, dict[int, tuple[Any, bool]]], Store]:
    """Delivers a copy of the program's spool to a new store of a kind, with faults, and compares what is there."""
    number = 0

    def deliver_it(kind: str, at: dict[int, tuple[Any, bool]]) -> Store:
        nonlocal number
        number += 1
        folder = tmp_path / str(number)
        shutil.copytree(recorded, folder / "spool")
        store = (STORES | SLOW_STORES)[kind](Faults(at), folder, request)
        try:
            delivered(store, folder / "spool")
            found = store.found()
        finally:
            store.close()
        assert sorted(name for name, _ in found) == sorted(expected()), "each run once"
        for name, run in found:
            assert run == expected()[name], name
        shutil.rmtree(folder)
        return store

    return deliver_it


@pytest.mark.parametrize("each", [10, pytest.param(1, marks=pytest.mark.exhaustive)], ids=["some", "every"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fault", [Unavailable, Crash])
@pytest.mark.parametrize("kind", STORES)
def test_a_fault_at_each_call(
    kind: str, fault: type[BaseException], done: bool, each: int, deliver_with: Callable[..., Store]
) -> None:
    """Whichever call to the store fails, or is the last of a delivery process, everything is there once."""
    calls = deliver_with(kind, {}).faults.calls
    assert calls > 40
    first = 1 + (list(STORES).index(kind) + done + 2 * (fault is Crash)) % each
    for number in range(first, calls + 1, each):
        store = deliver_with(kind, {number: (fault, done)})
        assert store.faults.calls >= number


@pytest.mark.slow
@pytest.mark.parametrize("each", [30, pytest.param(2, marks=pytest.mark.exhaustive)], ids=["some", "every"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fault", [Unavailable, Crash])
@pytest.mark.parametrize("kind", SLOW_STORES)
def test_a_fault_at_each_call_through_mlflow(
    kind: str, fault: type[BaseException], done: bool, each: int, deliver_with: Callable[..., Store]
) -> None:
    """A fault at a call loses nothing through MLflow's client and at a server with the plugin either."""
    # A thread sends parts to the server, so that the number of calls differs: until the first that is not reached.
    number = 1 + (done + 2 * (fault is Crash) + 4 * (kind == "server")) % each
    while deliver_with(kind, {number: (fault, done)}).faults.calls >= number:
        number += each
    assert number > 40
