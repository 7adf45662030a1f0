"""Deadlines of requests: one thread for all of them, because starting a timer for each takes a millisecond."""

from __future__ import annotations

import math
import threading
import time
from typing import Protocol

from trackdsl._core import runtime
from trackdsl._core.runtime import Phase


class Expiring(Protocol):
    """Something with a deadline, such as a request."""

    def expire(self) -> None:
        """End it; called from another thread, once, at its deadline."""


class Deadlines:
    """Ends each of several things that is not over at its deadline."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget all deadlines and the thread, which a forked child does not have."""
        self._change = threading.Condition()
        self._of: dict[Expiring, float] = {}
        self._thread: threading.Thread | None = None
        #: When the thread looks again. It is not woken by what is over before, so most requests do not wake it.
        self._looks = math.inf

    def begin(self, what: Expiring, seconds: float) -> None:
        """End something after this many seconds, unless `over` is called before.

        Raises:
            RuntimeError: there can be no more threads.
        """
        until = time.monotonic() + seconds
        with self._change:
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="trackdsl-deadlines", daemon=True)
                thread.start()
                self._thread = thread
            self._of[what] = until
            if until < self._looks:
                self._change.notify()

    def over(self, what: Expiring) -> None:
        """Remove the deadline of something that is over."""
        with self._change:
            self._of.pop(what, None)

    def _watch(self) -> None:
        while True:
            with self._change:
                now = time.monotonic()
                expired = [what for what, until in self._of.items() if until <= now]
                for what in expired:
                    del self._of[what]
                if not expired:
                    if not self._of and self._looks <= now:
                        self._thread, self._looks = None, math.inf
                        return  # The next request starts another thread.
                    self._looks = min(self._of.values(), default=now + _LINGER)
                    self._change.wait(self._looks - now)
            for what in expired:
                what.expire()


#: How long the thread waits for the next request, in seconds.
_LINGER = 10.0
deadlines = Deadlines()

runtime.register("the deadlines of requests", Phase.MEMORY, after_fork=deadlines.renew)
