"""When the positions of a journal were reached: the time of the oldest event that is not delivered."""

from __future__ import annotations

import time
from bisect import bisect_right
from operator import itemgetter

from trackdsl.journal._segments import Position

#: How many positions are remembered, and the least time between two of them at first, in seconds. It grows.
_MOST, _DISTANCE = 500, 0.5


class PositionTimes:
    """Positions of a journal, and when they were reached.

    Args:
        began: when the first event can have been recorded, in seconds since 1970.
    """

    def __init__(self, began: float) -> None:
        #: Each position has the earliest time of what was recorded up to there, since the position before it.
        self._known: list[tuple[Position, float]] = []
        self._latest = began
        self._distance = _DISTANCE

    def add(self, position: Position, at: float) -> None:
        """Remember a position.

        Args:
            position: behind an event.
            at: when the event was recorded, in seconds since 1970. A program may give any time to a metric, so times
                before the last one and in the future count as that one and as now.
        """
        self._latest = min(time.time(), max(self._latest, at))
        if not self._known or position > self._known[-1][0]:
            self._append(position, self._latest)
        if len(self._known) > _MOST:
            self._distance *= 2
            known, self._known = self._known, []
            for position, at in known:
                self._append(position, at)

    def _append(self, position: Position, at: float) -> None:
        if self._known and at - self._known[-1][1] < self._distance:
            self._known[-1] = position, self._known[-1][1]
        else:
            self._known.append((position, at))

    def forget(self, delivered: Position) -> None:
        """Forget what is delivered."""
        del self._known[: bisect_right(self._known, delivered, key=itemgetter(0))]

    def since(self) -> float | None:
        """When the oldest event that is not delivered was recorded; None if there is none."""
        return self._known[0][1] if self._known else None
