"""File locks that the kernel releases when their holder dies (flock)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from pathlib import Path

from trackdsl._core import runtime
from trackdsl._core.runtime import Phase
from trackdsl.journal._files import open_regular

#: The locks that this process holds. A forked child inherits the descriptors: it would keep the locks of a dead parent.
_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


class FileLock:
    """An exclusive lock on a file, held until `release` or until the process ends.

    Args:
        path: the file; created if it does not exist, readable by its owner only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, *, wait: bool = False) -> bool:
        """Take the lock.

        Returns:
            False if another process holds it (only without `wait`).

        Raises:
            OSError: the file cannot be opened, is not a regular file, or the file system has no locks.
        """
        descriptor = open_regular(self.path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(self)
        return True

    def is_current(self) -> bool:
        """Whether the lock is held, and its path still names the locked file."""
        if self._descriptor is None:
            return False
        try:
            own, there = os.fstat(self._descriptor), os.lstat(self.path)
        except OSError:
            return False
        return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)

    def release(self) -> None:
        """Release the lock; does nothing if it is not held."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.abandon()

    def abandon(self) -> None:
        """Close the file without unlocking it: in a forked child, the lock belongs to the parent."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


def _after_fork() -> None:
    for lock in list(_held):
        lock.abandon()
    _held.clear()


runtime.register("locked files", Phase.FILES, after_fork=_after_fork)


def is_written(journal: Path) -> bool:
    """Whether a living program writes to a journal; False too if the journal is gone, or its lock is not a file."""
    try:
        return is_held(journal / "lock")
    except OSError:
        return False


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock on `path`.

    Raises:
        OSError: it is not a regular file, or cannot be opened.
    """
    if not os.path.lexists(path):
        return False
    probe = FileLock(path)
    if not probe.acquire():
        return True
    probe.release()
    return False
