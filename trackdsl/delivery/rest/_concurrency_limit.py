"""How many requests a server gets at once: four as long as it answers them all, fewer when it fails."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from trackdsl.delivery._timing import timing
from trackdsl.delivery.store._errors import Unavailable

#: How many requests a server gets at once at most.
MOST = 4
#: How many answers in a row allow one request more at once.
_ANSWERS = 20
#: How often a request is sent that a server is too busy for, before its delivery fails.
_TRIES = 6

T = TypeVar("T")


class ConcurrencyLimit:
    """The limit on concurrent requests to one server, for several threads.

    It is halved if the server answers that it gets too many requests (429 or 503), or gives no answer in time; it grows
    by one after a while. After such an answer all requests pause, and the pause doubles with each of them.
    """

    def __init__(self) -> None:
        self._limit = MOST
        self._under_way = 0
        self._answers = 0
        self._pause = 0.0
        self._resume = 0.0
        self._slowed = 0.0
        self._change = threading.Condition()

    @property
    def limit(self) -> int:
        """The number of requests that may be under way now."""
        return self._limit

    def send(self, request: Callable[[], T], stopped: Callable[[], bool] = lambda: False) -> T:
        """Send a request when it is its turn, and again if the server was too busy for it.

        Args:
            request: sends it.
            stopped: whether it need not be sent again.
        """
        tries = 0
        while True:
            tries += 1
            try:
                with self._turn():
                    return request()
            except Unavailable as error:
                if not error.busy or tries >= _TRIES or stopped():
                    raise

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        with self._change:
            while (wait := self._resume - time.monotonic()) > 0 or self._under_way >= self._limit:
                self._change.wait(wait if wait > 0 else None)
            self._under_way += 1
            begun = time.monotonic()
        try:
            yield
        except Unavailable as error:
            self._end(begun, failed=error.busy or error.late)
            raise
        except BaseException:
            self._end(begun, failed=False)
            raise
        self._end(begun, failed=False)

    def _end(self, begun: float, *, failed: bool) -> None:
        with self._change:
            self._under_way -= 1
            if failed:
                self._slow_down(begun)
            else:
                self._pause = 0.0
                self._answers += 1
                if self._answers >= _ANSWERS and self._limit < MOST:
                    self._limit, self._answers = self._limit + 1, 0
            self._change.notify_all()

    def _slow_down(self, begun: float) -> None:
        self._answers = 0
        if begun < self._slowed:
            return  # It was sent before the pace changed.
        self._slowed = time.monotonic()
        self._limit = max(1, self._limit // 2)
        self._pause = min(max(2 * self._pause, timing().first_retry), timing().longest_retry / 10)
        self._resume = self._slowed + self._pause
