"""How often a worker looks: seldom while nothing happens, and not for every single point.

A write to a store costs milliseconds however little is in it. A program that logs all the time is delivered once a
second, which costs a tenth of what following it at its heels would. Where programs keep all processors busy, a worker
that is behind rests half of its time: niceness alone still leaves it every gap, and with it the caches.
"""

from __future__ import annotations

import os
import time

from trackdsl.delivery._worker import Worker

_SHORTEST = 0.02
_LONGEST = 0.2
#: How long to let events gather, in seconds.
_GATHER = 1.0
#: How long somebody who has called is taken to be waiting, in seconds.
_HURRY = 3.0
_GLANCE = 0.02


class Pace:
    """The rests between the rounds of a worker.

    Args:
        worker: the worker.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
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
        if self._worker.gathering:
            return _GATHER
        return now - self._went_on if _crowded() else 0.0

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._worker.called():
            time.sleep(min(left, _GLANCE))


def _crowded() -> bool:
    """Whether more programs want to run than there are processors, as a mean of the last minute."""
    try:
        return os.getloadavg()[0] > (os.cpu_count() or 1)
    except (AttributeError, OSError):  # Windows has no such figure.
        return False
