"""Runs of several processes: events held until their run exists, journals that wait, waiting for children."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import StartProgram, all_runs, wait_until
from tests.drawn_processes import Machine, Process, rounds
from tests.memory_store import MemoryStore, deliver_to, fail_once
from trackdsl import stage
from trackdsl._core import context as _context
from trackdsl._core import events
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.program import _client, _waiting
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.journal import _origin
from trackdsl.journal._spool import journals
from trackdsl.store_format.progress import read_progress


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
