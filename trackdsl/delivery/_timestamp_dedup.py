"""Equal metric points in one millisecond.

MLflow identifies a point by run, key, step, value and millisecond, and keeps one of equals. A loop that logs faster
than that would lose points, so an equal point is moved to the next millisecond that is free. The outcome depends on
the journal alone: what is sent twice, after a crash, is the same both times, and MLflow keeps one. `_shared_points.py`
tells of runs that several journals write to.
"""

from __future__ import annotations

from collections.abc import Container

#: Threads may write their points in another order than they took the time, in milliseconds. More is a clock set back.
_JITTER = 1000

StampedPoint = tuple[bytes, str, int, float, int]


class Spacing:
    """Gives every metric point of a journal a millisecond of its own.

    Args:
        points: what `remembered` returned when delivery last came to this place.
        now: and what `now` was.

    Attributes:
        now: the latest time that was met, in milliseconds since 1970.
    """

    def __init__(self, points: list[StampedPoint], now: int = 0) -> None:
        self._latest = {_identity(run, key, step, value): time for run, key, step, value, time in points}
        self.now = now

    def place(
        self, run: bytes, key: str, step: int, value: float, time: int, taken: Container[int] = frozenset()
    ) -> int:
        """The millisecond for a point that was recorded at `time`, in milliseconds since 1970; none that is taken."""
        if time > self.now:
            self.now = time
            if len(self._latest) > 256:
                self._forget()
        elif self.now - time <= _JITTER:
            # Before now its equals are forgotten.
            time = self.now
        else:
            self.now = time
        identity = _identity(run, key, step, value)
        latest = self._latest.get(identity)
        if latest is not None and time <= latest:
            time = latest + 1
        while time in taken:
            time += 1
        self._latest[identity] = time
        return time

    def remembered(self) -> list[StampedPoint]:
        """The points that a later one could still meet."""
        self._forget()
        return [
            (run, key, step, float("nan") if isinstance(value, str) else value, time)
            for (run, key, step, value), time in self._latest.items()
        ]

    def _forget(self) -> None:
        self._latest = {identity: time for identity, time in self._latest.items() if time >= self.now}


def _identity(run: bytes, key: str, step: int, value: float) -> tuple[bytes, str, int, float | str]:
    # nan is unlike itself, and to MLflow all are the same.
    return run, key, step, value if value == value else "nan"
