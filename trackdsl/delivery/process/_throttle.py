"""How often a worker looks for events: rarely while nothing happens, and not for every single point.

A write to a store costs milliseconds, even for one point. Delivering once a second costs a tenth of delivering each
point of a busy program at once. While programs keep the CPUs busy, a worker with a backlog pauses for most of the
time: a low priority alone would still let it run in every gap, and fill the CPU's caches.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol

_SHORTEST = 0.02
_LONGEST = 0.2
#: How long to let events accumulate, in seconds.
_ACCUMULATE = 1.0
#: Delivery does not pause for this many seconds after its start and after each wake-up.
_EAGER = 3.0
_CHECK_EVERY = 0.02
#: How long to pause while programs need the CPUs, relative to the duration of the last round.
_PAUSE = 2.0
_LONGEST_PAUSE = 30.0
#: The share of busy CPUs above which programs are assumed to need them.
_BUSY = 0.75


class Throttled(Protocol):
    """A worker that a throttle slows down; `Worker` is one."""

    @property
    def woken_at(self) -> float:
        """When a program last woke delivery, on the monotonic clock."""

    @property
    def expects_more(self) -> bool:
        """Whether more events are expected soon."""

    def woken(self) -> bool:
        """Whether a program woke delivery since the last round."""

    def awaited(self) -> bool:
        """Whether a program waits for delivery now."""


class Throttle:
    """The pauses between the rounds of a worker.

    Args:
        worker: the worker.
        stopped: whether the worker was asked to end, which ends a pause.
    """

    def __init__(self, worker: Throttled, stopped: Callable[[], bool] = bool) -> None:
        self._worker = worker
        self._stopped = stopped
        self._pause = _SHORTEST
        self._resumed = time.monotonic()

    def wait(self, busy: bool) -> None:
        """Wait for the next round.

        Args:
            busy: whether the last round delivered anything.
        """
        self._sleep(self._length(busy))
        self._resumed = time.monotonic()

    def _length(self, busy: bool) -> float:
        if not busy:
            pause, self._pause = self._pause, min(self._pause * 1.3, _LONGEST)
            return pause
        self._pause = _SHORTEST
        now = time.monotonic()
        if now - self._worker.woken_at <= _EAGER or self._worker.awaited():
            return 0.0
        accumulate = _ACCUMULATE if self._worker.expects_more else 0.0
        if not _is_machine_busy():
            return accumulate
        return max(accumulate, min(_PAUSE * (now - self._resumed), _LONGEST_PAUSE))

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not (self._worker.woken() or self._stopped()):
            time.sleep(min(left, _CHECK_EVERY))


def _is_machine_busy() -> bool:
    """Whether programs need most of the CPUs, as the mean of the last minute."""
    try:
        return os.getloadavg()[0] > _BUSY * (os.cpu_count() or 1)
    except (AttributeError, OSError):  # Windows has no load average.
        return False
