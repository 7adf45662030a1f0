"""The programs that wait for a delivery: as long as one does, delivery neither pauses nor gives way.

Each holds a shared lock on a file of the spool. The kernel releases it when the program dies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from trackdsl.journal._lock import FileLock, is_held

_NAME = "waiters.lock"


class Waiter:
    """A program that waits, until `close`.

    Args:
        spools: the spools whose delivery it waits for.
    """

    def __init__(self, spools: Iterable[Path]) -> None:
        self._missing = [FileLock(spool / _NAME) for spool in spools]
        self._held: list[FileLock] = []
        self.show()

    def show(self) -> None:
        """Let delivery know.

        Call this repeatedly: delivery takes the lock for an instant when it probes it, and then this has no effect.
        """
        for lock in list(self._missing):
            with contextlib.suppress(OSError):  # No descriptor is free, for example. Then delivery may be slower.
                if lock.acquire(shared=True):
                    self._missing.remove(lock)
                    self._held.append(lock)

    def close(self) -> None:
        """Stop waiting."""
        for lock in self._held:
            lock.release()
        self._held.clear()


def is_awaited(spool: Path) -> bool:
    """Whether a program waits for the delivery from a spool."""
    try:
        return is_held(spool / _NAME, shared=True)
    except OSError:  # Something else has its path.
        return False
