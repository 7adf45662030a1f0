"""`last()` and `fn.last_run`: from a call to its run."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import pickle
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import cloudpickle
import pytest

import trackdsl
from trackdsl import configure, current_run, experiment, stage, start_logging, stop_logging, track_returns
from trackdsl.testing import capture_runs


@pytest.fixture(autouse=True)
def captured() -> Iterator[Any]:
    """Captures every run."""
    with capture_runs() as captured:
        yield captured


def last_of(fn: Any) -> Any:
    """The attribute `last_run`, which type checkers do not see on a function."""
    return fn.last_run


class Model:
    @stage
    def method(self) -> Any:
        return current_run()

    @stage
    @classmethod
    def of_class(cls) -> Any:
        return current_run()

    @staticmethod
    @stage
    def static() -> Any:
        return current_run()


@stage
def plain() -> Any:
    return current_run()


@experiment("e")
@track_returns
def root() -> Any:
    seen.append(current_run())


@stage(nested=False)
def section() -> Any:
    return current_run()


@stage
async def coroutine() -> Any:
    return current_run()


@stage
def generator() -> Iterator[Any]:
    yield current_run()


@stage
async def asynchronous() -> AsyncIterator[Any]:
    yield current_run()


@functools.partial
def function_behind_a_partial() -> Any:
    return current_run()


class Callable_:  # noqa: N801
    def __call__(self) -> Any:
        return current_run()


seen: list[Any] = []
partial = stage(function_behind_a_partial)
called_object = stage(Callable_())


async def first_of(items: AsyncIterator[Any]) -> Any:
    found = [item async for item in items]
    return found[0]


def run_of_root() -> Any:
    root()
    return seen.pop()


CALLS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "plain": (lambda: plain, plain),
    "root": (lambda: root, run_of_root),
    "section": (lambda: section, section),
    "coroutine": (lambda: coroutine, lambda: asyncio.run(coroutine())),
    "generator": (lambda: generator, lambda: next(iter(list(generator())))),
    "asynchronous": (lambda: asynchronous, lambda: asyncio.run(first_of(asynchronous()))),
    "method": (lambda: Model.method, lambda: Model().method()),
    "method of an instance": (lambda: Model().method, lambda: Model().method()),
    "class method": (lambda: Model.of_class, Model.of_class),
    "static method": (lambda: Model.static, Model.static),
    "partial": (lambda: partial, partial),
    "object": (lambda: called_object, called_object),
}


@pytest.mark.parametrize("name", CALLS)
def test_each_shape_knows_its_last_run(name: str) -> None:
    """`last_run` of every kind of function is the handle of its newest call, also after the next call."""
    fn, call = CALLS[name]
    first = call()
    assert first is not None
    assert last_of(fn()) is first
    second = call()
    assert last_of(fn()) is second
    assert second is not first


def test_before_the_first_call() -> None:
    """A function that was never called has no last run, nor has the program."""
    assert trackdsl.last() is None

    @stage
    def fn() -> None: ...

    assert last_of(fn) is None
    assert last_of(stage(functools.partial(fn))) is None


def test_the_last_run_of_a_failure_is_the_one_that_failed(captured: Any) -> None:
    """After an exception `last_run` and `last` lead to the run that says `FAILED`."""

    @experiment("e")
    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    assert captured.one("fails").status == "FAILED"
    assert last_of(fails).id == trackdsl.last().id == captured.one("fails").id  # type: ignore[union-attr]


def test_after_a_recursion_it_is_that_of_the_outermost_call(captured: Any) -> None:
    """After a recursion, `last_run` is the run of the outermost call, which returned last."""

    @stage
    def deep(n: int) -> Any:
        if n:
            deep(n - 1)
        return current_run()

    assert last_of(deep) is None
    assert deep(3) is last_of(deep)
    assert last_of(deep).parent is None


def test_it_is_there_while_the_call_is_open() -> None:
    """A generator, a thread, and code inside the call find the run while it is open."""
    items = generator()
    run = next(items)
    assert last_of(generator) is run
    inside = []

    @stage
    def asks() -> None:
        inside.append((last_of(asks), current_run()))

    asks()
    assert inside[0][0] is inside[0][1]


def test_calls_in_threads() -> None:
    """Of parallel calls the one that ended last counts, and in between `last_run` is always a complete handle."""
    begun, ended = threading.Barrier(8), []

    @stage
    def work() -> Any:
        begun.wait()
        return current_run()

    def called() -> None:
        run = work()
        ended.append((run, last_of(work)))

    threads = [threading.Thread(target=called) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs = {run.id for run, _ in ended}
    assert len(runs) == 8
    assert {found.id for _, found in ended} <= runs
    assert last_of(work).id in runs


def test_last_is_the_newest_root(captured: Any) -> None:
    """`last` is a root run: of a function, a block or a session; never a child, and never one that began earlier."""
    with experiment("a") as outer:
        plain()
        assert trackdsl.last() is outer
    assert trackdsl.last() is outer
    with stage("b") as second:
        assert trackdsl.last() is second
    third = start_logging("c")
    stop_logging()
    assert trackdsl.last() is third
    root()
    assert trackdsl.last() is seen.pop()
    assert [run.name for run in captured.roots] == ["a", "b", "c", "root"]


def test_a_copy_takes_no_last_run_along() -> None:
    """`functools.wraps` and cloudpickle do not copy `last_run`: it belongs to the wrapper that was called."""
    plain()

    @functools.wraps(plain)
    def above() -> Any:
        return plain()

    assert "last_run" not in vars(above)
    assert set(vars(plain)) == {"__wrapped__", "__trackdsl__"}

    @stage
    def local() -> Any:
        return current_run()

    local()
    data = cloudpickle.dumps(local)
    assert last_of(local).id.encode() not in data
    assert last_of(local).key not in data
    arrived = cloudpickle.loads(data)
    assert last_of(arrived) is None
    run = arrived()
    assert last_of(arrived) is run
    assert last_of(local) is not run
    assert set(vars(arrived)) == {"__wrapped__", "__trackdsl__"}
    partial()
    assert last_of(pickle.loads(pickle.dumps(called_object))) is None


def test_it_keeps_no_arguments_and_results_alive() -> None:
    """`last_run` keeps its handle and those of its parents alive, and no arguments or results of the call."""

    class Large: ...

    @stage
    def fn(value: Large) -> Large:
        return Large()

    argument = Large()
    result = fn(argument)
    ends = weakref.ref(argument), weakref.ref(result)
    del argument, result
    gc.collect()
    assert [end() for end in ends] == [None, None]
    assert last_of(fn) is not None


def test_what_inspect_says_is_unchanged() -> None:
    """After a call a function has the signature, the kind and the annotations that it had before."""
    before = inspect.signature(plain), inspect.getfullargspec(plain), inspect.isfunction(plain), plain.__annotations__
    plain()
    after = inspect.signature(plain), inspect.getfullargspec(plain), inspect.isfunction(plain), plain.__annotations__
    assert before == after


def test_disabled_later_the_last_run_stays(captured: Any) -> None:
    """What was recorded before recording is switched off can still be asked for."""
    run = plain()
    configure(mode="disabled")
    plain()
    assert last_of(plain) is run
    assert trackdsl.last() is run
