"""Fixtures that change how delivery and journals work: durations, limits, kinds of stores, machines."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drawn_processes import Machine
from tests.memory_store import MemoryStore
from trackdsl.delivery import _timing
from trackdsl.journal import _limits


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The spool of the test."""
    return tmp_path / "spool"


#: Changes durations of delivery until the end of the test, in seconds: `change_timing(first_retry=0.0)`.
ChangeTiming = Callable[..., None]


@contextlib.contextmanager
def changed_timing(**durations: float) -> Iterator[None]:
    """Change durations of delivery inside the block, in seconds."""
    before = _timing.timing()
    _timing.change_timing(**durations)
    try:
        yield
    finally:
        _timing.set_timing(before)


@pytest.fixture
def change_timing() -> Iterator[ChangeTiming]:
    with changed_timing():
        yield _timing.change_timing


#: Changes limits of the journals that are made until the end of the test: `change_limits(first_segment=4096)`.
ChangeLimits = Callable[..., None]


@contextlib.contextmanager
def changed_limits(**limits: int) -> Iterator[None]:
    """Change limits of the journals that are made inside the block."""
    before = _limits.limits()
    _limits.change_limits(**limits)
    try:
        yield
    finally:
        _limits.set_limits(before)


@pytest.fixture
def change_limits() -> Iterator[ChangeLimits]:
    with changed_limits():
        yield _limits.change_limits


@pytest.fixture
def no_pauses(change_timing: ChangeTiming) -> None:
    """Nothing that failed waits before it is tried again, and a run that was asked for once is given up."""
    change_timing(
        first_retry=0.0, longest_retry=0.0, longest_search=0.0, file_retry=0.0, late_request=0.0, git_answer=0.0,
        other_process=0.0, missing_run=0.0,
    )  # fmt: skip


@pytest.fixture
def nobody_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Online, and no delivery process is started."""
    from trackdsl.delivery.program import _client

    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setattr(_client, "_start_process", lambda spool: None)


@pytest.fixture(params=["their ids", pytest.param("side by side", marks=pytest.mark.slow), "our ids"])
def each_kind_of_store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store in memory gives runs its own ids, one by one or several at once.

    Or it keeps our ids, and is written to a stretch at a time.
    """
    monkeypatch.setattr(MemoryStore, "own_ids", request.param == "our ids")
    monkeypatch.setattr(MemoryStore, "side_by_side", request.param == "side by side")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Callable[[str, MemoryStore], Machine]]:
    """Makes machines, each with a spool and a worker of its own."""
    made: list[Machine] = []

    def make(name: str, store: MemoryStore) -> Machine:
        made.append(Machine(tmp_path / name, store))
        return made[-1]

    yield make
    for machine in made:
        machine.restart()
