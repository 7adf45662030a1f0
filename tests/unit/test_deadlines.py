"""Deadlines of requests: each ends at its own, and one thread serves all of them."""

from __future__ import annotations

import threading

import pytest

from tests.conftest import wait_until
from trackdsl._server import _deadlines
from trackdsl._server._deadlines import Deadlines


class Request:
    """A request that notes which thread ended it."""

    def __init__(self) -> None:
        self.ended_by: threading.Thread | None = None

    def expire(self) -> None:
        self.ended_by = threading.current_thread()


def test_each_ends_at_its_own_deadline() -> None:
    """A deadline that comes first ends first, also where a later one was set before; what is over never ends."""
    deadlines, late, early, over = Deadlines(), Request(), Request(), Request()
    deadlines.begin(late, 600)
    wait_until(lambda: deadlines._looks < 1e300, "the thread to wait for the late one")
    deadlines.begin(over, 0.01)
    deadlines.over(over)
    deadlines.begin(early, 0.02)
    wait_until(lambda: early.ended_by, "the early one to end")
    assert (late.ended_by, over.ended_by) == (None, None)
    assert early.ended_by is deadlines._thread
    deadlines.over(late)
    assert not deadlines._of


def test_one_thread_serves_all_requests_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand requests start one thread, which ends when none comes for a while; the next one starts another."""
    monkeypatch.setattr(_deadlines, "_LINGER", 0.01)
    deadlines = Deadlines()
    threads = set()
    for _ in range(1000):
        request = Request()
        deadlines.begin(request, 0.5)
        threads.add(deadlines._thread)
        deadlines.over(request)
    assert len(threads) == 1
    wait_until(lambda: deadlines._thread is None, "the thread to end")
    again = Request()
    deadlines.begin(again, 0.01)
    wait_until(lambda: again.ended_by, "the next one to end")
