"""When the program of a journal was last seen alive: if it is killed, its runs end then."""

from __future__ import annotations

import time
from pathlib import Path

from trackdsl.journal._lock import is_held
from trackdsl.journal._segments import segment_path, segments


class LastSeen:
    """Looks whether the program of a journal still runs.

    Args:
        directory: the journal's folder.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._alive = True
        #: In nanoseconds since 1970.
        self._alive_at = 0

    def is_alive(self) -> bool:
        """Whether the program still runs, by the lock that it holds."""
        now = time.time_ns()
        self._alive = is_held(self._directory / "lock")
        if self._alive:
            self._alive_at = now
        return self._alive

    def check(self) -> None:
        """Check while nothing can be delivered, which costs nothing once the program has ended."""
        if self._alive:
            self.is_alive()

    def time(self, last_event: int) -> int:
        """When the program was last seen alive, in nanoseconds since 1970.

        Args:
            last_event: the time of its last event; 0 if an earlier process delivered that.
        """
        return max(last_event or self._last_change(), self._alive_at)

    def _last_change(self) -> int:
        # The file was last changed when the last event was written.
        numbers = segments(self._directory)
        path = segment_path(self._directory, numbers[-1]) if numbers else self._directory
        try:
            return path.stat().st_mtime_ns
        except OSError:  # It was deleted.
            return time.time_ns()
