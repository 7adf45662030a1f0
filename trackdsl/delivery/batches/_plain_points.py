"""Collecting the points of ordinary runs in a short loop: most of what programs record.

A run is ordinary here if this journal has opened it, no other journal writes to it, and nothing of it is held back.
Every other event takes the way through `Interpreter.apply`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite
from typing import Any

from trackdsl._core import events
from trackdsl.delivery.batches._timestamp_dedup import TimestampDedup
from trackdsl.journal._reader import Entry
from trackdsl.store_format.limits import all_fit, fit_key

_MS = 1_000_000
_LARGEST_STEP = events.INT64 - 1
_INFINITE = (inf, -inf)

#: Key, value, time in milliseconds since 1970, step.
Points = list[tuple[str, float, int, int]]


class PlainPoints:
    """Collects points until `clear` is called, or another event of their run comes.

    Args:
        find: returns where to collect the points of a run, or None if it is not ordinary.

    Attributes:
        runs: our ids of the runs with events that were collected since `clear`.
    """

    def __init__(self, find: Callable[[bytes], Points | None]) -> None:
        self._find = find
        self._known: dict[bytes, Points] = {}
        self.runs: set[bytes] = set()

    def collect(self, entries: list[Entry], start: int, timestamps: TimestampDedup) -> int:
        """Collect the points of entries; returns the index of the first entry that is not for this loop."""
        metric, metrics = events.Metric, events.Metrics
        first: Any = entries[start][0]
        if first.__class__ is not metric and first.__class__ is not metrics:
            self._forget(first)
            return start
        assign, known = timestamps.assign, self._known
        last: bytes | None = None
        points: Points | None = None
        for number in range(start, len(entries)):
            event: Any = entries[number][0]
            kind = event.__class__
            if kind is not metric and kind is not metrics:
                self._forget(event)
                return number
            id_ = event.run
            if id_ != last:
                last = id_
                points = known[id_] if id_ in known else self._look_up(id_)
            step, at = event.step, event.time // _MS
            if points is None or step > _LARGEST_STEP:
                self._forget(event)
                return number
            if kind is metric:
                key, value = event.key, event.value
                if fit_key(key) != key or value in _INFINITE:
                    self._forget(event)
                    return number
                points.append((key, value, assign(id_, key, step, value, at), step))
                continue
            values = event.values
            if not all_fit(tuple(values)) or not isfinite(sum(values.values())):
                self._forget(event)
                return number
            points += [(key, value, assign(id_, key, step, value, at), step) for key, value in values.items()]
        return len(entries)

    def _look_up(self, id_: bytes) -> Points | None:
        points = self._find(id_)
        if points is not None:
            self._known[id_] = points
            self.runs.add(id_)
        return points

    def _forget(self, event: Any) -> None:
        """Forget where the points of a run belong, because the next event of the run may change it."""
        if event is not None:
            self._known.pop(event.run, None)

    def clear(self) -> None:
        """Forget all runs."""
        self._known.clear()
        self.runs.clear()
