"""Equal points that several processes log on one run: each is kept once, whichever process is killed."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.conftest import StartProgram, all_runs, examples, points, sync
from tests.delivery_settings import changed_timing
from tests.drawn_faults import faults
from tests.drawn_processes import OPERATIONS, POINTS, Machine, Process, World, rounds
from tests.memory_store import MemoryStore
from trackdsl._core import events
from trackdsl.delivery.batches import _shared_points
from trackdsl.delivery.journals import _stretch_size
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.service import open_sink
from trackdsl.delivery.state import _ledger
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.store_format import limits as _limits
from trackdsl.store_format.ledger import commits, read


@pytest.fixture
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delivery can be killed between any few points."""
    monkeypatch.setattr(_stretch_size, "_STRETCH", 7)
    monkeypatch.setattr(_limits, "MAX_METRICS", 3)
    monkeypatch.setattr(_shared_points, "_MOST_OCCUPIED", 5)
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
    monkeypatch.setattr(_shared_points, "_MOST_OCCUPIED", 100)
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
