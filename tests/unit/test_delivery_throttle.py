"""How long the delivery process rests between its rounds. The load of the machine and its clock are made up here."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

from trackdsl.delivery._throttle import Pace


class Clock:
    """Stands for `time`: a rest takes no time, and is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def rest(clock: Clock, worker: Any, monkeypatch: pytest.MonkeyPatch, *, load: float, took: float = 2.0) -> float:
    """How long a worker rests that was busy for `took` seconds, at a load of so many times the processors."""
    monkeypatch.setattr(os, "getloadavg", lambda: (load * (os.cpu_count() or 1), 0.0, 0.0))
    pace = Pace(worker)
    clock.now += took
    before = clock.now
    pace.rest(busy=True)
    return clock.now - before


def worker_that_was_called(clock: Clock, seconds_ago: float, *, gathering: bool = False) -> Any:
    return SimpleNamespace(called_at=clock.now - seconds_ago, gathering=gathering, called=lambda: False)


def test_a_worker_rests_where_programs_need_the_processors(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as long as the round took, half a minute at most; not at all while the machine has time."""
    worker = worker_that_was_called(clock, 100)
    assert rest(clock, worker, monkeypatch, load=0.5) == 0
    assert rest(clock, worker, monkeypatch, load=1.0) == pytest.approx(4.0)
    assert rest(clock, worker, monkeypatch, load=1.0, took=60.0) == pytest.approx(30.0)


def test_nobody_who_waits_waits_for_a_rest(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was called a moment ago goes on at once, and lets events gather after that at most."""
    assert rest(clock, worker_that_was_called(clock, 0), monkeypatch, load=5.0) == 0
    assert rest(clock, worker_that_was_called(clock, 0, gathering=True), monkeypatch, load=5.0) == 0
    assert rest(clock, worker_that_was_called(clock, 10), monkeypatch, load=5.0) == 0
    assert rest(clock, worker_that_was_called(clock, 10, gathering=True), monkeypatch, load=5.0) == pytest.approx(1.0)


@pytest.mark.parametrize("end", ["called", "stopped"])
def test_a_call_and_the_end_cut_a_rest_short(clock: Clock, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """A flush, and SIGTERM, are noticed within a glance."""
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    after = dict.fromkeys(("called", "stopped"), 1000000000.0) | {end: 1003.0}
    worker = worker_that_was_called(clock, 100)
    worker.called = lambda: clock.now >= after["called"]
    pace = Pace(worker, lambda: clock.now >= after["stopped"])
    clock.now += 2.0
    pace.rest(busy=True)
    assert 1003.0 <= clock.now < 1003.1
