"""The pipe that brings the environments of programs to the delivery process.

A delivery process outlives the program that started it. A named pipe in the spool brings it the credentials, proxies
and certificates of later programs, and tokens that a running program has refreshed. They are never written to the disk.

A message is compressed JSON, cut into pieces that a pipe writes atomically, even if several programs write at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import struct
import termios
import time
from pathlib import Path

from trackdsl._core.ids import prefix
from trackdsl.delivery.environment import ProgramEnvironment, current
from trackdsl.journal._files import open_regular

NAME = "environment"
#: Touched when a delivery process starts.
_STARTED = "delivery.started"
#: The number of the message, the index of the piece, and the count of pieces.
_HEAD = struct.Struct("<QHH")
_PIECE = select.PIPE_BUF - _HEAD.size
#: An incomplete message is forgotten after this time, in seconds.
_FORGET_AFTER = 60.0
#: The limit for stored pieces of incomplete messages, and for pieces read at one time: endless writing to the pipe must
#: not fill the memory or block delivery.
_MOST_PIECES = 1024


class _Sender:
    """Sends the environment of this process to a delivery process that does not have it yet."""

    def __init__(self) -> None:
        self._sent: dict[Path, tuple[object, ProgramEnvironment]] = {}
        #: The pieces that are not written yet, because the pipe was full.
        self._left: dict[Path, list[bytes]] = {}

    def send(self, spool: Path, handed: ProgramEnvironment | None = None) -> None:
        """Send the environment, unless the delivery process has it.

        Args:
            spool: the spool's folder.
            handed: what to send instead of the environment of this program.
        """
        path = spool / NAME
        handed = handed or ProgramEnvironment(prefix().hex(), current())
        with contextlib.suppress(OSError):  # No delivery process reads, or the pipe is full: the next call tries again.
            started = os.stat(spool / _STARTED, follow_symlinks=False).st_mtime_ns
            left = self._left.get(spool, [])
            if self._sent.get(spool) != (started, handed):
                left = self._left[spool] = _pieces(handed.encode())
                self._sent[spool] = started, handed
            if not left:
                return
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                _check(os.fstat(descriptor))
                while left:
                    os.write(descriptor, left[0])
                    del left[0]
            finally:
                os.close(descriptor)


hand_over = _Sender().send


def is_taken(spool: Path) -> bool:
    """Whether the delivery process has read everything that was sent, or nothing can be sent."""
    try:
        descriptor = os.open(spool / NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        _check(os.fstat(descriptor))
        return not any(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    except OSError:
        return True
    finally:
        os.close(descriptor)


class Pipe:
    """The delivery process's end of the pipe.

    Args:
        spool: the spool's folder.
    """

    def __init__(self, spool: Path) -> None:
        self._path = spool / NAME
        self._parts: dict[int, tuple[float, dict[int, bytes]]] = {}
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):  # A file system without pipes: delivery keeps its first environment.
            self._path.unlink(missing_ok=True)
            os.mkfifo(self._path, 0o600)
            # Open for writing too: a pipe without a writer always reports its end.
            descriptor = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            _check(os.fstat(descriptor))
            self._descriptor = descriptor
            # The time of this file shows programs that an earlier process, not this one, has read their messages.
            with open(open_regular(spool / _STARTED, os.O_WRONLY | os.O_CREAT), "wb") as started:
                os.utime(started.fileno())

    def read(self) -> list[ProgramEnvironment]:
        """The environments that programs have sent since the last time."""
        received: list[ProgramEnvironment] = []
        descriptor = self._descriptor
        if descriptor is None:
            return received
        for _ in range(_MOST_PIECES):
            try:
                piece = os.read(descriptor, select.PIPE_BUF)
            except BlockingIOError:
                break
            content = self._complete(piece)
            with contextlib.suppress(ValueError):
                received += [ProgramEnvironment.decode(content)] if content is not None else []
        return received

    def close(self) -> None:
        """Remove the pipe."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            with contextlib.suppress(OSError):  # Something else may have replaced it.
                if stat.S_ISFIFO(os.lstat(self._path).st_mode):
                    os.unlink(self._path)

    def _complete(self, piece: bytes) -> bytes | None:
        """The message that a piece completes."""
        if len(piece) <= _HEAD.size:
            return None
        number, index, count = _HEAD.unpack_from(piece)
        if index >= count or count > _MOST_PIECES:
            return None
        now = time.monotonic()
        parts = self._parts.setdefault(number, (now, {}))[1]
        parts[index] = piece[_HEAD.size :]
        if len(parts) == count:
            del self._parts[number]
            return b"".join(parts[at] for at in sorted(parts))
        self._forget(now)
        return None

    def _forget(self, now: float) -> None:
        """Forget the oldest incomplete messages: those that are too old, or that take too much memory."""
        left = sum(len(pieces) for _, pieces in self._parts.values())
        for number, (begun, pieces) in list(self._parts.items()):
            if now - begun < _FORGET_AFTER and left <= _MOST_PIECES:
                break
            del self._parts[number]
            left -= len(pieces)


def _pieces(content: bytes) -> list[bytes]:
    """The pieces of a message, each small enough for an atomic write."""
    number = int.from_bytes(os.urandom(8), "little")
    cut = [content[at : at + _PIECE] for at in range(0, len(content), _PIECE)]
    # All of one length, so that the reader finds their boundaries.
    return [_HEAD.pack(number, at, len(cut)) + piece.ljust(_PIECE, b"\0") for at, piece in enumerate(cut)]


def _check(state: os.stat_result) -> None:
    if not stat.S_ISFIFO(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o077:
        raise OSError(errno.EPERM, "it is not a pipe of this user")
