"""Opening the files of a spool: only regular files, and never through a link.

Opening a FIFO waits for a writer, and a link may lead to a file of another user.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

#: The default limit for files that are read whole. No such file of a spool is larger.
_MOST = 1 << 30


class NoRegularFile(OSError):
    """A link, a folder, a FIFO or a device was found instead of a file."""


def open_regular(path: Path | str, flags: int = os.O_RDONLY, *, folder: int | None = None) -> int:
    """Open a file. A new file is readable by its owner only.

    Args:
        path: the file, relative to `folder` if that is given.
        flags: those of `os.open`.
        folder: the descriptor of a folder.

    Returns:
        a descriptor in blocking mode, which `exec` closes.

    Raises:
        NoRegularFile: it is a link, a folder, a FIFO or a device.
        OSError: it cannot be opened.
    """
    wanted = flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, wanted, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            raise _no_file(path) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _no_file(path)
        os.set_blocking(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: Path | str, most: int = _MOST, *, folder: int | None = None) -> bytes:
    """The content of a file; see `open_regular`.

    Raises:
        OSError: it cannot be read, or has more than `most` bytes.
    """
    with open(open_regular(path, folder=folder), "rb") as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
        return file.read(most)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read."""
    with open(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(content)


def replace(path: Path, content: bytes, *, to_disk: bool = False) -> None:
    """Replace a file with new content, atomically.

    Args:
        path: the file.
        content: the new content.
        to_disk: whether to flush the content to the disk first.
    """
    part = path.with_suffix(".part")
    # A process that died may have left it.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)
    with open(open_regular(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(content)
        if to_disk:
            file.flush()
            os.fsync(file.fileno())
    os.replace(part, path)


def touch(path: Path) -> None:
    """Create an empty file if there is none, and set its time to now.

    Raises:
        OSError: it cannot be made, or is a link, a folder, a FIFO or a device.
    """
    descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT)
    try:
        os.utime(descriptor)
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk.

    Raises:
        OSError: it cannot be opened, or is a link, a FIFO or a device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        descriptor = open_regular(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content, as far as possible. Links are not followed."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)  # `rmtree` would open it, and wait for a writer if it is a FIFO.


def is_regular(path: Path) -> bool:
    """Whether a path names a regular file and not a link."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _no_file(path: Path | str) -> OSError:
    return NoRegularFile(errno.EINVAL, "it is not a regular file", str(path))
