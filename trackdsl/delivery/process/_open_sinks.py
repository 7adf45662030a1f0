"""The open sinks: only a few at a time, since each holds files and memory, and a program may use many stores."""

from __future__ import annotations

import time
from collections.abc import Callable

from trackdsl.delivery._timing import timing
from trackdsl.delivery.store._sink import Sink

#: If there are more, those that were used least recently are closed.
_MOST = 16

#: What a sink belongs to: a tracking URI and a working directory.
StoreKey = tuple[str, str]


class OpenSinks:
    """Opens sinks, and closes those that are not in use.

    Args:
        open_sink: opens the sink of a tracking URI and a working directory.
    """

    def __init__(self, open_sink: Callable[[str, str], Sink]) -> None:
        self._open_sink = open_sink
        #: The most recently used ones are at the end.
        self._sinks: dict[StoreKey, tuple[Sink, float]] = {}

    def get(self, key: StoreKey) -> Sink | None:
        """The open sink of a store; None if none is open, or it no longer leads to the store."""
        entry = self._sinks.pop(key, None)
        if entry is None:
            return None
        if entry[0].stale():
            entry[0].close()
            return None
        self._sinks[key] = entry[0], time.monotonic()
        return entry[0]

    def open(self, key: StoreKey) -> Sink:
        """Open the sink of a store.

        Raises:
            Unavailable: the store cannot be opened.
        """
        while len(self._sinks) >= _MOST:
            self._close(next(iter(self._sinks)))
        sink = self._open_sink(*key)
        self._sinks[key] = sink, time.monotonic()
        return sink

    def close_idle(self) -> None:
        """Close sinks that have not been used for a while."""
        before = time.monotonic() - timing().idle_store
        for key in [key for key, (_, used) in self._sinks.items() if used < before]:
            self._close(key)

    def close(self) -> None:
        """Close all sinks."""
        for key in list(self._sinks):
            self._close(key)

    def _close(self, key: StoreKey) -> None:
        self._sinks.pop(key)[0].close()
