"""Appending to a journal: one copy into a file that is mapped into memory.

The kernel owns the mapped pages, so what was copied survives the death of the process. Space is allocated before it
is mapped: writing into a hole of a full disk would be a SIGBUS. `mmap.write` copies and advances in one C call, which
makes an append atomic for threads and signal handlers without a lock; the lock below guards the change of segment.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from trackdsl._events import SCHEMA
from trackdsl.errors import report
from trackdsl.journal import _format as fmt
from trackdsl.journal._files import write_private
from trackdsl.journal._lock import FileLock

_FIRST_SEGMENT = 256 * 1024
_LARGEST_SEGMENT = 8 * 1024 * 1024
_RESERVE = 128 * 1024
#: How long to wait before asking a full disk again, in nanoseconds.
_RETRY_AFTER = 10_000_000

_pack = fmt.FRAME.pack
_crc32 = zlib.crc32
_MARKER = fmt.MARKER


class Losing(Protocol):
    """Whoever must be told that one of its events could not be written."""

    _lost: int


class Writer:
    """The journal of one process for one target. Make it with `Writer.create`."""

    def __init__(self, directory: Path, lock: FileLock, salt: int) -> None:
        self.directory = directory
        self.lost = 0
        self._lock = lock
        self._salt = salt
        self._number = 0
        self._size = _FIRST_SEGMENT
        # Re-entrant: a signal handler may record in the middle of a change of segment by the same thread.
        self._rotation = threading.RLock()
        self._rotating = False
        self._pending: deque[tuple[bytes, Losing | None, bool]] = deque()
        self._retry_at = 0
        self._in_reserve = False
        self._map: mmap.mmap
        self._write: Callable[[bytes], int] = _no_segment

    @classmethod
    def create(cls, directory: Path, describe: Callable[[Path], None] = lambda _: None) -> Writer:
        """Make a journal in `directory`, which must not exist.

        Args:
            directory: the journal's folder.
            describe: adds what else belongs in the folder, before anybody can see it.

        Raises:
            OSError: the folder cannot be made, locked or filled.
        """
        # Under a hidden name until it is locked, so that the delivery process never sees it without its lock.
        unborn = directory.with_name("." + directory.name)
        unborn.mkdir(mode=0o700)
        lock = FileLock(unborn / "lock")
        try:
            if not lock.acquire():
                raise OSError(errno.EBUSY, "the lock of a new journal is taken", str(directory))
            writer = cls(unborn, lock, int.from_bytes(os.urandom(4), "little"))
            _allocate(unborn / "progress", PROGRESS_SIZE)
            _allocate(unborn / "reserve", _RESERVE)
            mapped = writer._next_segment(_FIRST_SEGMENT)
            writer._switch(mapped, "next", mapped.write)
            describe(unborn)
            os.rename(unborn, directory)
        except BaseException:
            import shutil

            lock.release()
            shutil.rmtree(unborn, ignore_errors=True)
            raise
        writer.directory = directory
        return writer

    def append(self, payload: bytes, run: Losing | None = None, vital: bool = False) -> None:
        """Write one event. It is safe from the death of this process when this returns.

        Args:
            payload: the encoded event.
            run: counts the loss if the event cannot be written.
            vital: may use the space set aside for a full disk.
        """
        data = _pack(_MARKER, len(payload), _crc32(payload, self._salt)) + payload
        try:
            self._write(data)
        except ValueError:
            # The segment is full, or another thread has just closed it.
            self._spill(data, run, vital)

    def position(self) -> tuple[int, int]:
        """Segment number and offset behind the last event."""
        with self._rotation:
            return self._number, self._map.tell()

    def note_end(self) -> None:
        """Note that the program has ended as it should: another machine may not see whether the lock is free.

        Whatever is appended after that makes the note void, as it names the place behind the last event.
        """
        with contextlib.suppress(OSError):  # No room: then another machine does not know.
            number, offset = self.position()
            write_private(self.directory / ENDED, f"{number} {offset}\n".encode())

    def close(self) -> None:
        """Give the lock back: whatever is still open is ended as killed by the delivery process."""
        self._write = _no_segment
        self._retry_at = 1 << 63
        self._lock.release()

    def forget(self) -> None:
        """Let go of an inherited journal in a forked child, without touching what belongs to the parent."""
        self._write = _no_segment
        self._lock.abandon()

    def _spill(self, data: bytes, run: Losing | None, vital: bool) -> None:
        with self._rotation:
            self._pending.append((data, run, vital))
            if self._rotating:
                return  # The call that this one interrupted writes it.
            while self._pending:
                self._rotating = True
                try:
                    self._write_or_rotate(*self._pending.popleft())
                finally:
                    self._rotating = False

    def _write_or_rotate(self, data: bytes, run: Losing | None, vital: bool) -> None:
        try:
            self._write(data)
            return
        except ValueError:
            if len(data) > fmt.MAX_PAYLOAD:
                self._lose(run, f"an event of {len(data)} bytes, which is too large for the journal")
                return
        now = time.monotonic_ns()
        if now >= self._retry_at:
            try:
                self._grow(data)
                return
            except OSError as error:
                self._retry_at = now + _RETRY_AFTER
                self._blame(error)
        if not (vital and self._write_reserved(data)):
            self._lose(run, None)

    def _grow(self, data: bytes) -> None:
        size = max(self._size, fmt.HEADER_SIZE + len(data))
        mapped = self._next_segment(size)
        # Before other threads can see the segment, and fill it.
        mapped.write(data)
        self._switch(mapped, "next", mapped.write)
        self._size = min(self._size * 2, _LARGEST_SEGMENT)
        if self._in_reserve:
            self._in_reserve = False
            with contextlib.suppress(OSError):
                _allocate(self.directory / "reserve", _RESERVE)

    def _next_segment(self, size: int) -> mmap.mmap:
        path = self.directory / "next"
        _allocate(path, size)
        return self._map_segment(path, size)

    def _map_segment(self, path: Path, size: int) -> mmap.mmap:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            mapped = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        header = fmt.Header(SCHEMA, self._number + 1, self._salt, time.time_ns())
        mapped.write(header.pack())
        return mapped

    def _switch(self, mapped: mmap.mmap, name: str, write: Callable[[bytes], int]) -> None:
        # Close first, show the new one second: a reader that sees a successor knows that no late write can follow.
        if self._number:
            self._map.close()
        self._number += 1
        os.rename(self.directory / name, self.directory / f"{self._number:06d}.seg")
        self._map = mapped
        self._write = write
        self._note_lost()

    def _write_reserved(self, data: bytes) -> bool:
        try:
            if not self._in_reserve:
                mapped = self._map_segment(self.directory / "reserve", _RESERVE)
                self._switch(mapped, "reserve", _no_segment)
                self._in_reserve = True
            self._map.write(data)
        except (OSError, ValueError):
            return False
        return True

    def _blame(self, error: OSError) -> None:
        report(
            "spool",
            f"trackdsl cannot write to its spool {self.directory.parent} ({error.strerror or error}): the program goes "
            "on, and what cannot be recorded is counted on its run. Free some space or set TRACKDSL_SPOOL.",
        )

    def _lose(self, run: Losing | None, why: str | None) -> None:
        self.lost += 1
        if run is not None:
            run._lost += 1
        if why is not None:
            report("oversized", f"trackdsl left out {why}.")
        self._note_lost()

    def _note_lost(self) -> None:
        # In the header, where the count survives the death of the process.
        if self.lost:
            with contextlib.suppress(ValueError):
                fmt.LOST.pack_into(self._map, fmt.LOST_OFFSET, self.lost)


#: The file of a journal that notes where its program ended.
ENDED = "ended"
#: Two slots of 32 KiB, see `trackdsl.delivery._progress`.
PROGRESS_SIZE = 64 * 1024


def _no_segment(_data: bytes) -> int:
    raise ValueError("no segment is open")


def _allocate(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _fill(descriptor, size)
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
