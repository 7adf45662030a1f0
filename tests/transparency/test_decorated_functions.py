"""Decorated functions behave as undecorated: each test asks both the same, and expects the same.

`python tests/transparency` asks other people's libraries, by their own tests.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
import traceback
import types
import typing
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.transparency.decorators import DECORATED, Decorator, Weights, give

DEEP = 900


def test_what_goes_in_and_comes_out_is_the_very_object(decorator: Decorator) -> None:
    """Arguments, the returned object, and a raised exception with its cause and its context are the same objects."""
    given, returned, cause = object(), object(), KeyError("cause")
    error = ValueError("mine")
    seen = []

    @decorator
    def calculate(value: object, fail: bool) -> object:
        seen.append(value)
        if fail:
            raise error from cause
        return returned

    assert calculate(given, fail=False) is returned
    with pytest.raises(ValueError, match="mine") as raised:
        calculate(given, fail=True)
    assert raised.value is error
    assert (error.__cause__, error.__context__, getattr(error, "__notes__", [])) == (cause, None, [])
    assert all(value is given for value in seen)


def test_tracebacks_of_all_shapes_have_two_more_frames_at_most(decorator: Decorator) -> None:
    """A traceback of every kind of function has at most two more frames; the last one is where it was raised."""

    @decorator
    def plain() -> None:
        raise ValueError

    @decorator
    async def coroutine() -> None:
        raise ValueError

    @decorator
    def generator() -> Iterator[int]:
        yield 1
        raise ValueError

    @decorator
    async def asynchronous() -> AsyncIterator[int]:
        yield 1
        raise ValueError

    class Model:
        @decorator
        @classmethod
        def method(cls) -> None:
            raise ValueError

    def frames(call: Callable[[], Any]) -> list[str]:
        try:
            call()
        except ValueError as error:
            return [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        raise AssertionError

    async def drain() -> list[int]:
        return [value async for value in asynchronous()]

    for name, call in {
        "plain": plain,
        "method": Model.method,
        "coroutine": lambda: run_to_end(coroutine()),
        "generator": lambda: list(generator()),
        "asynchronous": lambda: run_to_end(drain()),
    }.items():
        found = frames(call)
        assert found[-1] == name
        assert len([frame for frame in found if frame == "wrapper"]) <= 2
        assert len([frame for frame in found if frame not in ("frames", "<lambda>", "run_to_end", "drain")]) <= 4


def run_to_end(coroutine: Any) -> Any:
    """As `await` does in a coroutine that waits for nothing; without the frames of an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError


def test_inspect_answers_as_for_the_function() -> None:
    """Signatures, kinds, sources and names of every shape are those of what is decorated."""

    def plain(x: int, /, y: float = 1.0, *rest: str, key: bytes, **more: int) -> list[int]:
        """Plain."""
        return []

    async def coroutine(x: int) -> int:
        return x

    def generator(x: int) -> Iterator[int]:
        yield x

    async def asynchronous(x: int) -> AsyncIterator[int]:
        yield x

    questions: list[Callable[[Any], Any]] = [
        inspect.signature,
        inspect.getdoc,
        inspect.getsource,
        inspect.getsourcelines,
        inspect.isfunction,
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        inspect.isroutine,
        inspect.ismethod,
        inspect.getmodule,
        callable,
        typing.get_type_hints,
        lambda fn: (fn.__name__, fn.__qualname__, fn.__module__, fn.__doc__),
        lambda fn: fn.__annotations__,
    ]
    for fn in (plain, coroutine, generator, asynchronous):
        for name, decorate in DECORATED.items():
            for number, question in enumerate(questions):
                assert question(decorate(fn)) == question(fn), (fn, name, number)


def test_hints_that_are_text_are_evaluated_where_the_function_is_defined(decorator: Decorator) -> None:
    """`typing.get_type_hints` and `inspect.signature(eval_str=True)` know the names of the function's module."""

    @decorator
    def load(path: Path, limit: int | None = None) -> types.SimpleNamespace:
        return types.SimpleNamespace(path=path, limit=limit)

    hints = {"path": Path, "limit": int | None, "return": types.SimpleNamespace}
    assert typing.get_type_hints(load) == hints
    evaluated = inspect.signature(load, eval_str=True)
    assert {name: parameter.annotation for name, parameter in evaluated.parameters.items()} == {
        "path": Path,
        "limit": int | None,
    }


@pytest.mark.parametrize("above", [True, False])
def test_singledispatch_above_and_below(decorator: Decorator, above: bool) -> None:
    """Implementations are registered and chosen by type, whichever decorator is above; each may be decorated."""

    def describe(value: object) -> str:
        return "object"

    made: Any = (
        functools.singledispatch(decorator(describe)) if above else decorator(functools.singledispatch(describe))
    )

    @made.register
    @decorator
    def _(value: int) -> str:
        return "int"

    @made.register(str)
    def _(value: str) -> str:
        return "str"

    assert (made(1), made("a"), made(1.0)) == ("int", "str", "object")
    assert set(made.registry) == {object, int, str}
    assert made.dispatch(bool)(True) == "int"


@pytest.mark.parametrize("above", [True, False])
def test_lru_cache_above_and_below(decorator: Decorator, above: bool) -> None:
    """A cached call is not made again, and the cache can be asked and cleared; also as a method."""
    made = []

    def double(value: int) -> int:
        made.append(value)
        return value * 2

    cache = functools.lru_cache(maxsize=2)
    fn: Any = cache(decorator(double)) if above else decorator(cache(double))
    assert [fn(1), fn(1), fn(2)] == [2, 2, 4]
    assert made == [1, 2]
    assert fn.cache_info() == (1, 2, 2, 2)
    assert fn.cache_parameters() == {"maxsize": 2, "typed": False}
    fn.cache_clear()
    assert fn.cache_info().currsize == 0

    class Model:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def scaled(self, value: int) -> int:
            return self.factor * value

        scaled_ = cache(decorator(scaled)) if above else decorator(cache(scaled))

    assert (Model(2).scaled_(3), Model(3).scaled_(3)) == (6, 9)


def _recursions(decorator: Decorator) -> dict[str, Callable[[int], Any]]:
    @decorator
    def plain(n: int) -> int:
        return n if not n else plain(n - 1)

    @decorator
    def generator(n: int) -> Generator[int, None, None]:
        if n:
            yield from generator(n - 1)
        else:
            yield 0

    @decorator
    async def coroutine(n: int) -> int:
        return n if not n else await coroutine(n - 1)

    class Model:
        @decorator
        def method(self, n: int) -> int:
            return n if not n else self.method(n - 1)

    return {
        "plain": plain,
        "generator": lambda n: sum(generator(n)),
        "coroutine": lambda n: asyncio.run(coroutine(n)),
        "method": Model().method,
    }


@pytest.mark.parametrize("kind", ["plain", "generator", "coroutine", "method"])
def test_a_recursion_of_900_calls(decorator: Decorator, kind: str) -> None:
    """A recursion goes as deep as undecorated, in a thread with the usual limit; the limit is restored afterwards."""
    if kind == "generator" and sys.version_info[:2] == (3, 12):
        pytest.skip("Python 3.12 limits calls through C, such as `next`, and lets nobody raise that: some 700")
    limit = sys.getrecursionlimit()
    recurse = _recursions(decorator)[kind]
    found: list[Any] = []

    def in_thread() -> None:
        try:
            found.append(recurse(DEEP))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert found == [0]
    assert sys.getrecursionlimit() == limit


@pytest.mark.slow
@pytest.mark.usefixtures("no_collection")
def test_a_recursion_without_end_still_ends(decorator: Decorator) -> None:
    """A recursion without end raises RecursionError at about the usual depth, and does not crash."""
    recurse = _recursions(decorator)["plain"]
    with pytest.raises(RecursionError):
        recurse(10**9)


def test_nothing_recorded_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With recording disabled, decorated functions return what they returned."""
    monkeypatch.setenv("TRACKDSL_MODE", "disabled")
    trackdsl.configure(mode="disabled")
    for decorate in DECORATED.values():
        assert [decorate(give)(1), decorate(Weights())(1)] == [(1,), (1,)]
        assert list(decorate(lambda: (yield 1))()) == [1]
