"""How often a worker looks: seldom while nothing happens, and not for every single point.

A write to a store costs milliseconds however little is in it. A program that logs all the time is delivered once a
second, which costs a tenth of what following it at its heels would. Where programs keep the processors busy, a worker
that is behind rests for most of its time: niceness alone still leaves it every gap, and with it the caches.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol

_SHORTEST = 0.02
_LONGEST = 0.2
#: How long to let events gather, in seconds.
_GATHER = 1.0
#: How long somebody who has called is taken to be waiting, in seconds.
_HURRY = 3.0
_GLANCE = 0.02
#: For so long it may be the end of a program, which waits; the mean of the machine's load still tells of its work then.
_STILL_WAITING = 30.0
#: How long to rest where programs need the processors, in lengths of the round before.
_REST = 2.0
_LONGEST_REST = 30.0
#: Of all processors, so many are busy then.
_BUSY = 0.75


class Paced(Protocol):
    """What has rests between its rounds; see `Worker`."""

    @property
    def called_at(self) -> float:
        """When a program last asked to go on at once, on the monotonic clock."""

    @property
    def gathering(self) -> bool:
        """Whether more to deliver is worth waiting for."""

    def called(self) -> bool:
        """Whether it has been asked to go on at once since the last round."""


class Pace:
    """The rests between the rounds of a worker.

    Args:
        worker: the worker.
        stopped: whether it was asked to end, which ends a rest.
    """

    def __init__(self, worker: Paced, stopped: Callable[[], bool] = bool) -> None:
        self._worker = worker
        self._stopped = stopped
        self._nap = _SHORTEST
        self._went_on = time.monotonic()

    def rest(self, busy: bool) -> None:
        """Wait for the next round.

        Args:
            busy: whether the last round had anything to do.
        """
        self._sleep(self._length(busy))
        self._went_on = time.monotonic()

    def _length(self, busy: bool) -> float:
        if not busy:
            nap, self._nap = self._nap, min(self._nap * 1.3, _LONGEST)
            return nap
        self._nap = _SHORTEST
        now = time.monotonic()
        if now - self._worker.called_at <= _HURRY:
            return 0.0
        gather = _GATHER if self._worker.gathering else 0.0
        if now - self._worker.called_at <= _STILL_WAITING or not _crowded():
            return gather
        return max(gather, min(_REST * (now - self._went_on), _LONGEST_REST))

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not (self._worker.called() or self._stopped()):
            time.sleep(min(left, _GLANCE))


def _crowded() -> bool:
    """Whether programs need most of the processors, as a mean of the last minute."""
    try:
        return os.getloadavg()[0] > _BUSY * (os.cpu_count() or 1)
    except (AttributeError, OSError):  # Windows has no such figure.
        return False
