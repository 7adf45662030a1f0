"""The steps of the metrics in a loop: ranges, loops inside loops, asynchronous loops."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from tqdm import tqdm
from tqdm.asyncio import tqdm as asynchronous_bar

import trackdsl
from trackdsl import log_metric, stage, steps
from trackdsl.testing import capture_runs


def steps_of(loop: Callable[[], None]) -> dict[str, list[int]]:
    """The steps of each metric that a loop logs inside a run."""
    with capture_runs() as captured, stage("fit"):
        loop()
    return {name: [point.step for point in found] for name, found in captured.one("fit").metrics.items()}


#: An iterable, a new one for each use, further arguments, and the steps of its rounds.
LOOPS: dict[str, tuple[Callable[[], Iterable[Any]], dict[str, Any], list[int]]] = {
    "range": (lambda: range(3), {}, [0, 1, 2]),
    "range that begins later": (lambda: range(5, 8), {}, [5, 6, 7]),
    "range with a stride": (lambda: range(0, 10, 4), {}, [0, 4, 8]),
    "range downwards": (lambda: range(10, 4, -3), {}, [10, 7]),
    "range below zero": (lambda: range(-2, 1), {}, [-2, -1, 0]),
    "empty range": (lambda: range(5, 5), {}, []),
    "part of a range": (lambda: range(10)[7:], {}, [7, 8, 9]),
    "reversed range": (lambda: reversed(range(3)), {}, [2, 1, 0]),
    "range and start": (lambda: range(3), {"start": 100}, [100, 101, 102]),
    "range with a stride and start": (lambda: range(0, 10, 4), {"start": 100}, [100, 104, 108]),
    "list": (lambda: [5, 6, 7], {}, [0, 1, 2]),
    "list and start": (lambda: "abc", {"start": 7}, [7, 8, 9]),
    "start zero": (lambda: "ab", {"start": 0}, [0, 1]),
    "generator": (lambda: (letter for letter in "ab"), {}, [0, 1]),
    "enumerate": (lambda: enumerate("ab"), {}, [0, 1]),
    "enumerate that begins later": (lambda: enumerate("ab", 5), {}, [5, 6]),
    "a bar of the user's": (lambda: tqdm(range(5, 7), disable=True), {}, [5, 6]),
    "a bar that begins later": (lambda: tqdm("ab", initial=5, disable=True), {}, [5, 6]),
    "zip": (lambda: zip(range(5, 7), "ab", strict=True), {}, [0, 1]),
    "data loader": (lambda: torch.utils.data.DataLoader([1.0, 2.0, 3.0], batch_size=2), {}, [0, 1]),
    "endless": (lambda: itertools.islice(itertools.count(9), 2), {}, [0, 1]),
}


@pytest.mark.parametrize("kind", LOOPS)
def test_the_steps_of_a_loop(kind: str) -> None:
    """The values of a range, and the count of an enumerate, are its steps; other loops count from 0, or `start`."""
    make, arguments, expected = LOOPS[kind]
    items: list[Any] = []

    def loop() -> None:
        for item in steps(make(), **arguments):
            items.append(item)
            log_metric("m", 1)

    assert steps_of(loop).get("m", []) == expected
    assert list(map(str, items)) == list(map(str, make()))


def test_steps_are_restored_after_a_loop() -> None:
    """After a loop, also after `break`, the step is the outer one again; an explicit step comes first."""

    def loop() -> None:
        for _ in steps(range(5, 7), "epoch"):
            log_metric("outer", 1)
            for batch in steps(range(5), "batch"):
                log_metric("inner", 1)
                if batch == 1:
                    break
            log_metric("again", 1)
        log_metric("after", 1)
        log_metric("given", 1, step=3)

    assert steps_of(loop) == {
        "outer": [5, 6], "inner": [0, 1, 2, 3], "again": [5, 6], "after": [0], "given": [3],
    }  # fmt: skip


def test_an_inner_loop_counts_on() -> None:
    """Each inner loop continues its own numbers, at any depth, in any function, and beside other loops."""

    def validate() -> None:
        for _ in steps("xy", "batch"):
            log_metric("val", 1)

    def loop() -> None:
        for _ in steps(range(2), "epoch"):
            for _ in steps(iter("abc"), "batch"):
                log_metric("train", 1)
                for _ in steps(range(0, 4, 2)):
                    log_metric("deep", 1)
            validate()

    assert steps_of(loop) == {
        "train": [0, 1, 2, 3, 4, 5], "deep": list(range(0, 24, 2)), "val": [0, 1, 2, 3],
    }  # fmt: skip


def test_inner_steps_that_the_user_has_chosen_stay() -> None:
    """An inner `start`, or a range that continues where the last one ended, is as it is; a fall is shifted whole."""

    def loop() -> None:
        for epoch in steps(range(2)):
            for _ in steps("ab", start=epoch * 100):
                log_metric("start", 1)
            for _ in steps(range(epoch * 10, epoch * 10 + 2)):
                log_metric("range", 1)
            for _ in steps(range(3, 0, -1)):
                log_metric("down", 1)
            for _ in steps(range(0)):
                log_metric("never", 1)

    assert steps_of(loop) == {
        "start": [0, 1, 100, 101], "range": [0, 1, 10, 11], "down": [3, 2, 1, 6, 5, 4],
    }  # fmt: skip


def test_inner_loops_of_other_runs_begin_anew() -> None:
    """An inner loop of a new run begins at 0 in each round; in a section it continues."""

    @stage
    def child() -> None:
        for _ in steps("ab"):
            log_metric("m", 1)

    @stage(nested=False)
    def section() -> None:
        for _ in steps("ab"):
            log_metric("section", 1)

    with capture_runs() as captured, stage("fit"):
        for _ in steps(range(2)):
            child()
            section()
    assert [[point.step for point in run.metrics["m"]] for run in captured.named("child")] == [[0, 1], [0, 1]]
    assert [point.step for point in captured.one("fit").metrics["section"]] == [0, 1, 2, 3]


def test_loops_of_generators_that_loop_themselves() -> None:
    """Generators that contain loops record each at the step of their own loop, in turn or inside a loop."""

    def letters(name: str, first: int) -> Iterator[str]:
        for letter in steps("abc", start=first):
            log_metric(name, 1)
            yield letter

    def loop() -> None:
        for _ in zip(letters("one", 5), letters("two", 50), strict=True):
            pass
        log_metric("between", 1)
        for _ in steps(letters("inner", 70)):
            log_metric("outer", 1)
        log_metric("after", 1)

    assert steps_of(loop) == {
        "one": [5, 6, 7], "two": [50, 51, 52], "between": [0], "inner": [70, 71, 72], "outer": [0, 1, 2], "after": [0],
    }  # fmt: skip


def test_bars_around_asynchronous_loops() -> None:
    """A tqdm bar inside or outside changes nothing; around an ordinary loop it stays ordinary."""

    async def letters() -> AsyncIterator[str]:
        for letter in "ab":
            yield letter

    async def main() -> None:
        async for _ in steps(asynchronous_bar(letters(), disable=True)):
            log_metric("inside", 1)
        async for _ in asynchronous_bar(steps(letters()), disable=True):
            log_metric("outside", 1)
        for _ in steps(asynchronous_bar(range(5, 7), disable=True)):
            log_metric("ordinary", 1)

    found = steps_of(lambda: asyncio.run(main()))
    assert found == {"inside": [0, 1], "outside": [0, 1], "ordinary": [5, 6]}


def test_asynchronous_loops() -> None:
    """`async for` has the same steps, continues inside, and is left at once by `break` and by an error."""

    async def letters(text: str) -> AsyncIterator[str]:
        for letter in text:
            await asyncio.sleep(0)
            yield letter

    async def failing() -> AsyncIterator[int]:
        yield 1
        raise ValueError("the user's own")

    async def main() -> list[str]:
        seen = []
        async for outer in steps(letters("ab"), "epoch", start=5):
            async for inner in steps(letters("xyz")):
                seen.append(outer + inner)
                log_metric("inner", 1)
                if inner == "y":
                    break
            log_metric("outer", 1)
        with pytest.raises(ValueError, match="the user's own"):
            async for _ in steps(failing()):
                log_metric("failing", 1)
        log_metric("after", 1)
        async with contextlib.aclosing(steps(letters("abc"))) as closed:  # type: ignore[type-var]
            async for _ in closed:
                break
        log_metric("closed", 1)
        return seen

    seen: list[str] = []
    found = steps_of(lambda: seen.extend(asyncio.run(main())))
    assert seen == ["ax", "ay", "bx", "by"]
    assert found == {
        "inner": [0, 1, 2, 3], "outer": [5, 6], "failing": [0], "after": [0], "closed": [0],
    }  # fmt: skip


def test_loops_of_concurrent_tasks() -> None:
    """Each concurrent task has the step of its own loop."""

    async def work(name: str, first: int) -> None:
        for _ in steps(range(first, first + 3)):
            await asyncio.sleep(0)
            log_metric(name, 1)

    async def main() -> None:
        await asyncio.gather(work("a", 0), work("b", 10))

    assert steps_of(lambda: asyncio.run(main())) == {"a": [0, 1, 2], "b": [10, 11, 12]}


@pytest.mark.parametrize("start", ["3", 1.5, [1]])
def test_a_start_that_is_no_step(start: Any) -> None:
    """A `start` that is not a step is an error at once, which names a right one."""
    with pytest.raises(trackdsl.OptionError, match="start=100"):
        steps(range(3), start=start)


def test_loops_outside_of_any_run_go_through() -> None:
    """Without a run, or with recording off, the items come all the same."""
    trackdsl.configure(mode="disabled")

    def numbers() -> Iterator[int]:
        yield from range(3)

    assert list(steps(numbers())) == [0, 1, 2]
