"""How often a worker looks: seldom while nothing happens, and not for every single point.

A write to a store costs milliseconds however little is in it. A program that logs all the time is delivered once a
second, which costs a tenth of what following it at its heels would.
"""

from __future__ import annotations

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

    def rest(self, busy: bool) -> None:
        """Wait for the next round.

        Args:
            busy: whether the last round had anything to do.
        """
        if not busy:
            self._sleep(self._nap)
            self._nap = min(self._nap * 1.3, _LONGEST)
            return
        self._nap = _SHORTEST
        if self._worker.gathering and time.monotonic() - self._worker.called_at > _HURRY:
            self._sleep(_GATHER)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._worker.called():
            time.sleep(min(left, _GLANCE))
