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
    """A lock on a file, held until `release` or until the process ends.

    Args:
        path: the file; created if it does not exist, readable by its owner only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, *, wait: bool = False, shared: bool = False, create: bool = True) -> bool:
        """Take the lock.

        Args:
            wait: wait until no other process holds it.
            shared: other processes may hold it too, if they share it.
            create: create the file if it does not exist.

        Returns:
            False if another process holds it (only without `wait`).

        Raises:
            OSError: the file cannot be opened, is not a regular file, or the file system has no locks;
                `FileNotFoundError` if it does not exist and is not to be created.
        """
        descriptor = open_regular(self.path, os.O_RDWR | (os.O_CREAT if create else 0))
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
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


def is_held(path: Path, *, shared: bool = False) -> bool:
    """Whether a living process holds the lock on `path`.

    Args:
        path: the lock's file.
        shared: whether processes that share the lock count as well.

    Raises:
        OSError: it is not a regular file, or cannot be opened.
    """
    probe = FileLock(path)
    try:
        # Shared where possible: another thread or process may be in this function for the same lock, and is not a
        # holder. Not created: the file may be deleted at any moment, and that a journal has none shows that it was
        # deleted.
        if not probe.acquire(shared=not shared, create=False):
            return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    probe.release()
    return False
