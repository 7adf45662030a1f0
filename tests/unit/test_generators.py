"""Decorated generators and async generators: their run is current while their body runs, and ends truthfully."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trackdsl
from trackdsl import current_run, experiment, log_metric, stage, track_returns
from trackdsl.testing import RecordedRun, capture_runs


@stage
@track_returns
def training(epochs: int, fail_at: int | None = None) -> Generator[dict[str, float], str | None, dict[str, float]]:
    for epoch in range(epochs):
        if epoch == fail_at:
            raise ValueError("diverged")
        log_metric("inside", 10 * epoch)
        yield {"loss": 1 / (epoch + 1), "note": "x"}  # type: ignore[dict-item]
    return {"final": 0.5}


def test_what_is_yielded_becomes_metrics_by_step() -> None:
    """Yielded mappings are metrics with the yield's index as step; the return value is recorded as usual."""
    with capture_runs() as captured:
        assert [row["loss"] for row in training(3)] == [1.0, 0.5, 1 / 3]
    run = captured.one("training")
    assert [(point.step, point.value) for point in run.metrics["loss"]] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert [(point.step, point.value) for point in run.metrics["inside"]] == [(0, 0), (1, 10), (2, 20)]
    assert (run.metric("final"), run.params, run.status) == (0.5, {"epochs": 3, "fail_at": None}, "FINISHED")
    assert list(run.artifacts) == []


def test_yielded_numbers_and_tuples() -> None:
    """A yielded number is named after the function, a tuple by the names given."""

    @track_returns("loss", "acc")
    @stage
    def pairs() -> Iterator[tuple[float, float]]:
        yield 1.0, 0.1
        yield 0.5, 0.2

    @stage(returns=True)
    def single() -> Iterator[float]:
        yield 3.0

    with capture_runs() as captured:
        list(pairs()), list(single())
    assert [point.value for point in captured.one("pairs").metrics["acc"]] == [0.1, 0.2]
    assert captured.one("single").metric("single") == 3.0


def test_the_scope_is_the_bodys_alone() -> None:
    """Between two items the caller's run is current; inside the body it is the generator's run, or one opened there."""
    seen = []

    @stage
    def body() -> Iterator[None]:
        with stage("inner"):
            seen.append(current_run())
            yield
            seen.append(current_run())
            yield

    with capture_runs() as captured, stage("caller") as caller:
        items = body()
        assert current_run() is caller
        next(items)
        assert current_run() is caller
        with stage("other") as other:
            next(items)
            assert current_run() is other
        assert list(items) == []
        assert current_run() is caller
    assert [run.path for run in seen if run is not None] == ["caller/body/inner"] * 2
    assert [run.path for run in captured.runs] == ["caller", "caller/body", "caller/body/inner", "caller/other"]
    assert {run.status for run in captured.runs} == {"FINISHED"}


def test_interleaved_generators_keep_apart() -> None:
    """Two generators that are advanced in turn record each on its own run."""

    @stage("g-{name}")
    def numbers(name: str) -> Iterator[int]:
        for index in range(3):
            log_metric("m", index)
            yield index

    with capture_runs() as captured, experiment("e"):
        for _ in zip(numbers("a"), numbers("b"), strict=True):
            log_metric("outer", 1)
    for name in ("g-a", "g-b"):
        assert [point.value for point in captured.one(name).metrics["m"]] == [0, 1, 2]
        assert captured.one(name).parent is captured.roots[0]
    assert list(captured.roots[0].metrics) == ["outer"]


def ended(finish: Callable[[Any], Any], fail_at: int | None = None) -> RecordedRun:
    with capture_runs() as captured:
        rows = training(3, fail_at)
        finish(rows)
        del rows
        gc.collect()
    return captured.one("training")


@pytest.mark.slow
def test_how_it_ends_is_recorded() -> None:
    """An exhausted generator is FINISHED, one that raised FAILED, one closed early FINISHED with a tag."""
    assert (ended(list).status, ended(list).tags) == ("FINISHED", {})
    for early in (lambda rows: (next(rows), rows.close()), next):
        assert (ended(early).status, ended(early).tags) == ("FINISHED", {"trackdsl.closed_early": "true"})

    def failing(rows: Any) -> None:
        with pytest.raises(ValueError, match="diverged"):
            list(rows)

    assert ended(failing, fail_at=1).status == "FAILED"
    with capture_runs() as captured:
        training(3).close()
    assert captured.runs == []


def test_what_it_raises_while_it_is_closed_is_its_end() -> None:
    """An exception that `close` raises passes through, and the run is FAILED."""

    @stage
    def stubborn() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise RuntimeError("in finally")

    with capture_runs() as captured:
        items = stubborn()
        next(items)
        with pytest.raises(RuntimeError, match="in finally"):
            items.close()  # type: ignore[attr-defined]
    assert captured.one("stubborn").status == "FAILED"


def echo() -> Generator[Any, Any, str]:
    """Answers whatever is sent or thrown."""
    got: Any = "start"
    while True:
        try:
            got = yield got
        except KeyError as error:
            got = ("caught", error.args)
        if got == "stop":
            return "returned"


MOVES = st.lists(st.sampled_from(["next", "send", "key", "value", "stop", "close"]), max_size=8)


def driven(generator: Any, moves: list[str]) -> list[Any]:
    """What a generator answers to a list of moves."""
    received: list[Any] = []
    for move in moves:
        try:
            if move == "next":
                received.append(next(generator))
            elif move == "send":
                received.append(generator.send(len(received)))
            elif move == "stop":
                received.append(generator.send("stop"))
            elif move == "close":
                received.append(generator.close())
            else:
                received.append(generator.throw(KeyError("k") if move == "key" else ValueError("v")))
        except (StopIteration, TypeError, ValueError, KeyError) as error:
            received.append((type(error), error.args))
    return received


@given(moves=MOVES)
def test_it_behaves_as_undecorated(moves: list[str]) -> None:
    """A decorated generator answers `send`, `throw` and `close` in any order as the undecorated one does."""
    with capture_runs() as captured:
        assert driven(stage(echo)(), moves) == driven(echo(), moves)
    assert len(captured.runs) <= 1
    trackdsl.configure(mode="disabled")
    assert driven(stage(echo)(), moves) == driven(echo(), moves)
    trackdsl.configure(mode="offline")


def test_inspect_answers_as_before() -> None:
    """`inspect` recognizes a decorated generator function, and a decorated async generator function."""

    async def async_numbers() -> AsyncIterator[int]:
        yield 1

    assert inspect.isgeneratorfunction(stage(echo))
    assert inspect.isasyncgenfunction(stage(async_numbers))


@stage
@track_returns
async def async_training(epochs: int) -> AsyncIterator[dict[str, float]]:
    for epoch in range(epochs):
        await asyncio.sleep(0)
        log_metric("inside", epoch)
        yield {"loss": epoch}


def test_async_generators() -> None:
    """The same with `async for`: metrics by step, the caller's scope kept, early closing recorded, tasks kept apart."""

    async def consume(count: int) -> None:
        async with stage(f"consumer-{count}"):
            rows = async_training(count + 1)
            async for row in rows:
                log_metric("seen", row["loss"])
                if row["loss"] == count - 1:
                    break
            await rows.aclose()  # type: ignore[attr-defined]

    async def main() -> None:
        await asyncio.gather(*(consume(count) for count in (1, 2, 3)))

    with capture_runs() as captured:
        asyncio.run(main())
    for count in (1, 2, 3):
        outer = captured.one(f"consumer-{count}")
        (inner,) = outer.children
        assert [point.step for point in inner.metrics["loss"]] == list(range(count))
        assert [point.value for point in outer.metrics["seen"]] == list(range(count))
        assert list(outer.metrics) == ["seen"]
        assert (inner.status, inner.tags) == ("FINISHED", {"trackdsl.closed_early": "true"})


def test_a_cancelled_async_generator_is_killed() -> None:
    """A task that is cancelled inside the body ends its run as KILLED."""

    @stage
    async def waiting() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()
        yield 2

    async def main() -> None:
        async def consume() -> None:
            async for _ in waiting():
                started.set()

        started = asyncio.Event()
        task = asyncio.create_task(consume())
        await started.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with capture_runs() as captured:
        asyncio.run(main())
    assert captured.one("waiting").status == "KILLED"


def test_async_send_throw_and_exceptions() -> None:
    """`asend`, `athrow`, and what the body raises behave as undecorated."""

    async def numbers() -> Any:
        got = None
        while True:
            try:
                got = yield got
            except KeyError:
                got = "caught"
            if got == "raise":
                raise ValueError("v")

    async def drive(generator: Any) -> list[Any]:
        received = [await generator.asend(None), await generator.asend("a"), await generator.athrow(KeyError())]
        with pytest.raises(ValueError, match="v"):
            await generator.asend("raise")
        return received

    with capture_runs() as captured:
        assert asyncio.run(drive(stage(numbers)())) == asyncio.run(drive(numbers()))
    assert captured.one("numbers").status == "FAILED"


def test_a_section_of_a_run() -> None:
    """A generator with `nested=False` records its yields as metrics of the enclosing run."""

    @stage("gen", nested=False, returns=True)
    def numbers() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        yield {"a": 2}

    with capture_runs() as captured, stage("outer"):
        list(numbers())
    (run,) = captured.runs
    assert [(point.step, point.value) for point in run.metrics["gen/a"]] == [(0, 1), (1, 2)]
    assert "gen/seconds" in run.metrics


def test_methods_that_are_generators() -> None:
    """Methods, class methods and static methods that yield are decorated like functions."""

    class Loader:
        @stage
        def rows(self, n: int) -> Iterator[int]:
            yield from range(n)

        @stage
        @classmethod
        def of_class(cls) -> Iterator[str]:
            yield cls.__name__

    with capture_runs() as captured:
        assert list(Loader().rows(2)) == [0, 1]
        assert list(Loader.of_class()) == ["Loader"]
    assert captured.one("rows").params == {"n": 2}


def returning() -> Generator[int, None, str]:
    try:
        yield 1
    except GeneratorExit:
        return "result"
    return "never"


def stubborn() -> Iterator[int]:
    while True:
        with contextlib.suppress(GeneratorExit):
            yield 1


@pytest.mark.parametrize("function", [returning, stubborn])
@pytest.mark.parametrize("move", ["close", "throw"])
def test_a_body_that_catches_generator_exit(function: Callable[[], Any], move: str) -> None:
    """A body that catches `GeneratorExit` may yield again or return, as undecorated."""

    def received(generator: Any) -> list[Any]:
        next(generator)
        answers: list[Any] = []
        for _ in range(2):
            try:
                answers.append(generator.close() if move == "close" else generator.throw(GeneratorExit()))
            except BaseException as error:
                answers.append((type(error), str(error)))
        return answers

    with capture_runs():
        assert received(stage(function)()) == received(function())


class Batch:
    """A large object."""


@pytest.mark.slow
def test_what_passes_through_is_let_go() -> None:
    """While the body makes the next item, the wrapper holds neither the last one, nor sent values, nor arguments."""
    alive: list[weakref.ref[Batch]] = []
    seen = []

    def count() -> int:
        gc.collect()
        return sum(1 for reference in alive if reference() is not None)

    def new() -> Batch:
        batch = Batch()
        alive.append(weakref.ref(batch))
        return batch

    @stage
    def body(first: Batch) -> Iterator[Batch]:
        del first
        for _ in range(3):
            seen.append(count())
            yield new()
        seen.append(count())

    with capture_runs():
        items = body(new())
        for item in items:
            del item
    assert seen == [0, 0, 0, 0]


def test_an_async_generator_left_open_ends_with_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """The loop closes a generator that is still open at its end, once, without a log line; the run has not failed."""

    @stage
    async def rows() -> AsyncIterator[int]:
        for index in range(3):
            yield index

    kept = []

    async def main() -> None:
        items = rows()
        kept.append(items)
        assert await items.__anext__() == 0

    with capture_runs() as captured, caplog.at_level("DEBUG"):
        asyncio.run(main())
    run = captured.one("rows")
    assert (run.status, run.tags) == ("FINISHED", {"trackdsl.closed_early": "true"})
    assert [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []


def test_callable_objects() -> None:
    """Objects whose `__call__` is a coroutine, a generator or an async generator are recorded as such."""

    class Later:
        async def __call__(self) -> int:
            log_metric("m", 1)
            return 3

    class Rows:
        def __call__(self) -> Iterator[int]:
            log_metric("m", 1)
            yield 3

    async def main() -> int:
        return int(await stage("later")(Later())())

    with capture_runs() as captured:
        assert asyncio.run(main()) == 3
        assert list(stage("rows")(Rows())()) == [3]
    assert captured.one("later").metric("m") == captured.one("rows").metric("m") == 1


def test_blocks_in_a_generator_that_is_closed_early() -> None:
    """A block in a generator that is closed early has not failed; in an abandoned coroutine it is KILLED."""

    def rows() -> Iterator[int]:
        with stage("block"), stage("section", nested=False):
            yield 1

    async def items() -> AsyncIterator[int]:
        async with stage("asynchronous"):
            yield 1

    async def given_up() -> None:
        with stage("given up"):
            await asyncio.sleep(0)

    async def main() -> None:
        found = items()
        await anext(found)
        await found.aclose()  # type: ignore[attr-defined]
        coroutine = given_up()
        coroutine.send(None)
        coroutine.close()

    with capture_runs() as captured:
        asked = rows()
        next(asked)
        asked.close()  # type: ignore[attr-defined]
        asyncio.run(main())
    early = {"trackdsl.closed_early": "true"}
    assert [(run.name, run.status, run.tags) for run in captured.runs] == [
        ("block", "FINISHED", early),
        ("asynchronous", "FINISHED", early),
        ("given up", "KILLED", {}),
    ]
