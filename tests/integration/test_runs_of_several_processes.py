"""Runs, journals and machines that belong together: parents, points and waiting across processes."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import trackdsl
from tests.conftest import StartProgram, all_runs, changed_timing, examples, points, sync, wait_until
from tests.drawn_faults import faults
from tests.drawn_processes import OPERATIONS, POINTS, Machine, Process, World
from tests.memory_store import MemoryStore, deliver_to, fail_once
from trackdsl import stage
from trackdsl._core import context as _context
from trackdsl._core import events
from trackdsl.delivery._timing import timing
from trackdsl.delivery.batches import _shared_points
from trackdsl.delivery.dropped_runs import drop_run
from trackdsl.delivery.journals import _stretch_size
from trackdsl.delivery.process import _worker
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.program import _client, _waiting
from trackdsl.delivery.runs import _remote_runs
from trackdsl.delivery.service import open_sink
from trackdsl.delivery.state import _awaited_runs, _ledger
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.journal import _origin
from trackdsl.journal._spool import journals
from trackdsl.store_format import limits as _limits
from trackdsl.store_format.ledger import commits, read
from trackdsl.store_format.progress import read_progress


def rounds(*machines: Machine, number: int = 20) -> None:
    for _ in range(number):
        for machine in machines:
            machine.round()


@pytest.fixture
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delivery can be killed between any few points."""
    monkeypatch.setattr(_stretch_size, "_STRETCH", 7)
    monkeypatch.setattr(_limits, "MAX_METRICS", 3)
    monkeypatch.setattr(_shared_points, "_MOST_TAKEN", 5)
    monkeypatch.setattr(_ledger, "_FEW", 5)


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses", "short_stretches")
@settings(deadline=None, max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS, at=faults(8), patience=st.sampled_from([0.0, 1e9]))
# A journal that waits for another fails before it notes the run that the other waits for.
@example(
    operations=[("open", 0, None), ("param", 2, 0, "p"), ("open", 2, None), ("open", 0, None), ("open", 0, 1)],
    at={1: (Unavailable, False), 7: (Unavailable, False)},
    patience=0.0,
)
@pytest.mark.slow
def test_processes_on_two_machines(operations: list[Any], at: dict[int, Any], patience: float) -> None:
    """All is there, once, whichever process dies or fails when, and however runs of several refer to each other."""
    store = MemoryStore(at)
    with tempfile.TemporaryDirectory() as folder, changed_timing(other_process=patience):
        world = World(Path(folder), store)
        for operation in operations:
            world.do(*operation)
        world.end()
    world.check()


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses", "short_stretches")
@settings(deadline=None, max_examples=examples(250), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=POINTS, at=faults(6))
@pytest.mark.slow
def test_equal_points_of_several_processes(operations: list[Any], at: dict[int, Any]) -> None:
    """Of equal points that processes log in the same milliseconds each is kept once, whichever process is killed."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), MemoryStore(at))
        world.do("open", 0, None)
        for operation in operations:
            world.do(*operation)
        world.end()
    world.check()


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_points_take_turns(machines: Callable[..., Machine]) -> None:
    """Two processes that log the same point by turns, each time delivered in between, lose none; one asks the store."""
    store = MemoryStore()
    asked: list[str] = []
    store.before = lambda method, *_: asked.append(method)
    machine = machines("one", store)
    owner, other = Process(machine.spool), Process(machine.spool)
    run = owner.open("run")
    for _ in range(5):
        for process in (other, owner):
            process.metric(run, "m", 1.0)
            rounds(machine, number=2)
    assert len(store.named("run").points) == 10
    assert asked.count("metric_history") == 1


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_points_of_a_stretch_that_failed_and_is_read_in_parts(machines: Callable[..., Machine]) -> None:
    """Equal points that were sent before their stretch failed are there once, though it is read again in parts."""
    store = MemoryStore()
    machine = machines("one", store)
    owner, other = Process(machine.spool), Process(machine.spool)
    run = owner.open("run")
    own = other.open("own")
    rounds(machine, number=3)

    def fail(method: str, *arguments: Any) -> None:
        if method == "write" and "poison" in arguments[1].tags:
            raise Unavailable("gone")

    store.before = fail
    for _ in range(12):
        other.metric(run, "m", 1.0)
    other.say(events.Tags(own, {"poison": "1"}))
    for _ in range(12):
        other.metric(run, "m", 1.0)
    rounds(machine, number=3)
    store.before = lambda *_: None
    other.die()
    rounds(machine, number=9)
    assert len(store.named("run").points) == 24


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_points_that_come_late(machines: Callable[..., Machine]) -> None:
    """Points of a journal that is far behind the others are all kept, though others were delivered long before."""
    store = MemoryStore()
    machine = machines("one", store)
    owner, quick, slow = (Process(machine.spool) for _ in range(3))
    run = owner.open("run")
    for process, at in ((owner, -120_000), (quick, 0), (slow, -120_000)):
        process.metric(run, "m", 1.0, 0, at)
        rounds(machine, number=2)
    assert len(store.named("run").points) == 3


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_threads_that_overtake_each_other(machines: Callable[..., Machine]) -> None:
    """A point that is written after one of a later time, with a restart in between, is not taken for an earlier one."""
    store = MemoryStore()
    machine = machines("one", store)
    process = Process(machine.spool)
    run = process.open("run")
    process.metric(run, "a", 1.0, 0, 0)
    process.metric(run, "b", 1.0, 0, 3)
    machine.round()
    machine.restart()
    process.metric(run, "a", 1.0, 0, 0)
    machine.round()
    assert Counter(key for key, *_ in store.named("run").points) == {"a": 2, "b": 1}


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_what_nobody_can_meet_is_forgotten(machines: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many points on a run of another process only the last ones are remembered, also after a restart."""
    monkeypatch.setattr(_shared_points, "_MOST_TAKEN", 100)
    monkeypatch.setattr(_ledger, "_FEW", 100)
    store = MemoryStore()
    machine = machines("one", store)
    owner, other = Process(machine.spool), Process(machine.spool)
    run = owner.open("run")
    for number in range(3):
        for step in range(150):
            # Long ago, but for the last ones.
            other.metric(run, "m", 1.0, step, 0 if number == 2 else -3_600_000)
        rounds(machine, number=2)
        if number == 1:
            machine.restart()
    (path,) = machine.spool.glob("servers/*/ledger")
    assert sum(len(commit.changes) for commit in commits(read(path))) < 500
    assert len(store.named("run").points) == 450
    assert machine.worker is not None
    (shared,) = machine.worker._streams._shared.values()
    kept = shared.points.of(next(iter(store.runs)), "")
    assert kept is not None
    assert kept.count == 150


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


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_what_is_said_of_a_run_to_come_is_kept_aside(machines: Callable[..., Machine], tmp_path: Path) -> None:
    """Points and tags on another machine's run outlive restarts and arrive in order, while the journal is delivered."""
    store = MemoryStore()
    client, cluster = machines("client", store), machines("cluster", store)
    opener, worker = Process(client.spool), Process(cluster.spool)
    parent = opener.open("parent")
    worker.say(events.Tags(parent, {"t": "first"}))
    worker.metric(parent, "m", 1.0)
    own = worker.open("own")
    cluster.round()
    cluster.restart()
    worker.say(events.Tags(parent, {"t": "second"}))
    worker.metric(parent, "m", 1.0)
    worker.close(own)
    rounds(cluster, number=3)
    progress = read_progress(worker.directory)
    assert progress is not None
    assert progress.held == progress.deferred == 4
    assert store.named("own").status == "FINISHED"
    client.round()
    worker.say(events.Tags(parent, {"t": "third"}))
    worker.die()
    rounds(cluster, number=3)
    held = store.named("parent")
    assert (held.tags["t"], len(held.points)) == ("third", 2)
    assert cluster.empty


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_what_was_kept_aside_is_not_read_twice(machines: Callable[..., Machine]) -> None:
    """A point that was kept aside by a stretch which failed, and delivered meanwhile, is there once."""
    store = MemoryStore()
    client, cluster = machines("client", store), machines("cluster", store)
    opener, worker = Process(client.spool), Process(cluster.spool)
    parent = opener.open("parent")
    worker.open("own", n=1)
    worker.metric(parent, "m", 1.0)
    store.before = fail_once("write", error=lambda: Unavailable("gone"))
    cluster.round()
    client.round()
    cluster.restart()
    rounds(cluster, number=3)
    assert len(store.named("parent").points) == 1


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_what_was_kept_aside_is_written_before_it_is_forgotten(machines: Callable[..., Machine]) -> None:
    """What was kept aside, and delivered in a stretch that then failed, is there, once, and in order."""
    store = MemoryStore()
    client, cluster = machines("client", store), machines("cluster", store)
    opener, worker = Process(client.spool), Process(cluster.spool)
    parent = opener.open("parent")
    worker.say(events.Tags(parent, {"t": "first", "first": "1"}))
    worker.metric(parent, "m", 1.0)
    own = worker.open("own")
    rounds(cluster, number=3)
    client.round()

    def fail(method: str, *arguments: Any) -> None:
        if method == "write" and "poison" in arguments[1].tags:
            raise Unavailable("gone")

    store.before = fail
    worker.say(events.Tags(parent, {"t": "second"}))
    worker.say(events.Tags(own, {"poison": "1"}))
    cluster.round()
    cluster.restart()
    store.before = lambda *_: None
    worker.die()
    rounds(cluster, number=3)
    held = store.named("parent")
    assert (held.tags["first"], held.tags["t"], len(held.points)) == ("1", "second", 1)
    assert cluster.empty


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("restart", [False, True])
def test_a_run_of_plain_mlflow_whose_adopter_is_gone(machines: Callable[..., Machine], restart: bool) -> None:
    """A forked child still writes to it, and has children there, when the journal that adopted it is finished."""
    store = MemoryStore()
    machine = machines("one", store)
    plain = store.create_run("e-e", "plain", 0, {})
    adopter = Process(machine.spool)
    prefix = (adopter.prefix.hex(),)
    child = Process(machine.spool, within=prefix, beside=prefix)
    run = adopter.prefix + (1).to_bytes(6, "big")
    adopter.say(events.Adopt(run, plain, "e-e"))
    child.metric(run, "m", 1.0)
    rounds(machine, number=2)
    adopter.die()
    rounds(machine, number=3)
    assert not adopter.directory.exists()
    if restart:
        machine.restart()
    child.metric(run, "m", 2.0)
    child.open("child", run)
    rounds(machine)
    assert {value for _, value, *_ in store.named("plain").points} == {1.0, 2.0}
    assert store.named("child").tags["mlflow.parentRunId"] == plain


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_journals_that_wait_in_a_ring(machines: Callable[..., Machine]) -> None:
    """Where a record that two journals wait for is damaged, neither waits for ever, and only that is missing."""
    store = MemoryStore()
    machine = machines("one", store)
    first, second = Process(machine.spool), Process(machine.spool)
    lost = second.open("lost" * 100)
    child = first.open("child", lost)
    second.open("grandchild", child)
    (segment,) = second.directory.glob("*.seg")
    content = segment.read_bytes()
    segment.write_bytes(content.replace(b"lost" * 100, b"LOST" * 100, 1))
    first.die()
    second.die()
    rounds(machine)
    assert machine.empty
    assert store.named("child").tags["trackdsl.parent.missing"] == lost.hex()
    assert store.named("grandchild").tags["mlflow.parentRunId"] in store.runs
    assert {run.name for run in store.runs.values()} == {"child", "grandchild"}


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_a_journal_that_is_made_in_between(machines: Callable[..., Machine]) -> None:
    """A parent whose journal was made after this round's look is not taken for lost."""
    store = MemoryStore()
    machine = machines("one", store)
    late = bytes(9) + b"x"
    worker = Process(machine.spool, within=(late.hex(),), beside=(late.hex(),))
    worker.open("first")
    made: list[Process] = []
    missed: list[bool] = []

    def before(method: str, *arguments: Any) -> None:
        if method == "find_runs" and not made:
            made.append(Process(machine.spool, prefix=late))
            made[0].open("parent")
        elif method == "create_run":
            missed.append("trackdsl.parent.missing" in arguments[1])

    store.before = before
    parent = late + (1).to_bytes(6, "big")
    worker.open("child", parent)
    rounds(machine)
    assert missed == [False] * 3
    assert store.named("child").tags["mlflow.parentRunId"] in store.runs


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.slow
def test_two_machines_at_a_real_store(store: str, tmp_path: Path) -> None:
    """Parent and child that missed each other are linked, equal points are kept apart, late ones arrive: at MLflow."""
    workers = [Worker(tmp_path / name, open_sink) for name in ("client", "cluster")]
    opener, worker, other = (Process(each.spool, uri=store) for each in (workers[0], workers[1], workers[1]))
    name = f"parent-{os.getpid()}"
    parent = opener.open(name)
    worker.close(worker.open("child", parent))
    worker.metric(parent, "m", 1.0, 1)
    other.metric(parent, "m", 1.0, 1)
    workers[1].round()
    (child,) = (run for run in all_runs(store) if run.data.tags.get("trackdsl.parent.missing") == parent.hex())
    for number in (1, 0, 1, 1):
        workers[number].round()
    found = {run.info.run_name: run for run in all_runs(store) if run.info.run_name in (name, "child")}
    assert found["child"].info.run_id == child.info.run_id
    assert found["child"].data.tags["mlflow.parentRunId"] == found[name].info.run_id
    assert "trackdsl.parent.missing" not in found["child"].data.tags
    assert points(found[name], "m", store) == [(1, 1.0)] * 2
    for process in (opener, worker, other):
        process.die()
    for each in workers:
        each.close()


@pytest.mark.slow
def test_equal_points_of_forked_processes(start: StartProgram, sqlite_store: str) -> None:
    """Four processes and their parent log the same point on one run, in the same milliseconds: every one is kept."""
    program = start(
        """
        import os, trackdsl

        def log():
            for _ in range(300):
                run.log_metric("same", 1.0, step=3)

        with trackdsl.stage("s") as run:
            pids = []
            for _ in range(4):
                pid = os.fork()
                if pid == 0:
                    log()
                    os._exit(0)
                pids.append(pid)
            log()
            for pid in pids:
                os.waitpid(pid, 0)
        """
    )
    code, _, err = program.finish()
    assert code == 0, err
    done = sync()
    assert done.returncode == 0, done.stderr
    (run,) = all_runs(sqlite_store)
    assert points(run, "same", sqlite_store) == [(3, 1.0)] * 1500
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_the_end_of_a_program_waits_for_its_children(start: StartProgram, sqlite_store: str) -> None:
    """What a child process recorded, which ended without waiting, is at MLflow when its parent has ended."""
    program = start(
        """
        import os, signal, trackdsl
        with trackdsl.experiment("e") as root:
            for name, end in (("ended", 0), ("killed", signal.SIGKILL)):
                pid = os.fork()
                if pid == 0:
                    with trackdsl.stage(name):
                        for n in range(20):
                            with trackdsl.stage("s", n=n):
                                pass
                        if end:
                            os.kill(os.getpid(), end)
                    os._exit(0)
                os.waitpid(pid, 0)
        """,
        TRACKDSL_MODE="online",
    )
    code, _, err = program.finish()
    assert code == 0, err
    runs = all_runs(sqlite_store)
    assert Counter(run.info.run_name for run in runs) == {"e": 1, "ended": 1, "killed": 1, "s": 40}
    assert {run.info.run_name: run.info.status for run in runs} == {
        "e": "FINISHED",
        "ended": "FINISHED",
        "killed": "KILLED",
        "s": "FINISHED",
    }


@pytest.fixture
def nobody_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Online, and no delivery process is started."""
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setattr(_client, "_start_process", lambda spool: None)


@pytest.mark.usefixtures("each_kind_of_store", "nobody_starts")
@pytest.mark.parametrize("dies", [True, False])
def test_flush_waits_for_child_processes(dies: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a child's run is on its way `flush` waits, also where nothing of this process's own is."""
    spool = tmp_path / "spool"
    store = MemoryStore()
    on_its_way, released, done = threading.Event(), threading.Event(), threading.Event()
    looks: list[object] = []
    flushed: list[bool] = []

    def before(method: str, *arguments: Any) -> None:
        if method == "create_run" and arguments[0] == "child":
            on_its_way.set()
            assert released.wait(60)

    def look(directory: Path) -> Any:
        looks.append(directory)
        return read_progress(directory)

    def serve() -> None:
        worker = Worker(spool, store.open)
        while not done.wait(0.01):
            worker.round()
        worker.close()

    store.before = before
    with stage("parent") as run:
        deliver_to(store, spool, rounds=3)
        child = Process(spool, within=(_origin._ancestry.own,), beside=(_origin._ancestry.own,), uri=run.target.uri)
        child.open("child", run.key)
        if dies:
            child.die()
        threads = [threading.Thread(target=serve), threading.Thread(target=lambda: flushed.append(trackdsl.flush()))]
        threads[0].start()
        try:
            assert on_its_way.wait(60)
            monkeypatch.setattr(_waiting, "read_progress", look)
            threads[1].start()
            wait_until(lambda: len(looks) > 20 or flushed, "flush to look some times")
            assert not flushed
            released.set()
            threads[1].join()
            assert flushed == [True]
            assert store.named("child").status == ("KILLED" if dies else "RUNNING")
        finally:
            released.set()
            done.set()
            threads[0].join()
            child.die()


@pytest.mark.slow
def test_journals_name_the_runs_around_their_process(tmp_path: Path, start: StartProgram) -> None:
    """A fork, a fork of a fork, and a program that was handed the context each name those that they are within."""
    program = start(
        """
        import os, subprocess, sys, trackdsl
        from trackdsl import capture, stage

        def fork(then):
            pid = os.fork()
            if pid == 0:
                then()
                os._exit(0)
            os.waitpid(pid, 0)

        def program():
            code = "import trackdsl\\nwith trackdsl.stage('program'): pass"
            with stage("starter"):
                os.environ["TRACKDSL_CONTEXT"] = capture().to_text()
                subprocess.run([sys.executable, "-c", code])

        with stage("root"):
            fork(lambda: stage("fork").__enter__())
            fork(lambda: fork(program))
        """
    )
    code, _, err = program.finish()
    assert code == 0, err
    origins = {}
    for directory in journals(tmp_path / "spool"):
        origin = _origin.read_origin(directory)
        assert origin is not None
        (first, *_) = (event for event in events_of(directory) if isinstance(event, events.Open))
        origins[first.name] = origin
    root, starter = origins["root"].prefix, origins["starter"].prefix
    assert origins["root"].ancestors == ()
    assert origins["fork"].ancestors == origins["fork"].same_spool == (root,)
    assert origins["starter"].ancestors[0] == root
    assert origins["program"].ancestors == (*origins["starter"].ancestors, starter)
    assert starter in origins["program"].same_spool


def events_of(directory: Path) -> list[events.AnyEvent]:
    from trackdsl.journal._reader import read_all

    return read_all(directory)


def test_delivery_is_in_no_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The delivery process never has `TRACKDSL_CONTEXT`, and its thread begins outside of any run."""
    from trackdsl.delivery.environment import ENVIRONMENT, prepare_environment
    from trackdsl.delivery.process import _thread

    for name in (*ENVIRONMENT, "TRACKDSL_UPLOAD_TIMEOUT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("TRACKDSL_CONTEXT", "{}")
    prepare_environment()
    assert "TRACKDSL_CONTEXT" not in os.environ
    seen: list[object] = []
    monkeypatch.setattr(_thread, "serve", lambda spool: seen.append(_context.current()))
    with stage("s"):
        _client._start_thread(tmp_path)
        _client._threads.pop(tmp_path).join()
    assert seen == [None]
