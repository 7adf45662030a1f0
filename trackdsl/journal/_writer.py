"""Appending to a journal: each event is copied into a memory-mapped file.

The kernel owns the mapped pages, so copied data survives the death of the process. `mmap.write` copies and advances in
one C call: this makes an append atomic for threads and signal handlers without a lock. The lock below guards only the
change of segment.
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

from trackdsl._core.events import SCHEMA
from trackdsl.errors import report
from trackdsl.journal import _format as fmt
from trackdsl.journal._allocation import ExpectedFile, Segment, advice, allocate
from trackdsl.journal._files import write_private
from trackdsl.journal._limits import limits
from trackdsl.journal._lock import FileLock
from trackdsl.journal._spare_segments import SpareSegments

_pack = fmt.FRAME.pack
_crc32 = zlib.crc32
_MARKER = fmt.MARKER


class LossCounter(Protocol):
    """Counts events that could not be written."""

    lost: int


class Writer:
    """The journal of one process for one target. Use `Writer.create`."""

    def __init__(self, directory: Path, lock: FileLock, salt: int) -> None:
        self.directory = directory
        self.lost = 0
        self._lock = lock
        self._salt = salt
        self._number = 0
        # Re-entrant: a signal handler of the same thread may record during a change of segment.
        self._rotation = threading.RLock()
        self._rotating = False
        self._pending: deque[tuple[bytes, LossCounter | None, bool]] = deque()
        self._retry_at = 0
        self._pause = limits().full_disk_retry
        self._spares = SpareSegments(directory, limits())
        self._in_reserve = False
        #: Makes another journal if this one was deleted, and returns its writer.
        self.replace: Callable[[], Writer | None] = lambda: None
        self._successor: Writer | None = None
        # The files that delivery needs to find the events; empty while they change.
        self._files: tuple[ExpectedFile, ...] = ()
        self._lock_file: ExpectedFile | None = None
        self._map: mmap.mmap
        self._write: Callable[[bytes], int] = _no_segment

    @classmethod
    def create(cls, directory: Path, describe: Callable[[Path], None] = lambda _: None) -> Writer:
        """Create a journal in `directory`, which must not exist.

        Args:
            directory: the journal's folder.
            describe: adds other files to the folder before it becomes visible.

        Raises:
            OSError: the folder cannot be created, locked or filled.
        """
        # Under a hidden name until it is locked, so that delivery never sees it unlocked.
        hidden = directory.with_name("." + directory.name)
        hidden.mkdir(mode=0o700)
        lock = FileLock(hidden / "lock")
        try:
            if not lock.acquire():
                raise OSError(errno.EBUSY, "another process holds the lock of the new journal", str(directory))
            lock_state = os.stat(lock.path)
            writer = cls(hidden, lock, int.from_bytes(os.urandom(4), "little"))
            allocate(hidden / "progress", fmt.PROGRESS_SIZE).map.close()
            first = writer._spares.open_first()
            writer._begin(first)
            writer._switch(first, first.map.write)
            describe(hidden)
            os.rename(hidden, directory)
            lock.path = directory / "lock"
        except BaseException:
            import shutil

            lock.release()
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        writer.directory = writer._spares.directory = directory
        writer._lock_file = ExpectedFile("lock", (lock_state.st_dev, lock_state.st_ino))
        writer._files = (writer._lock_file, ExpectedFile("000001.seg", first.identity))
        writer.prepare()
        return writer

    def append(self, payload: bytes, run: LossCounter | None = None, vital: bool = False) -> None:
        """Write one event. When this returns, the event survives the death of this process.

        Args:
            payload: the encoded event.
            run: counts the loss if the event cannot be written.
            vital: whether the event may use the space reserved for a full disk.
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

    def appended_since(self, number: int, offset: int, limit: int) -> tuple[list[bytes], list[int]]:
        """Up to `limit` events that were appended behind a position, without a look at the file.

        Args:
            number: the position's segment.
            offset: its offset.
            limit: the largest number of events.

        Returns:
            the encoded events and the offsets behind them; none if another segment has begun since.
        """
        with self._rotation, contextlib.suppress(ValueError):  # A signal handler may have begun another segment here.
            if number == self._number:
                return fmt.valid_frames(self._map, offset, self._salt, limit)
        return [], []

    def mark_end(self) -> None:
        """Mark that the program ended normally: another machine may be unable to see whether the lock is free.

        The mark holds the position behind the last event, so a later event makes it void.
        """
        with contextlib.suppress(OSError):  # Without space, another machine cannot know it.
            number, offset = self.position()
            write_private(self.directory / fmt.ENDED, f"{number} {offset}\n".encode())

    def is_current(self) -> bool:
        """Whether delivery can still find the journal: its folder, its lock and its latest segment."""
        while True:
            files = self._files
            if all(file.holds(self.directory) for file in files):
                return True
            if files is self._files:
                return False

    def prepare(self) -> None:
        """Open the next segment and the reserve if they are missing; if that fails, a later call tries again."""
        with self._rotation:
            if self._rotating:
                return
            self._rotating = True
            try:
                self._spares.refill(reserve=not self._in_reserve)
            finally:
                self._rotating = False
            self._write_pending()

    def close(self, successor: Writer | None = None) -> None:
        """Release the lock. Delivery then ends the runs that are still open as `KILLED`.

        Args:
            successor: gets the events of threads that have not noticed yet.
        """
        self._successor = successor
        with self._rotation:
            self._write = _no_segment
            self._retry_at = 1 << 63
            self._spares.remove_next()
            self._spares.close()
        self._lock.release()

    def forget(self) -> None:
        """In a forked child: give up the inherited journal without changing what belongs to the parent."""
        self._write = _no_segment
        self._retry_at = 1 << 63
        self._spares.close()
        self._lock.abandon()

    def _spill(self, data: bytes, run: LossCounter | None, vital: bool) -> None:
        # Not during a change of segment, which holds a lock that the replacement needs.
        successor = self._successor or (None if self._rotating or self.is_current() else self.replace())
        if successor is not None:
            successor.append(data[fmt.FRAME.size :], run, vital)
            return
        with self._rotation:
            self._pending.append((data, run, vital))
            if not self._rotating:  # Otherwise the interrupted call writes it.
                self._write_pending()

    def _write_pending(self) -> None:
        while self._pending:
            self._rotating = True
            try:
                self._write_or_rotate(*self._pending.popleft())
            finally:
                self._rotating = False

    def _write_or_rotate(self, data: bytes, run: LossCounter | None, vital: bool) -> None:
        try:
            self._write(data)
            return
        except ValueError:
            if len(data) > fmt.MAX_PAYLOAD:
                self._lose(run, f"an event of {len(data)} bytes, which is too large for the journal")
                return
        try:
            segment = self._next_segment(fmt.HEADER_SIZE + len(data))
            if segment is not None:
                self._continue_in(segment, data)
                return
        except OSError as error:
            self._retry_at = time.monotonic_ns() + self._pause
            self._blame(error)
        if not (vital and self._write_reserved(data)):
            self._lose(run, None)

    def _next_segment(self, needed: int) -> Segment | None:
        """A segment of at least this size; None if the last attempt failed a moment ago.

        Raises:
            OSError: the disk is full, or no descriptor is free.
        """
        segment = self._spares.take_next(needed)
        if segment is not None or time.monotonic_ns() < self._retry_at:
            return segment
        return self._spares.open_now(needed)

    def _continue_in(self, segment: Segment, data: bytes) -> None:
        self._begin(segment)
        # First, before other threads can see the segment and fill it.
        segment.map.write(data)
        self._switch(segment, segment.map.write)
        self._in_reserve = False
        self._spares.refill(reserve=True)

    def _begin(self, segment: Segment) -> None:
        header = fmt.Header(SCHEMA, self._number + 1, self._salt, time.time_ns(), segment.size)
        segment.map.write(header.pack())

    def _switch(self, segment: Segment, write: Callable[[bytes], int]) -> None:
        # Close the old segment, then show the new one: a reader that sees the next segment knows that no write can
        # follow.
        if self._number:
            fmt.END.pack_into(self._map, fmt.END_OFFSET, self._map.tell())
            self._map.close()
        self._map = segment.map
        self._number += 1
        known, self._files = self._files, ()
        name = f"{self._number:06d}.seg"
        try:
            os.rename(self.directory / segment.name, self.directory / name)
        except OSError:  # If the folder was just deleted, the next check notices.
            self._files = known
            raise
        self._write = write
        if self._lock_file is not None:
            self._files = (self._lock_file, ExpectedFile(name, segment.identity))
        self._write_lost()

    def _write_reserved(self, data: bytes) -> bool:
        try:
            segment = self._spares.take_reserve()
            if segment is not None:
                self._in_reserve = True
                self._begin(segment)
                self._switch(segment, _no_segment)
            if not self._in_reserve:
                return False
            self._map.write(data)
        except (OSError, ValueError):
            return False
        return True

    def _blame(self, error: OSError) -> None:
        report(
            "spool",
            f"trackdsl cannot write to its spool {self.directory.parent} ({error.strerror or error}): the program "
            f"continues, and events that cannot be recorded are counted on their runs. {advice(error)}",
            key=str(error.errno),
        )

    def _lose(self, run: LossCounter | None, why: str | None) -> None:
        self.lost += 1
        if run is not None:
            run.lost += 1
        if why is not None:
            report("oversized", f"trackdsl left out {why}.")
        self._write_lost()

    def _write_lost(self) -> None:
        # In the header, where the count survives the death of the process.
        if self.lost:
            with contextlib.suppress(ValueError):
                fmt.LOST.pack_into(self._map, fmt.LOST_OFFSET, self.lost)


def _no_segment(_data: bytes) -> int:
    raise ValueError("no segment is open")
