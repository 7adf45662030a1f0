"""A spool that an earlier version was delivering when it died: this version delivers the rest, each thing once."""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.memory_store import Crash, Held, MemoryStore, deliver_to
from trackdsl.cli._contents import contents
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.state import _ledger
from trackdsl.delivery.state._ledger import Ledger
from trackdsl.journal._spool import journals
from trackdsl.store_format.blocked_runs import read_blocked
from trackdsl.store_format.held_events import read_held
from trackdsl.store_format.journals import read_journals
from trackdsl.store_format.known_runs import find_delivered, names_run, read_runs
from trackdsl.store_format.ledger import NAME

GOLDEN = Path(__file__).parent.parent / "golden" / "spools"
#: Files for single kinds of state, which no version with ledgers leaves.
BEFORE = ("runs", "aside", "deferred", "blocked", "awaited", "*.jsonl")


@pytest.fixture(autouse=True)
def no_pauses(no_pauses: None) -> None:
    """As everywhere."""


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def spool(tmp_path: Path, store: MemoryStore, each_kind_of_store: None) -> Path:
    """The spool of the earlier version, and in the store what it had delivered."""
    name = "our-ids" if MemoryStore.own_ids else "their-ids"
    with tarfile.open(GOLDEN / f"{name}.tar.xz") as tar:
        tar.extractall(tmp_path, filter="fully_trusted")  # noqa: S202 - it is ours
    known = json.loads((tmp_path / "store.json").read_text())
    for run_id, run in known["runs"].items():
        store.runs[run_id] = Held(**{**run, "points": {tuple(point) for point in run["points"]}})
    # The machine whose run is awaited has delivered it by now.
    foreign = known["foreign"]
    store.runs[foreign if MemoryStore.own_ids else "foreign"] = Held("e-e", "foreign", {"trackdsl.id": foreign})
    return tmp_path / "spool"


def check(store: MemoryStore, spool: Path) -> None:
    assert not list(journals(spool))
    found = {run.name: run for run in store.runs.values()}
    assert len(found) == len(store.runs)
    assert {name: run.status for name, run in found.items()} == {
        "done": "FINISHED", "open": "KILLED", "child": "FINISHED", "aside": "KILLED", "foreign": "RUNNING",
    }  # fmt: skip
    points = {name: sorted((key, value, step) for key, value, _, step in run.points) for name, run in found.items()}
    assert points == {
        "done": [("m", 1.0, 1)],
        "open": [("late", 1.0, 0), *[("m", 0.5, 0)] * 6],
        "child": [("late", 1.0, 0)],
        "aside": [("n", 2.0, 5)],
        "foreign": [("f", 7.0, 1)],
    }
    assert found["open"].files["a.txt"] == "text"
    assert json.loads(found["open"].files["t.json"])["data"] == [[1], [2]]
    assert (found["open"].params, found["aside"].params) == ({"q": "2"}, {"z": "3"})
    (foreign,) = (run_id for run_id, run in store.runs.items() if run.name == "foreign")
    assert found["child"].tags["mlflow.parentRunId"] == foreign
    assert not [path for name in BEFORE for path in spool.rglob(name)]


def test_the_rest_is_delivered_once(store: MemoryStore, spool: Path) -> None:
    """Runs, held events, deferred files, points of shared runs, rows of tables: all that was noted counts."""
    deliver_to(store, spool)
    check(store, spool)


@pytest.mark.parametrize("method", ["_append", "_carry_over", "sync"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_while_it_is_carried_over(
    store: MemoryStore, spool: Path, monkeypatch: pytest.MonkeyPatch, method: str, call: int, after: bool
) -> None:
    """Killed at any step from the old files to the ledger, the next delivery has all, once."""
    count = 0

    def killed(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == call and not after:
                raise Crash
            done = function(*arguments)
            if count == call:
                raise Crash
            return done

        return step

    owner = _ledger if method == "sync" else Ledger
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, killed(getattr(owner, method)))
        with pytest.raises(Crash):
            deliver_to(store, spool)
    deliver_to(store, spool)
    check(store, spool)


def test_carried_over_and_then_killed(store: MemoryStore, spool: Path) -> None:
    """What was carried over is read again by the next process: here, each process dies after one round."""
    away = True

    def before(method: str, *_: Any) -> None:
        if away and method == "write_artifact":
            raise Crash

    store.before = before
    for _ in range(3):
        worker = Worker(spool, store.open)
        with contextlib.suppress(Crash):
            worker.round()
        worker.close()
    assert not [path for name in BEFORE for path in spool.rglob(name)]
    assert [*spool.rglob(NAME)]
    away = False
    deliver_to(store, spool)
    check(store, spool)


def test_commands_read_what_is_not_carried_over(store: MemoryStore, spool: Path) -> None:
    """Before a delivery process comes, and after, programs and commands see the same; looking changes nothing."""
    first, second = journals(spool)

    def look() -> Any:
        both = (first, second)
        seen = [(list(read_runs(each)), sorted(map(repr, read_held(each))), read_blocked(each)) for each in both]
        return seen, [contents(journal) for journal in read_journals(spool)]

    before = look()
    assert [len(list(part)) for part in before[0][0]] == [2, 2, 1]
    ((id_, run), *_) = read_runs(first)
    assert find_delivered(first, id_) == run
    assert names_run(first, run.run_id)
    assert names_run(first, id_.hex())
    assert not names_run(second, "0" * 32)
    assert (first / "runs").exists()
    for directory in (first, second):
        _ledger.journal_ledger(directory)
    assert look() == before
    assert not (first / "runs").exists()
