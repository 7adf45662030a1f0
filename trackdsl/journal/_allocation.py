"""The files of a journal, which are allocated and mapped ahead, and advice for when none can be made.

Space is allocated before it is mapped: writing into a hole of a file on a full disk raises SIGBUS.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from pathlib import Path
from typing import NamedTuple

_FREE_SPACE = "Free some space, or set TRACKDSL_SPOOL to a folder on another disk."
_PERMIT = "Give this user write permission there, or set TRACKDSL_SPOOL to another folder."
_ADVICE = {
    errno.EMFILE: "Close files that this program leaves open, or raise its limit with `ulimit -n`.",
    errno.ENFILE: "The whole machine has too many files open: end other programs, or raise `fs.file-max`.",
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: "Allow larger files (`ulimit -f`), or set TRACKDSL_SPOOL to another file system.",
    errno.EACCES: _PERMIT,
    errno.EPERM: _PERMIT,
    errno.EROFS: _PERMIT,
}

_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class Segment(NamedTuple):
    """An allocated and mapped file, which becomes a segment when it is needed."""

    name: str
    map: mmap.mmap
    size: int
    identity: tuple[int, int]


class ExpectedFile(NamedTuple):
    """A file name in the journal's folder, and the file that it must refer to."""

    name: str
    identity: tuple[int, int]

    def holds(self, directory: Path) -> bool:
        """Whether the name refers to that file; True too if that cannot be checked."""
        try:
            state = os.stat(os.path.join(directory, self.name))
        except OSError as error:
            return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
        return (state.st_dev, state.st_ino) == self.identity


def open_spare() -> int:
    """Open a spare descriptor. It is closed when another file has to be opened and no descriptor is free."""
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def allocate(path: Path, size: int) -> Segment:
    """Create a file of a given size, and map it.

    Raises:
        OSError: the disk is full, or no descriptor is free.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _fill(descriptor, size)
        state = os.fstat(descriptor)
        return Segment(path.name, mmap.mmap(descriptor, size), size, (state.st_dev, state.st_ino))
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def _fill(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
        return
    except AttributeError:  # macOS
        pass
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    written = 0
    while written < size:
        written += os.write(descriptor, bytes(min(size - written, 1 << 20)))


def is_shortage(error: BaseException) -> bool:
    """Whether an error means that space or descriptors ran out, or that the disk fails."""
    return getattr(error, "errno", None) in _SHORTAGES


def advice(error: Exception) -> str:
    """One sentence that says how to fix an error of the file system."""
    return _ADVICE.get(getattr(error, "errno", None) or 0, "Set TRACKDSL_SPOOL to a writable folder.")
