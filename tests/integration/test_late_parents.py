"""Parents that another machine delivers late or never: children wait, are linked, or given up with a report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.drawn_processes import Machine, Process, rounds
from tests.memory_store import MemoryStore
from trackdsl._core import events
from trackdsl.delivery._timing import timing
from trackdsl.delivery.dropped_runs import drop_run
from trackdsl.delivery.process import _worker
from trackdsl.delivery.runs import _remote_runs
from trackdsl.delivery.state import _awaited_runs
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.store_format.progress import read_progress


@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("count", [500, pytest.param(2000, marks=pytest.mark.slow)])
def test_thousands_of_children_ask_once(machines: Callable[..., Machine], count: int) -> None:
    """Runs of two workers under one parent of another machine take one lookup, as does what they log on it."""
    store = MemoryStore()
    asked: list[str] = []
    store.before = lambda method, *arguments: asked.append(arguments[0]) if method == "find_runs" else None
    client = Process(machines("client", store).spool)
    parent = client.open("parent")
    rounds(Machine(client.spool, store), number=2)
    cluster = machines("cluster", store)
    workers = [Process(cluster.spool, within=(client.prefix.hex(),)) for _ in range(2)]
    for worker in workers:
        for number in range(count):
            worker.close(worker.open(f"child{number}", parent))
            if number % (count // 50) == 0:
                worker.metric(parent, "m", 1.0, number)
        worker.die()
    rounds(cluster, number=30)
    assert asked == [parent.hex()]
    parents = Counter(run.tags.get("mlflow.parentRunId") for run in store.runs.values())
    (parent_id,) = (run_id for run_id, run in store.runs.items() if run.name == "parent")
    assert parents == {parent_id: 2 * count, None: 1}
    assert len(store.named("parent").points) == 100
    assert cluster.empty


@pytest.mark.slow
@pytest.mark.usefixtures("each_kind_of_store")
def test_runs_of_one_process_are_looked_up_together(machines: Callable[..., Machine]) -> None:
    """Tasks whose parents are tasks of another machine, each of its own, take few lookups."""
    store = MemoryStore()
    asked: list[str] = []
    store.before = lambda method, *arguments: asked.append(arguments[0]) if method == "find_runs" else None
    first, second = machines("first", store), machines("second", store)
    opener, worker = Process(first.spool), Process(second.spool)
    for number in range(1000):
        worker.open(f"child{number}", opener.open(f"parent{number}"))
    rounds(first, second, number=3)
    ids = {run.name: run_id for run_id, run in store.runs.items()}
    assert len(ids) == 2000
    for number in range(1000):
        assert store.named(f"child{number}").tags["mlflow.parentRunId"] == ids[f"parent{number}"]
    assert len(asked) < 12


@pytest.mark.usefixtures("each_kind_of_store")
def test_a_parent_is_waited_for(machines: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    """While its machine is behind, the store is asked at growing intervals; a program that waits for delivery knows."""
    store = MemoryStore()
    asked: list[str] = []
    store.before = lambda method, *arguments: asked.append(arguments[0]) if method == "find_runs" else None
    client, cluster = machines("client", store), machines("cluster", store)
    clock = Clock(monkeypatch)
    opener, worker = Process(client.spool), Process(cluster.spool)
    parent = opener.open("parent")
    before = worker.open("before")
    child = worker.open("child", parent)
    worker.metric(before, "m", 1.0)
    for _ in range(100):
        cluster.round()
        clock.pass_(0.5)
    # What stands in front of the child is there, and it alone is asked for.
    assert [run.name for run in store.runs.values()] == ["before"]
    assert set(asked) == {parent.hex()}
    # Twice each time: where it should be, and anywhere.
    assert len(asked) < 20
    progress = read_progress(worker.directory)
    assert progress is not None
    assert progress.blocked_since
    assert parent.hex() in progress.error
    client.round()
    clock.pass_(20)
    rounds(cluster, number=3)
    assert store.named("child").tags["mlflow.parentRunId"] in store.runs
    assert "trackdsl.parent.missing" not in store.named("child").tags
    assert child
    assert len(store.named("before").points) == 1


class Clock:
    """Lets time pass for those who wait for parents."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import time

        self._passed = 0.0
        self._real = time
        monkeypatch.setattr(_awaited_runs, "time", self)
        monkeypatch.setattr(_remote_runs, "time", self)
        monkeypatch.setattr(_worker, "time", self)

    def pass_(self, seconds: float) -> None:
        self._passed += seconds

    def time(self) -> float:
        return self._real.time() + self._passed

    def monotonic(self) -> float:
        return self._real.monotonic() + self._passed

    def time_ns(self) -> int:
        return self._real.time_ns() + int(self._passed * 1e9)


@pytest.mark.usefixtures("each_kind_of_store")
def test_a_parent_that_never_comes(machines: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent that is given up costs its children only the link, and no second wait, also after a restart."""
    store = MemoryStore()
    cluster = machines("cluster", store)
    clock = Clock(monkeypatch)
    stranger = Process(machines("client", store).spool)
    worker = Process(cluster.spool)
    ids = [stranger.open(f"parent{number}") for number in range(5)]
    for number, parent in enumerate(ids):
        worker.close(worker.open(f"child{number}", parent))
    for _ in range(8):
        cluster.round()
        clock.pass_(timing().other_process / 8)
        assert not store.runs
        cluster.restart()
    clock.pass_(timing().missing_run)
    rounds(cluster, number=2)
    assert {run.name: run.tags["trackdsl.parent.missing"] for run in store.runs.values()} == {
        f"child{number}": parent.hex() for number, parent in enumerate(ids)
    }


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("moment", ["before", "after", "between"])
def test_a_late_parent_finds_its_children(machines: Callable[..., Machine], moment: str) -> None:
    """A parent that is created after its child, or while it was looked for, is linked to it."""
    store = MemoryStore()
    client, cluster = machines("client", store), machines("cluster", store)
    opener, worker = Process(client.spool), Process(cluster.spool)
    parent = opener.open("parent")
    worker.open("child", parent)
    came: list[str] = []

    def before(method: str, *arguments: Any) -> None:
        if (moment, method, arguments[:1]) == ("before", "create_run", ("child",)) and not came:
            came.append(method)
            client.round()

    store.before = before
    cluster.round()
    if moment == "between":
        cluster.restart()
    client.round()
    (parent_id,) = (run_id for run_id, run in store.runs.items() if run.name == "parent")
    assert store.named("child").tags["mlflow.parentRunId"] == parent_id
    assert "trackdsl.parent.missing" not in store.named("child").tags
    assert bool(came) == (moment == "before")


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("dropped", [False, True])
def test_a_parent_that_comes_while_the_experiment_is_deleted(
    machines: Callable[..., Machine], caplog: pytest.LogCaptureFixture, restarted: bool, dropped: bool
) -> None:
    """A child is linked once its experiment is restored, also if its program is gone by then; unless it is dropped."""
    store = MemoryStore()
    machine = machines("a", store)
    opener, worker = Process(machine.spool), Process(machine.spool)
    parent = opener.prefix + bytes(6)
    child = worker.open("child", parent)
    worker.close(child)
    rounds(machine, number=4)
    assert store.named("child").tags["trackdsl.parent.missing"] == parent.hex()
    store.deleted = {"e-e"}
    for process, id_, name in ((opener, parent, "parent"), (worker, worker.prefix + b"others", "other")):
        process.say(events.Open(id_, None, "p", name, "stage", name, 0, time.time_ns(), {}, {}, None))
        process.close(id_)
        rounds(machine, number=4)
    for process in (opener, worker):
        process.die()
    rounds(machine, number=4)
    assert not machine.empty
    assert "restore it with `mlflow experiments restore" in caplog.text
    if restarted:
        machine.restart()
    if dropped:
        drop_run(machine.spool, child)
        machine.restart()
    else:
        store.deleted = set()
    rounds(machine, number=8)
    assert machine.empty
    held = store.named("child")
    assert ("trackdsl.parent.missing" in held.tags, "mlflow.parentRunId" in held.tags) == (dropped, not dropped)


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_an_experiment_that_is_deleted_at_the_link(machines: Callable[..., Machine]) -> None:
    """A late parent looks once more for a child whose experiment was deleted just before they were linked."""
    store = MemoryStore()
    client, cluster = machines("client", store), machines("cluster", store)
    opener, worker = Process(client.spool), Process(cluster.spool)
    parent = opener.prefix + bytes(6)
    worker.close(worker.open("child", parent))
    worker.die()
    rounds(cluster, number=6)
    assert cluster.empty
    tried: list[str] = []

    def before(method: str, *_: Any) -> None:
        if method == "link" and not tried:
            tried.append(method)
            store.deleted = {"e-e"}

    store.before = before
    opener.say(events.Open(parent, None, "p", "parent", "stage", "parent", 0, time.time_ns(), {}, {}, None))
    rounds(client, number=4)
    store.deleted = set()
    opener.close(parent)
    rounds(client, number=4)
    assert tried
    assert store.named("child").tags["mlflow.parentRunId"] in store.runs
    assert "trackdsl.parent.missing" not in store.named("child").tags


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_a_link_that_is_refused_is_reported(machines: Callable[..., Machine], caplog: pytest.LogCaptureFixture) -> None:
    """A link that the store refuses for good is named in the log, unless the child is deleted."""
    store = MemoryStore()
    machine = machines("a", store)
    opener, worker = Process(machine.spool), Process(machine.spool)
    parent = opener.prefix + bytes(6)
    for name in ("child", "gone"):
        worker.open(name, parent)
    rounds(machine, number=4)
    store.named("gone").deleted = True

    def before(method: str, *_: Any) -> None:
        if method == "link":
            raise Refused("no link")

    store.before = before
    opener.say(events.Open(parent, None, "p", "parent", "stage", "parent", 0, time.time_ns(), {}, {}, None))
    rounds(machine, number=4)
    ids = {run.name: run_id for run_id, run in store.runs.items()}
    assert f"as the parent of run {ids['child']}: no link" in caplog.text
    assert f"run {ids['gone']}" not in caplog.text


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_delivery_is_killed_before_it_has_asked_again(machines: Callable[..., Machine]) -> None:
    """A child is linked too where delivery dies between its creation and the second look for its parent."""
    store = MemoryStore()
    client, cluster = machines("client", store), machines("cluster", store)
    opener, worker = Process(client.spool), Process(cluster.spool)
    parent = opener.open("parent")
    worker.open("child", parent)
    came: list[str] = []

    def before(method: str, *arguments: Any) -> None:
        if method == "create_run" and arguments[0] == "child":
            client.round()
            came.append(method)
        elif method == "find_runs" and came == ["create_run"]:
            came.append(method)
            raise Unavailable("gone")

    store.before = before
    cluster.round()
    assert len(came) == 2
    cluster.restart()
    rounds(cluster, number=3)
    assert store.named("child").tags["mlflow.parentRunId"] in store.runs
    assert "trackdsl.parent.missing" not in store.named("child").tags
