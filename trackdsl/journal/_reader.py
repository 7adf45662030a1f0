"""Reading a journal in whatever state its writer left it.

The reader skips a frame with a wrong checksum up to the next valid frame, and counts it. In the segment that a living
program is writing, an invalid end may be a write in progress: the reader tries it again later.

The reader also reports missing segments and missing ends of segments. Each segment records its size, and, once the
writer has begun the next segment, where its events end.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from trackdsl._core import events
from trackdsl.journal import _format as fmt
from trackdsl.journal._files import NoRegularFile, is_regular, open_regular
from trackdsl.journal._segments import GONE, START, Position, beginning, segment_path, segments

#: How many events are decoded before the first of them is handed on.
_MOST_AT_ONCE = 1000
#: A stretch ends at this many bytes: its events and its change set take about twenty times as much memory.
_MOST_BYTES = 1 << 20
_DONT_NEED: int | None = getattr(mmap, "MADV_DONTNEED", None)
#: File names of a segment before it gets its number.
_UNNUMBERED = ("next", "larger", "reserve")
#: In bytes: more than the largest event and the rest of a segment need. A larger file is damaged.
LARGEST = 4 * fmt.MAX_PAYLOAD


class Entry(NamedTuple):
    """One event and the position behind it.

    Attributes:
        event: the event; None for damage that was skipped.
        end: the position behind it.
        missing: what is missing, such as "segment 2", if a whole part of the journal is.
    """

    event: events.AnyEvent | None
    end: Position
    missing: str = ""


class Reader:
    """Reads one journal, beginning at a position.

    Args:
        directory: the journal's folder.
        position: where to begin; `START` for the beginning.

    Attributes:
        position: behind the last event that was read.
        newer_schema: the schema version of a segment that is too new to read, or None.
    """

    def __init__(self, directory: Path, position: Position = START) -> None:
        self.directory = directory
        self.position = position
        self.newer_schema: int | None = None
        self._open: tuple[int, mmap.mmap] | None = None
        #: The open segment whose header is valid, and the salt of its checksums.
        self._salted: tuple[int, mmap.mmap] | None = None
        self._salt = 0

    def read(self, limit: int, *, writer_alive: bool) -> Iterator[Entry]:
        """Yield up to `limit` entries that have not been read yet.

        Args:
            limit: the largest number of entries.
            writer_alive: whether an invalid end may still be a write in progress.
        """
        while limit > 0 and (entries := self._following(min(limit, _MOST_AT_ONCE), writer_alive)):
            limit -= len(entries)
            for entry in entries:
                self.position = entry.end
                yield entry

    def read_stretch(self, limit: int, *, writer_alive: bool) -> list[Entry]:
        """The next entries as a list, like `read` but faster; at most a few megabytes."""
        self.check_size()
        entries: list[Entry] = []
        size = 0
        while len(entries) < limit and size < _MOST_BYTES:
            following = self._following(min(limit - len(entries), _MOST_AT_ONCE), writer_alive)
            if not following:
                break
            entries += following
            end = following[-1].end
            if end.segment == self.position.segment:
                size += end.offset - self.position.offset
            self.position = end
        self._release()
        return entries

    def check_size(self) -> None:
        """Unmap the segment if somebody has cut its file: reading behind the end of the file kills the process."""
        if self._open is not None and self._open[1].size() < len(self._open[1]):
            self.close()

    def _release(self) -> None:
        """Give back the memory of what was read of the open segment; the file still has it."""
        if self._open is not None and self._open[0] == self.position.segment and _DONT_NEED is not None:
            self._open[1].madvise(_DONT_NEED, 0, min(self.position.offset, len(self._open[1])))

    def _following(self, limit: int, writer_alive: bool) -> list[Entry]:
        entries = self._valid(limit)
        if not entries:
            # Not a whole, valid event: it may be damage, or a write in progress.
            entry = self._next(writer_alive)
            entries = [] if entry is None else [entry]
        return entries

    def _valid(self, limit: int) -> list[Entry]:
        """Up to `limit` events that follow in the open segment, up to the first one that is not valid."""
        number, offset = self.position
        if self._open is None or self._salted != self._open or self._open[0] != number or offset < fmt.HEADER_SIZE:
            return []
        payloads, ends = fmt.valid_frames(self._open[1], offset, self._salt, limit)
        # A named tuple's own constructor takes three times as long, twice for each event.
        new = tuple.__new__
        return [
            new(Entry, (event, new(Position, (number, end)), ""))
            for event, end in zip(events.decode_many(payloads), ends, strict=False)
        ]

    def at_end(self) -> bool:
        """Whether nothing is left to read now, as far as a quick look shows."""
        if self._successor() is not None:
            return False
        number, offset = self.position
        if self._open is not None and self._open[0] == number:
            return not any(self._open[1][offset : offset + fmt.FRAME.size])
        # A quick look maps nothing: there may be many idle journals, and none of them keeps a file open.
        return not any(self._peek(number, offset))

    def lost(self) -> int:
        """The number of events that the writer could not write, as noted in the latest segment."""
        numbers = segments(self.directory)
        data = self._data(numbers[-1]) if numbers else None
        return fmt.LOST.unpack_from(data, fmt.LOST_OFFSET)[0] if data and len(data) >= fmt.HEADER_SIZE else 0

    def close(self) -> None:
        """Unmap the segment."""
        if self._open is not None:
            self._open[1].close()
            self._open = self._salted = None

    def _next(self, writer_alive: bool) -> Entry | None:
        while True:
            number, offset = self.position
            # Look for the next segment before the data: see Writer._switch.
            successor = self._successor()
            data = self._data(number)
            sealed = successor is not None or not writer_alive
            if data is not None and offset < GONE:
                header = fmt.Header.unpack(data[: fmt.HEADER_SIZE])
                if header is not None and header.schema > events.SCHEMA:
                    self.newer_schema = header.schema
                    return None
                if header is None and not sealed:
                    return None
                if header is not None and header.number == number:
                    self._salted, self._salt = self._open, header.salt
                    entry = self._entry(data, number, max(offset, fmt.HEADER_SIZE), header.salt, sealed)
                    entry = self._cut(data, header, entry, sealed) or entry
                    if entry is not None:
                        return entry
                elif offset < (end := max(len(data), fmt.HEADER_SIZE + 1)):
                    return Entry(None, Position(number, end), _why_unreadable(header, number))
            if not sealed:
                return None
            gap = self._gap(data, successor)
            if gap is not None or successor is None:
                return gap
            self.position = Position(successor, fmt.HEADER_SIZE)

    def _cut(self, data: mmap.mmap, header: fmt.Header, entry: Entry | None, sealed: bool) -> Entry | None:
        """The missing end of a segment; None unless `entry` is all that precedes it, or nothing does."""
        number, offset = self.position
        rest = entry is None or (entry.event is None and entry.end.offset == len(data))
        if not sealed or not rest:
            return None
        (end,) = fmt.END.unpack_from(data, fmt.END_OFFSET)
        if not end and len(data) < header.size and len(data) - offset < fmt.FRAME.size:
            end = header.size  # Nobody knows what was there; if zeros follow the last event, nothing was.
        if max(offset, fmt.HEADER_SIZE) >= end or (entry is not None and len(data) >= end):
            return None
        return Entry(None, Position(number, end), f"the end of segment {number}")

    def _gap(self, data: mmap.mmap | None, successor: int | None) -> Entry | None:
        """A text about the missing part between the end of what was read and the next segment."""
        number, offset = self.position
        if data is None and number and offset < GONE:
            return Entry(None, Position(number, GONE), f"segment {number}")
        if successor is None:
            if number and (data is None or not self._began_segment(data, number + 1)):
                return None
            return Entry(None, Position(number + 1, GONE), f"segment {number + 1}")
        first, last = number + 1, successor - 1
        if first > last:
            return None
        what = f"segment {first}" if first == last else f"segments {first} to {last}"
        return Entry(None, Position(last, GONE), what)

    def _began_segment(self, data: mmap.mmap, number: int) -> bool:
        """Whether the writer had begun a segment; it may have died just before it gave the segment its name."""
        if len(data) < fmt.HEADER_SIZE or not fmt.END.unpack_from(data, fmt.END_OFFSET)[0]:
            return False
        for name in _UNNUMBERED:
            with contextlib.suppress(OSError):
                header = fmt.Header.unpack(beginning(self.directory / name))
                if header is not None and header.number == number:
                    return False
        return True

    def _entry(self, data: mmap.mmap, number: int, offset: int, salt: int, sealed: bool) -> Entry | None:
        with memoryview(data) as view:
            payload = fmt.read_frame(view, offset, salt)
            if payload is not None:
                end = Position(number, offset + fmt.FRAME.size + len(payload))
                try:
                    return Entry(events.decode(payload), end)
                except (msgspec.MsgspecError, RecursionError):
                    return Entry(None, end)
                finally:
                    payload.release()
            if offset >= len(data) or (_all_zero(data, offset, offset + fmt.FRAME.size) and not sealed):
                return None
            following = _next_frame(data, view, offset + 1, salt)
            if following is not None:
                if _is_frame(view, offset, salt):  # It was being written a moment ago.
                    return self._entry(data, number, offset, salt, sealed)
                return Entry(None, Position(number, following))
            if not sealed or _all_zero(data, offset, len(data)):
                return None
            return Entry(None, Position(number, len(data)))

    def _successor(self) -> int | None:
        current = self.position.segment
        if current and is_regular(segment_path(self.directory, current + 1)):
            return current + 1
        following = next((number for number in segments(self.directory) if number > current), None)
        # Listing a folder takes time: the next segment may have appeared after the listing had passed its position.
        if following != current + 1 and is_regular(segment_path(self.directory, current + 1)):
            return current + 1
        return following

    def _peek(self, number: int, offset: int) -> bytes:
        if number == 0:
            return b""
        try:
            descriptor = open_regular(segment_path(self.directory, number))
        except FileNotFoundError:
            return b""
        try:
            return os.pread(descriptor, fmt.FRAME.size, offset)
        finally:
            os.close(descriptor)

    def _data(self, number: int) -> mmap.mmap | None:
        if self._open is not None and self._open[0] == number:
            return self._open[1]
        self.close()
        if number == 0:
            return None
        try:
            descriptor = open_regular(segment_path(self.directory, number))
        except (FileNotFoundError, NoRegularFile):
            return None
        try:
            if not 0 < os.fstat(descriptor).st_size <= LARGEST:
                return None
            self._open = number, mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        return self._open[1]


def _why_unreadable(header: fmt.Header | None, number: int) -> str:
    """A text about a segment that is unreadable: without its header, frames look like any other bytes."""
    if header is None:
        return f"segment {number} (its header is damaged)"
    return f"segment {number} (its file holds segment {header.number})"  # Its events would be read twice.


def _next_frame(data: mmap.mmap, view: memoryview, start: int, salt: int) -> int | None:
    while (start := data.find(fmt.MARKER_BYTES, start)) >= 0:
        if _is_frame(view, start, salt):
            return start
        start += 1
    return None


def _is_frame(view: memoryview, offset: int, salt: int) -> bool:
    payload = fmt.read_frame(view, offset, salt)
    if payload is None:
        return False
    payload.release()
    return True


def _all_zero(data: mmap.mmap, start: int, stop: int) -> bool:
    chunk = 1 << 16
    return all(not data[at : min(at + chunk, stop)].strip(b"\0") for at in range(start, stop, chunk))


def read_all(directory: Path) -> list[events.AnyEvent]:
    """Every event of a journal that can be read now."""
    reader = Reader(directory)
    try:
        entries = list(reader.read(1 << 62, writer_alive=False))
    finally:
        reader.close()
    return [entry.event for entry in entries if entry.event is not None]
