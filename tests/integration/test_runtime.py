"""The state of a process: what a forked child renews, and what `reset` restores."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import trackdsl
import trackdsl.testing
from tests.conftest import StartProgram, all_runs, deliver
from trackdsl import errors
from trackdsl._core import redaction, runtime
from trackdsl._core.events import Open
from trackdsl._core.runtime import ForkSafeLock, Phase
from trackdsl._core.suppression import suppression
from trackdsl.journal._reader import read_all
from trackdsl.journal._spool import journals

PACKAGE = Path(trackdsl.__file__).parent


@pytest.fixture
def alone() -> Iterator[None]:
    """Only what the test registers is registered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "_registered", {})
        yield


@pytest.mark.usefixtures("alone")
def test_phases_order_what_is_registered() -> None:
    """After a fork the phases run from the first to the last, and `reset` runs them backwards, however registered."""
    done: list[Phase] = []
    for phase in random.sample(list(Phase), len(Phase)):
        noted: Callable[[], object] = lambda phase=phase: done.append(phase)  # noqa: E731
        runtime.register(phase.name, phase, after_fork=noted, reset=noted)
    runtime.reinit_after_fork()
    runtime.reset()
    assert done == [*Phase, *reversed(Phase)]


@pytest.mark.usefixtures("alone")
def test_a_second_registration_replaces_the_first() -> None:
    """A module that is imported again is registered once."""
    done: list[str] = []
    runtime.register("state", Phase.RUNS, reset=lambda: done.append("old"))
    runtime.register("state", Phase.RUNS, reset=lambda: done.append("new"))
    runtime.reset()
    assert done == ["new"]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_an_error_after_a_fork_is_logged(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """A function that raises keeps no other from running, and one line names it."""
    done: list[str] = []

    def fail() -> None:
        raise error

    runtime.register("the broken one", Phase.FILES, after_fork=fail)
    runtime.register("the next", Phase.JOURNALS, after_fork=lambda: done.append("next"))
    runtime.reinit_after_fork()
    assert done == ["next"]
    assert [record.getMessage().count("the broken one") for record in caplog.records] == [1]


@pytest.mark.usefixtures("alone")
def test_an_error_of_reset_is_raised() -> None:
    """`reset` puts back all that it can, and then raises what went wrong."""
    done: list[str] = []

    def fail() -> None:
        raise ValueError("broken")

    runtime.register("the broken one", Phase.JOURNALS, reset=fail)
    runtime.register("the next", Phase.FILES, reset=lambda: done.append("next"))
    with pytest.raises(ExceptionGroup) as raised:
        runtime.reset()
    assert done == ["next"]
    assert raised.value.exceptions[0].__notes__ == ["while trackdsl reset: the broken one"]


def in_child(work: Callable[[], Any]) -> str:
    """What a forked child of this process returns, as text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writing, str(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_a_lock_of_another_thread_is_free_in_a_child(make: Callable[[], Any]) -> None:
    """A forked child can take a lock that another thread of its parent holds, and the parent keeps it."""
    lock, held, done = ForkSafeLock(make), threading.Event(), threading.Event()

    def hold() -> None:
        with lock.current:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert in_child(lambda: lock.current.acquire(blocking=False)) == "True"
        assert not lock.current.acquire(blocking=False)
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_a_fork_inside_of_a_lock(make: Callable[[], Any]) -> None:
    """A thread that forks while it holds a lock leaves its block in both processes without an error."""

    def leave() -> str:
        with lock.current:
            return "left"

    lock = ForkSafeLock(make)
    with lock.current:
        pid = os.fork()
    if not pid:
        os._exit(0 if leave() == "left" else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert leave() == "left"


@pytest.mark.slow
def test_the_order_does_not_depend_on_imports() -> None:
    """After a fork, run ids are renewed before the journal describes its process, and runs come last."""
    program = """
import os, sys
import trackdsl.session, trackdsl._core.runtime as runtime
names = [state.name for state in runtime._in_order() if state.after_fork]
expected = ["the ids of runs", "the processes that this one comes from", "locked files", "journals", "runs", "sessions"]
print([name for name in names if name in expected] == expected)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.slow
def test_a_child_forgets_the_threads_that_read() -> None:
    """If another thread was reading a value at the fork, a later thread of the child with its number can record."""
    began, done = threading.Event(), threading.Event()

    def read() -> None:
        thread = suppression.begin()
        began.set()
        done.wait()
        suppression.end(thread)

    thread = threading.Thread(target=read)
    thread.start()
    began.wait()
    try:
        assert in_child(lambda: suppression.on) == "False"
        own = suppression.begin()
        assert in_child(suppression.here) == "True"  # The thread that forks reads in the child too.
        suppression.end(own)
        assert suppression.on
    finally:
        done.set()
        thread.join()
    assert not suppression.on


def test_a_child_that_ends_leaves_the_code_of_models_to_its_parent(tmp_path: Path) -> None:
    """The modules of a loaded model stay after a forked child has ended; the program removes them at its own end."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/own_late.py").touch()
    program = """
import os, sys
from pathlib import Path
from trackdsl._runs.loading import _offer_code
_offer_code(Path("code"))
if os.fork() == 0:
    sys.exit()
os.wait()
import own_late
print(os.path.dirname(own_late.__file__))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ}
    )
    assert done.stderr == ""
    assert not Path(done.stdout.strip()).exists()


def test_a_child_has_the_recursion_limit_of_its_own_stack() -> None:
    """Where a deep recursion of another thread raised the limit at the fork, the child has the program's own again."""
    deep, done = threading.Event(), threading.Event()

    @trackdsl.stage(nested=False)
    def recurse(levels: int) -> None:
        if levels:
            recurse(levels - 1)
        else:
            deep.set()
            done.wait()

    def begin() -> None:
        with trackdsl.testing.capture_runs(), trackdsl.stage("deep"):
            recurse(sys.getrecursionlimit() // 3)

    limit = sys.getrecursionlimit()
    thread = threading.Thread(target=begin)
    thread.start()
    deep.wait()
    try:
        assert sys.getrecursionlimit() > limit
        assert in_child(sys.getrecursionlimit) == str(limit)
        assert sys.getrecursionlimit() > limit
    finally:
        done.set()
        thread.join()
    assert sys.getrecursionlimit() == limit


def test_reset_puts_back_what_a_program_changed(tmp_path: Path) -> None:
    """After `reset` no session, scope, patch, setting, secret or warning of before is left, and nothing stays open."""
    names = {name: getattr(threading.Thread, name) for name in ("start", "run")}
    trackdsl.configure(experiment_name="other", spool=tmp_path / "other", strict=True, secret_names=["shoesize"])
    run = trackdsl.start_logging("session")
    trackdsl.stage("left open").__enter__()
    redaction.remember("Xk29fjw0Qp1z")
    errors.log_once("a note", key="once")
    with trackdsl.testing.capture_runs():
        pass
    runtime.reset()
    assert trackdsl.current_run() is None
    assert trackdsl.last() is None
    assert not run.is_open
    assert {name: getattr(threading.Thread, name) for name in names} == names
    assert trackdsl.settings.configured() == {}
    assert "Xk29fjw0Qp1z" in redaction.mask_text("it is Xk29fjw0Qp1z here")
    assert not redaction.is_secret_name("shoesize")
    assert not errors.was_logged("once")
    trackdsl.start_logging("another")
    runtime.reset()
    assert [event.name for directory in journals(tmp_path / "other") for event in opens(directory)] == [
        "session",
        "left open",
    ]


def opens(directory: Path) -> list[Open]:
    """The events of a journal that begin runs."""
    return [event for event in read_all(directory) if isinstance(event, Open)]


#: Forks while everything is in use, and another thread holds every lock that there is.
_BUSY = """
import os, threading
import trackdsl
from trackdsl import log_metric, stage, start_logging, stop_logging
from trackdsl._core import runtime
from trackdsl._core.suppression import suppression
from trackdsl.journal import _target

@stage
def work(n):
    log_metric("n", n)

def hold():
    for lock in [*(lock.current for lock in list(runtime._locks)), *held]:
        lock.acquire()
    thread = suppression.begin()
    locked.set()
    done.wait()
    suppression.end(thread)
    for lock in [*(lock.current for lock in list(runtime._locks)), *held]:
        lock.release()

session = start_logging("parent session")
work(1)
held = [lock for target in _target.known_targets() for lock in (target._making, target.writer._rotation)]
locked, done = threading.Event(), threading.Event()
thread = threading.Thread(target=hold)
with stage("open block"):
    thread.start()
    locked.wait()
    recorded = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work(2)
            start_logging("child session")
            inner = threading.Thread(target=work, args=(3,))
            inner.start()
            inner.join()
            stop_logging()
            os.write(recorded[1], b".")
            print("flushed", trackdsl.flush(180), flush=True)
            code = 0
        finally:
            os._exit(code)
    os.close(recorded[1])
    os.read(recorded[0], 1)  # Delivery in this process needs the locks: they are held until the child has recorded.
    done.set()
    thread.join()
    print("child", os.waitpid(pid, 0)[1], flush=True)
    work(4)
stop_logging()
print(session.is_open, flush=True)
"""


@pytest.mark.parametrize("mode", ["offline", pytest.param("online", marks=pytest.mark.slow)])
def test_a_fork_while_everything_is_in_use(start: StartProgram, sqlite_store: str, mode: str) -> None:
    """With a session, a block, patches, delivery and locked locks, a child records to a journal of its own."""
    program = start(_BUSY, TRACKDSL_MODE=mode, TRACKDSL_DELIVERY="thread")
    code, out, err = program.finish()
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"flushed {mode == 'online'}", "child 0", "False"]
    deliver()
    runs = {run.info.run_id: run for run in all_runs()}
    tree = {
        (run.info.run_name, run.data.params.get("n"), parent and runs[parent].info.run_name, run.info.status)
        for run in runs.values()
        for parent in [run.data.tags.get("mlflow.parentRunId")]
    }
    assert tree == {
        ("parent session", None, None, "FINISHED"),
        ("work", "1", "parent session", "FINISHED"),
        ("open block", None, "parent session", "FINISHED"),
        ("work", "2", "open block", "FINISHED"),
        ("child session", None, "open block", "FINISHED"),
        ("work", "3", "child session", "FINISHED"),
        ("work", "4", "open block", "FINISHED"),
    }
    assert len(runs) == len(tree)
    assert {run.data.metrics.get("n") for run in runs.values() if run.data.params} == {1.0, 2.0, 3.0, 4.0}
