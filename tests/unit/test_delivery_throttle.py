"""How long the delivery process pauses between its rounds. The load of the machine and its clock are faked."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

from trackdsl.delivery.process._throttle import Throttle


class Clock:
    """Replaces `time`: a pause takes no time and is counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def pause(clock: Clock, worker: Any, monkeypatch: pytest.MonkeyPatch, *, load: float, took: float = 2.0) -> float:
    """How long a worker pauses after it was busy for `took` seconds, at a load relative to the CPUs."""
    monkeypatch.setattr(os, "getloadavg", lambda: (load * (os.cpu_count() or 1), 0.0, 0.0))
    throttle = Throttle(worker)
    clock.now += took
    before = clock.now
    throttle.wait(busy=True)
    return clock.now - before


def woken_worker(clock: Clock, seconds_ago: float, *, expects_more: bool = False, awaited: bool = False) -> Any:
    return SimpleNamespace(
        woken_at=clock.now - seconds_ago, expects_more=expects_more, woken=lambda: False, awaited=lambda: awaited
    )


def test_a_worker_pauses_while_programs_need_the_processors(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker pauses twice as long as its round took, at most half a minute; not at all on an idle machine."""
    worker = woken_worker(clock, 100)
    assert pause(clock, worker, monkeypatch, load=0.5) == 0
    assert pause(clock, worker, monkeypatch, load=1.0) == pytest.approx(4.0)
    assert pause(clock, worker, monkeypatch, load=1.0, took=60.0) == pytest.approx(30.0)


def test_a_waiting_program_waits_for_no_pause(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker continues at once if it was woken a moment ago, or if a program waits for it."""
    assert pause(clock, woken_worker(clock, 0), monkeypatch, load=5.0) == 0
    assert pause(clock, woken_worker(clock, 0, expects_more=True), monkeypatch, load=5.0) == 0
    assert pause(clock, woken_worker(clock, 1000, awaited=True), monkeypatch, load=5.0) == 0
    assert pause(clock, woken_worker(clock, 1000, expects_more=True, awaited=True), monkeypatch, load=5.0) == 0
    assert pause(clock, woken_worker(clock, 10, expects_more=True), monkeypatch, load=0.1) == pytest.approx(1.0)


@pytest.mark.parametrize("end", ["woken", "stopped"])
def test_a_wake_up_and_the_end_cut_a_pause_short(clock: Clock, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """A flush and SIGTERM end a pause at once."""
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    after = dict.fromkeys(("woken", "stopped"), 1000000000.0) | {end: 1003.0}
    worker = woken_worker(clock, 100)
    worker.woken = lambda: clock.now >= after["woken"]
    throttle = Throttle(worker, lambda: clock.now >= after["stopped"])
    clock.now += 2.0
    throttle.wait(busy=True)
    assert 1003.0 <= clock.now < 1003.1
