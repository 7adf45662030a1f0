"""What the journal notes of `steps` loops, for programs that show it, such as `trackdsl watch`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from trackdsl import stage, steps
from trackdsl._api import loop_notes
from trackdsl._core.events import Loop
from trackdsl.journal._reader import read_all
from trackdsl.journal._spool import journals


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(loop_notes, "_clock", clock)
    return clock


def noted(tmp_path: Path) -> list[tuple[str, int, float | None, int]]:
    """Name, count, total and depth of each note."""
    found = [event for journal in journals(tmp_path / "spool") for event in read_all(journal)]
    return [(one.name, one.done, one.total, one.depth) for one in found if isinstance(one, Loop)]


def test_quick_loops(tmp_path: Path, clock: Clock) -> None:
    """A quick loop is noted when it begins and when it ends, however many iterations it has."""
    with stage("fit"):
        for _ in steps(range(5000), "batch"):
            pass
        for _ in steps(iter("ab")):
            break
    assert noted(tmp_path) == [
        ("batch", 0, 5000.0, 0), ("batch", 5000, 5000.0, 0), ("step", 0, None, 0), ("step", 0, None, 0),
    ]  # fmt: skip


def test_slow_loops(tmp_path: Path, clock: Clock) -> None:
    """Each slow iteration is noted; the loops inside one too, as a new one in each."""
    with stage("fit"):
        for _ in steps(range(2), "epoch"):
            for _ in steps("abc", "batch"):
                clock.now += 0.2
            clock.now += 0.5
    assert noted(tmp_path) == [
        ("epoch", 0, 2.0, 0), ("batch", 0, 3.0, 1),
        ("epoch", 1, 2.0, 0), ("batch", 0, 3.0, 1),
        ("epoch", 2, 2.0, 0),
    ]  # fmt: skip


def test_many_loops_inside(tmp_path: Path, clock: Clock) -> None:
    """Many short loops inside a quick one do not fill the journal."""
    with stage("fit"):
        for _ in steps(range(500), "epoch"):
            for _ in steps(range(3), "batch"):
                clock.now += 0.001
    assert 4 <= len(noted(tmp_path)) <= 10


def test_a_loop_that_becomes_slow(tmp_path: Path, clock: Clock) -> None:
    """If iterations become slow after many quick ones, it takes a limited number of them until each is noted."""
    with stage("fit"):
        for number in steps(range(1200)):
            clock.now += 0 if number < 1000 else 1
    last = [done for _, done, _, _ in noted(tmp_path)][2:]
    assert last[0] <= 1000 + loop_notes._MOST_AT_ONCE
    assert last[1:] == list(range(last[1], 1201))


def test_asynchronous_loops(tmp_path: Path, clock: Clock) -> None:
    """Asynchronous loops are noted as others, with the total that the user gives."""

    async def items() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    async def loop() -> None:
        async with stage("fit"):
            async for _ in steps(items(), "item", total=3):
                clock.now += 1

    asyncio.run(loop())
    assert noted(tmp_path) == [("item", done, 3.0, 0) for done in range(4)]


def test_a_loop_that_ends_after_its_run(tmp_path: Path, clock: Clock) -> None:
    """A generator that is closed after the end of its run notes nothing more."""

    def loop() -> Iterator[int]:
        yield from steps(range(3))

    with stage("fit"):
        left = loop()
        next(left)
    left.close()  # type: ignore[attr-defined]
    assert len(noted(tmp_path)) == 1
