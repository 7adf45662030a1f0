"""Tasks and threads: whatever a scope starts belongs to it, with no code in the program."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import sys
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from types import FrameType
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio

import trackdsl
from tests.conftest import StartProgram, all_runs, deliver
from trackdsl import current_run, log_metric, stage, steps, track_returns
from trackdsl._core import patching
from trackdsl.distributed._contexts import InScope
from trackdsl.testing import Captured, capture_runs


@stage
@track_returns
def leaf(number: int) -> float:
    """A stage that is a child of its caller."""
    return float(number)


@stage
async def awaited(number: int) -> int:
    """The same as a coroutine, with a stage inside, before and after it has waited."""
    leaf(number)
    await asyncio.sleep(0)
    leaf(number + 1)
    return number


def paths(captured: Captured) -> list[str]:
    """The paths of all runs, sorted."""
    return sorted(run.path for run in captured.runs)


def tree(uri: str | None = None) -> dict[str, tuple[str | None, str]]:
    """The path of every run at the store, with the path of its parent and its status."""
    runs = {run.info.run_id: run for run in all_runs(uri)}
    return {
        run.data.tags["trackdsl.path"]: (
            runs[parent].data.tags["trackdsl.path"] if (parent := run.data.tags.get("mlflow.parentRunId")) else None,
            run.info.status,
        )
        for run in runs.values()
    }


def in_a_thread(fn: Any) -> Any:
    """What `fn` returns in a thread of its own."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(fn()))
    thread.start()
    thread.join()
    return found[0]


# Tasks


def test_gathered_tasks_record_each_on_its_own_run(store: str) -> None:
    """Gathered tasks at a real store: each stage has its own parameters, its children, and the root above it."""
    trackdsl.configure(tracking_uri=store)

    @stage
    async def branch(name: str) -> None:
        log_metric("before", ord(name))
        await asyncio.gather(*(inner(f"{name}{number}") for number in range(3)))
        log_metric("after", ord(name))

    @stage("inner-{name}")
    async def inner(name: str) -> None:
        await asyncio.sleep(0)
        log_metric("value", int(name[1]))

    @trackdsl.experiment("tasks", run_name="gathered")
    async def root() -> None:
        await asyncio.gather(branch("a"), branch("b"))

    asyncio.run(root())
    deliver()
    runs = [run for run in all_runs(store) if run.data.tags.get("trackdsl.path", "").startswith("gathered")]
    by_id = {run.info.run_id: run for run in runs}
    assert len(runs) == 9
    for run in runs:
        assert run.info.status == "FINISHED"
        parent = by_id.get(run.data.tags.get("mlflow.parentRunId"))
        if run.info.run_name == "branch":
            assert parent is not None
            assert parent.info.run_name == "gathered"
            assert run.data.metrics == dict.fromkeys(("before", "after"), float(ord(run.data.params["name"])))
        elif run.info.run_name != "gathered":
            assert parent is not None
            assert run.data.params["name"][0] == parent.data.params["name"]
            assert run.data.metrics == {"value": float(run.data.params["name"][1])}


def test_tasks_of_every_kind() -> None:
    """gather, create_task, TaskGroup of anyio, trio's nurseries, to_thread, run_in_executor: all are children."""

    async def by_asyncio() -> None:
        with stage("asyncio"):
            await asyncio.gather(awaited(1), awaited(2))
            await asyncio.create_task(awaited(3))
            await asyncio.to_thread(leaf, 4)
            await asyncio.get_running_loop().run_in_executor(None, leaf, 5)
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(lambda: future.set_result(leaf(6)))
            await future

    async def by_anyio() -> None:
        async with stage("anyio"), anyio.create_task_group() as group:
            group.start_soon(awaited, 1)
            group.start_soon(anyio.to_thread.run_sync, leaf, 2)

    async def in_nursery() -> None:
        leaf(2)
        await trio.sleep(0)

    async def by_trio() -> None:
        with stage("trio"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(in_nursery)
                await trio.to_thread.run_sync(leaf, 1)

    with capture_runs() as captured:
        asyncio.run(by_asyncio())
        anyio.run(by_anyio)
        trio.run(by_trio)
    inside = ["awaited", "awaited/leaf", "awaited/leaf"]
    expected = [f"asyncio/{path}" for path in inside * 3 + ["leaf"] * 3] + [
        f"anyio/{path}" for path in [*inside, "leaf"]
    ]
    assert paths(captured) == sorted([*expected, "asyncio", "anyio", "trio", "trio/leaf", "trio/leaf"])
    assert {run.status for run in captured.runs} == {"FINISHED"}


def test_a_cancelled_task_is_killed_and_its_siblings_end_truthfully() -> None:
    """In a failing group the task that raised FAILED, one that was cancelled is KILLED, one that had ended FINISHED."""

    @stage
    async def fails(gate: anyio.Event) -> None:
        await gate.wait()
        raise ValueError("no")

    @stage
    async def waits(gate: anyio.Event) -> None:
        with stage("inside"):
            gate.set()
            await anyio.sleep_forever()

    @stage
    async def ends() -> None:
        pass

    async def main() -> None:
        gate = anyio.Event()
        async with stage("group"), anyio.create_task_group() as group:
            group.start_soon(ends)
            group.start_soon(fails, gate)
            group.start_soon(waits, gate)

    with capture_runs() as captured, pytest.raises(BaseException) as raised:  # noqa: PT011 - its kind is anyio's
        anyio.run(main)
    assert [str(error) for error in raised.value.exceptions] == ["no"]  # type: ignore[attr-defined]
    statuses = {run.name: run.status for run in captured.runs}
    assert statuses == {"group": "FAILED", "ends": "FINISHED", "fails": "FAILED", "waits": "KILLED", "inside": "KILLED"}


# Threads


def test_threads_and_pools_belong_to_the_scope_that_started_them(store: str) -> None:
    """At a real store: threads, subclasses, timers, pools and their maps are children of where they were started."""
    trackdsl.configure(tracking_uri=store)

    class Worker(threading.Thread):
        def run(self) -> None:
            with stage("worker"):
                leaf(1)

    with trackdsl.experiment("threads") as root:
        with stage("threads"):
            threads = [Worker(), threading.Thread(target=leaf, args=(2,)), threading.Timer(0, leaf, (3,))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        with stage("pool"), ThreadPoolExecutor(2) as pool:
            assert pool.submit(leaf, 4).result() == 4
            with stage("map"):
                assert list(pool.map(leaf, range(3))) == [0, 1, 2]
    root_id = root.id
    deliver()
    runs = {run.info.run_id: run for run in all_runs(store)}
    found = sorted(
        (run.data.tags["trackdsl.path"], runs[run.data.tags["mlflow.parentRunId"]].data.tags["trackdsl.path"])
        for run in runs.values()
        if run.data.tags.get("trackdsl.path", "").startswith("threads/") and run.info.status == "FINISHED"
    )
    assert root_id in {run.data.tags.get("trackdsl.id") for run in runs.values()}
    assert found == sorted(
        [
            ("threads/threads", "threads"),
            ("threads/threads/worker", "threads/threads"),
            ("threads/threads/worker/leaf", "threads/threads/worker"),
            ("threads/threads/leaf", "threads/threads"),
            ("threads/threads/leaf", "threads/threads"),
            ("threads/pool", "threads"),
            ("threads/pool/leaf", "threads/pool"),
            ("threads/pool/map", "threads/pool"),
            *[("threads/pool/map/leaf", "threads/pool/map")] * 3,
        ]
    )


def test_a_pool_serves_several_scopes() -> None:
    """The threads of a pool belong to none of the scopes they serve: each task goes where it was submitted."""
    with capture_runs() as captured, ThreadPoolExecutor(1) as pool:
        with stage("first"):
            pool.submit(leaf, 1).result()
        with stage("second"):
            pool.submit(leaf, 2).result()
        pool.submit(leaf, 3).result()
        assert pool.submit(current_run).result() is None
    assert paths(captured) == ["first", "first/leaf", "leaf", "second", "second/leaf"]


def test_a_run_is_written_to_from_any_thread() -> None:
    """A handle, the module functions in a started thread, and `steps` there: all write to the run they should."""
    with capture_runs() as captured, stage("outer") as outer:

        def log() -> None:
            log_metric("here", 1)
            for number in steps(range(2)):
                log_metric("loop", number)
            with stage("inner"):
                outer.log_metric("handle", 2)

        in_a_thread(log)
        log_metric("after", 3, step=7)
    metrics = captured.one("outer").metrics
    assert {name: [(point.step, point.value) for point in found] for name, found in metrics.items()} == {
        "here": [(0, 1.0)],
        "loop": [(0, 0.0), (1, 1.0)],
        "handle": [(0, 2.0)],
        "after": [(7, 3.0)],
    }


def test_a_thread_that_outlives_its_scope() -> None:
    """What a thread begins after its scope has closed is still a child of it, and so is what it starts itself."""
    gate = threading.Event()

    def late() -> None:
        gate.wait(60)
        leaf(1)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(leaf, 2).result()
        in_a_thread(lambda: leaf(3))

    with capture_runs() as captured:
        with stage("gone"):
            thread = threading.Thread(target=late)
            thread.start()
        gate.set()
        thread.join()
    assert paths(captured) == ["gone", "gone/leaf", "gone/leaf", "gone/leaf"]


def test_exceptions_of_threads_and_tasks_are_the_programs_own() -> None:
    """A future gives the very exception, with two frames more at most; thread errors reach `threading.excepthook`."""
    error = KeyError("mine")

    def fails() -> None:
        raise error

    def depth(future: Future[Any]) -> int:
        trace, count = future.exception().__traceback__, 0  # type: ignore[union-attr]
        while trace is not None:
            trace, count = trace.tb_next, count + 1
        return count

    with ThreadPoolExecutor(1) as pool:
        plain = depth(pool.submit(fails))
        error.__traceback__ = None
        with stage("scope"):
            inside = pool.submit(stage(fails))
            assert inside.exception() is error
            assert depth(inside) - plain <= 2
    assert error.__cause__ is None
    assert error.__context__ is None

    seen: list[Any] = []
    before, threading.excepthook = threading.excepthook, lambda failure: seen.append(failure.exc_value)
    try:
        with stage("scope"):
            thread = threading.Thread(target=fails)
            thread.start()
            thread.join()
    finally:
        threading.excepthook = before
    assert seen == [error]


# Patches


def test_patches_are_in_place_while_a_scope_is_open() -> None:
    """`Thread.start` and `submit` are the originals before and after, also with scopes that overlap or raise."""
    originals = (threading.Thread.start, ThreadPoolExecutor.submit)

    def now() -> tuple[Any, Any]:
        return threading.Thread.start, ThreadPoolExecutor.submit

    with pytest.raises(ValueError, match="out"), stage("outer"):
        assert now() != originals
        assert ThreadPoolExecutor.submit.__name__ == "submit"
        with stage("inner"):
            pass
        assert now() != originals
        raise ValueError("out")
    assert now() == originals

    first, second = stage("first"), stage("second")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert now() != originals
    second.__exit__(None, None, None)
    assert now() == originals
    assert not patching._open


def test_a_patch_of_somebody_elses_stays() -> None:
    """A patch that somebody else made on top of ours, or in between, stays and is called."""
    calls: list[str] = []
    original = ThreadPoolExecutor.submit

    def patched(name: str, below: Any) -> Any:
        def submit(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return below(self, *args, **kwargs)

        return submit

    try:
        with stage("outer"):
            above = ThreadPoolExecutor.submit = patched("above", ThreadPoolExecutor.submit)  # type: ignore[method-assign]
        assert ThreadPoolExecutor.submit is above
        with capture_runs() as captured, ThreadPoolExecutor(1) as pool:
            pool.submit(leaf, 1).result()
            with stage("again"):
                pool.submit(leaf, 2).result()
        assert paths(captured) == ["again", "again/leaf", "leaf"]
        assert calls == ["above"] * 2
    finally:
        ThreadPoolExecutor.submit = original  # type: ignore[method-assign]


def test_a_thread_is_left_as_it_was() -> None:
    """After a start inside a scope nothing of ours hangs on the thread, whether it has run or could not start."""

    def own() -> None:
        seen.append(current_run())

    seen: list[Any] = []
    with stage("scope") as run:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        assert "run" not in vars(thread)
        with pytest.raises(RuntimeError, match="threads can only be started once"):
            thread.start()
        assert "run" not in vars(thread)
        special = threading.Thread()
        special.run = own  # type: ignore[method-assign]
        special.start()
        special.join()
        assert special.run is own
    assert seen == [run]


@pytest.mark.parametrize("below", [True, False])
@pytest.mark.parametrize("with_thread", [True, False])
def test_a_thread_whose_run_somebody_else_wraps(below: bool, with_thread: bool) -> None:
    """A wrapper of a thread's `run`, below our patch or above it, gets the thread's own `run`; pools work as usual.

    Sentry hands the thread over, as to a function of the class.
    """
    original = threading.Thread.start

    def patch() -> None:
        under = threading.Thread.start

        def start(self: threading.Thread) -> None:
            run: Any = getattr(self.run, "__func__", self.run) if with_thread else self.run
            self.run = lambda: run(self) if with_thread else run()  # type: ignore[method-assign]
            under(self)

        threading.Thread.start = start  # type: ignore[method-assign]

    class Subclass(threading.Thread):
        def run(self) -> None:
            leaf(2)

    try:
        with capture_runs() as captured:
            if below:
                patch()
            with stage("scope"):
                if not below:
                    patch()
                for thread in [threading.Thread(target=leaf, args=(1,)), Subclass(), threading.Timer(0, leaf, [3])]:
                    thread.start()
                    thread.join()
                pool = ThreadPoolExecutor(1)
                pool.submit(leaf, 4).result()
            pool.submit(leaf, 5).result()
            pool.shutdown()
    finally:
        threading.Thread.start = original  # type: ignore[method-assign]
    assert paths(captured) == ["leaf", "scope"] + ["scope/leaf"] * 4


def test_a_thread_that_lets_nobody_set_anything() -> None:
    """Threads of a class that refuses attributes are started as usual, in the scope."""

    class Closed(threading.Thread):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "run":
                raise AttributeError(name)
            super().__setattr__(name, value)

    with capture_runs() as captured, stage("scope"):
        thread = Closed(target=leaf, args=(1,))
        thread.start()
        thread.join()
    assert paths(captured) == ["scope", "scope/leaf"]


def test_callbacks_belong_to_the_scope_that_gave_them() -> None:
    """Callbacks of a future or a pool belong to the scope in which they were registered."""

    def failing(_: int) -> None:
        raise ValueError

    called = threading.Semaphore(0)
    go = threading.Event()

    def back(_: object) -> None:
        leaf(1)
        called.release()

    with capture_runs() as captured, ThreadPoolExecutor(1) as pool, ThreadPool(1) as other:
        with stage("scope"):
            pool.submit(go.wait).add_done_callback(back)
            other.apply_async(go.wait, callback=back)
            other.apply_async(failing, [1], None, None, back)
            other.map_async(int, [1], callback=back)
            other.map_async(failing, [1], error_callback=back)
        outside = pool.submit(go.wait)
        outside.add_done_callback(back)
        go.set()
        for _ in range(6):
            assert called.acquire(timeout=60)
    assert paths(captured) == ["leaf", "scope"] + ["scope/leaf"] * 5


def test_an_interruption_while_a_pool_is_made() -> None:
    """Where Ctrl-C arrives just when a pool is made, which belongs to no scope, the current run stays current."""

    def interrupt(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_return" and frame.f_code.co_name == "make" and called.__name__ == "set":
            raise KeyboardInterrupt

    with stage("scope") as run:
        sys.setprofile(interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                ThreadPoolExecutor(1)
        finally:
            sys.setprofile(None)
        assert current_run() is run


def test_arguments_of_any_name() -> None:
    """What is handed to a pool by name may have any name, also one of ours."""
    given = {"self": 1, "fn": 2, "func": 3, "scope": 4, "args": 5, "kwargs": 6}
    with stage("scope"), ThreadPoolExecutor(1) as pool, ThreadPool(1) as other:
        assert pool.submit(dict, **given).result(60) == given  # type: ignore[arg-type]
        assert other.apply_async(dict, (), given).get(60) == given
        assert InScope(dict, trackdsl.capture())(**given) == given


def test_a_pool_lets_go_of_what_it_was_given() -> None:
    """Once a task has run, neither its function nor its arguments nor its result are held by us."""

    class Big:
        pass

    def take(_: Big) -> Big:
        return Big()

    with stage("scope"), ThreadPoolExecutor(1) as pool:
        argument = Big()
        future = pool.submit(take, argument)
        result = weakref.ref(future.result())
        kept = weakref.ref(argument)
        pool.submit(int).result()
        del argument, future
        gc.collect()
        assert kept() is None
        assert result() is None


def test_scopes_that_open_and_close_in_many_threads_at_once() -> None:
    """While threads open and close scopes as fast as they can, whatever is submitted inside is never left out."""
    wrong: list[Any] = []

    def many(name: str) -> None:
        for _ in range(100):
            with stage(name) as run, ThreadPoolExecutor(1) as pool:
                found = pool.submit(current_run).result()
                if found is not run:
                    wrong.append((run, found))

    with capture_runs():
        threads = [threading.Thread(target=many, args=(f"t{number}",)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert not patching._open


def test_the_first_scopes_of_a_process_in_many_threads_at_once(start: StartProgram) -> None:
    """What a thread starts in its first scope is inside it, also while another one is opening the very first."""
    program = start(
        """
        import threading
        from concurrent.futures import ThreadPoolExecutor
        from trackdsl import current_run, stage

        def first(name):
            together.wait()
            with stage(name) as run, ThreadPoolExecutor(1) as pool:
                wrong.extend([name] if pool.submit(current_run).result() is not run else [])

        wrong, together = [], threading.Barrier(8)
        threads = [threading.Thread(target=first, args=(f"t{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong, wrong
        """
    )
    code, _, err = program.finish()
    assert (code, err) == (0, "")


def test_pools_that_are_imported_inside_a_scope(start: StartProgram) -> None:
    """`concurrent.futures` is patched also when it is imported after the scope has opened, and in a forked child."""
    program = start(
        """
        import os, sys, threading
        from trackdsl import current_run, stage

        assert "concurrent.futures.thread" not in sys.modules
        with stage("scope") as run:
            from concurrent.futures import ThreadPoolExecutor
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(current_run).result() is run
            child = os.fork()
            if not child:
                found = []
                thread = threading.Thread(target=lambda: found.append(current_run()))
                thread.start()
                thread.join()
                os._exit(0 if found == [run] else 1)
            assert os.waitpid(child, 0)[1] == 0
        from concurrent.futures import thread
        assert "submit" in vars(thread.ThreadPoolExecutor)
        assert not hasattr(thread.ThreadPoolExecutor.submit, "__wrapped__")
        print("fine")
        """
    )
    code, out, err = program.finish()
    assert (code, out.strip()) == (0, "fine"), err


def test_a_signal_handler_opens_a_scope() -> None:
    """A scope that a signal handler opens while threads are being started neither hangs nor mixes up runs."""
    hits = 0

    def handler(*_: Any) -> None:
        nonlocal hits
        with stage("handler"):
            hits += 1
        signal.setitimer(signal.ITIMER_REAL, 0.001)  # Not before: handlers must not pile up.

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        with capture_runs() as captured:
            for _ in range(200):
                with stage("scope") as run:
                    assert in_a_thread(current_run) is run
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(captured.named("scope")) == 200
    assert hits


def test_a_scope_in_an_empty_context() -> None:
    """A program that starts threads in an empty context of its own has no run there."""
    with stage("scope"):
        assert contextvars.Context().run(in_a_thread, current_run) is None
