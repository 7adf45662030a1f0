"""Timestamps for metric points that are equal within one millisecond.

MLflow identifies a point by run, key, step, value and millisecond, and keeps only one of two equal points. A loop that
logs faster than that would lose points, so an equal point moves to the next free millisecond. The result depends only
on the journal: a point that is sent again after a crash gets the same millisecond, and MLflow keeps one of the two.
`_shared_points.py` handles runs that several journals write to.
"""

from __future__ import annotations

from collections.abc import Collection

#: In milliseconds. Threads may write points in a different order than they took the time; a larger step back means that
#: the clock was set back.
_JITTER = 1000

StampedPoint = tuple[bytes, str, int, float, int]


class TimestampDedup:
    """Assigns a unique millisecond to every one of a journal's equal metric points.

    Args:
        points: what `remembered` returned when delivery last reached this position.
        now: the value of `now` at that time.

    Attributes:
        now: the latest time of a point, in milliseconds since 1970.
    """

    def __init__(self, points: list[StampedPoint], now: int = 0) -> None:
        self._latest = {_identity(run, key, step, value): time for run, key, step, value, time in points}
        self.now = now

    def assign(
        self, run: bytes, key: str, step: int, value: float, time: int, occupied: Collection[int] = frozenset()
    ) -> int:
        """The millisecond for a point that was recorded at `time`, in milliseconds since 1970; none of `occupied`."""
        if time > self.now:
            self.now = time
            if len(self._latest) > 256:
                self._forget()
        elif self.now - time <= _JITTER:
            # Points before `now` are forgotten, so the point moves to `now`.
            time = self.now
        else:
            self.now = time
        # As in `_identity`, but without a call for each point.
        identity = (run, key, step, value if value == value else "nan")
        latest = self._latest.get(identity)
        if latest is not None and time <= latest:
            time = latest + 1
        if occupied:
            while time in occupied:
                time += 1
        self._latest[identity] = time
        return time

    def remembered(self) -> list[StampedPoint]:
        """The points that a later point could still equal."""
        self._forget()
        return [
            (run, key, step, float("nan") if isinstance(value, str) else value, time)
            for (run, key, step, value), time in self._latest.items()
        ]

    def _forget(self) -> None:
        self._latest = {identity: time for identity, time in self._latest.items() if time >= self.now}


def _identity(run: bytes, key: str, step: int, value: float) -> tuple[bytes, str, int, float | str]:
    # nan does not equal itself; MLflow treats all nan values as equal.
    return run, key, step, value if value == value else "nan"
