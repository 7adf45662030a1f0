"""Reading a journal, whatever state its writer left it in.

A frame that does not check is skipped up to the next frame that does, and counted. In the segment that a living
program is writing, an unsound end may be a write in progress: it is left for the next look.

Segments, and ends of segments, that should be there and are not are reported too. Each segment says how large it was
made, and, once the writer has gone on to the next one, how far it was written.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from trackdsl._core import events
from trackdsl.journal import _format as fmt
from trackdsl.journal._files import NoRegularFile, is_regular, open_regular


class Position(NamedTuple):
    """A place between two events: segment number and offset in it."""

    segment: int
    offset: int


START = Position(0, 0)
#: The offset behind a segment that is gone.
_GONE = 1 << 48
#: Names of a segment before it has its number.
_UNNUMBERED = ("next", "larger", "reserve")
_SEGMENT = re.compile(r"([0-9]{6}|[1-9][0-9]{6,17})\.seg")
#: In bytes: more than the largest event and the rest of a segment take. A larger file is damage.
LARGEST = 4 * fmt.MAX_PAYLOAD


@dataclass(frozen=True)
class Entry:
    """One event and the position behind it.

    Attributes:
        event: the event; None for damage that was skipped.
        end: the position behind it.
        missing: where a whole stretch of the journal is gone, what it is, such as "segment 2".
    """

    event: events.AnyEvent | None
    end: Position
    missing: str = ""


class Reader:
    """Reads one journal from a position on.

    Args:
        directory: the journal's folder.
        position: where to start; `START` for the beginning.

    Attributes:
        position: behind the last event that was read.
        newer_schema: the schema version of a segment that is too new to be read, or None.
    """

    def __init__(self, directory: Path, position: Position = START) -> None:
        self.directory = directory
        self.position = position
        self.newer_schema: int | None = None
        self._open: tuple[int, mmap.mmap] | None = None

    def read(self, limit: int, *, writer_alive: bool) -> Iterator[Entry]:
        """Yield up to `limit` entries that have not been read yet.

        Args:
            limit: entries at most.
            writer_alive: whether an unsound end may still be a write in progress.
        """
        for _ in range(limit):
            entry = self._next(writer_alive)
            if entry is None:
                return
            self.position = entry.end
            yield entry

    def at_end(self) -> bool:
        """Whether nothing is left to read right now, as far as a glance can tell."""
        if self._successor() is not None:
            return False
        number, offset = self.position
        if self._open is not None and self._open[0] == number:
            return not any(self._open[1][offset : offset + fmt.FRAME.size])
        # Nothing is mapped only for a glance: of many journals that are quiet, none is to hold a file.
        return not any(self._glance(number, offset))

    def lost(self) -> int:
        """How many events the writer could not write, as noted in the latest segment."""
        numbers = segments(self.directory)
        data = self._data(numbers[-1]) if numbers else None
        return fmt.LOST.unpack_from(data, fmt.LOST_OFFSET)[0] if data and len(data) >= fmt.HEADER_SIZE else 0

    def close(self) -> None:
        """Unmap the segment."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _next(self, writer_alive: bool) -> Entry | None:
        while True:
            number, offset = self.position
            # The successor must be looked for before the data: see Writer._switch.
            successor = self._successor()
            data = self._data(number)
            sealed = successor is not None or not writer_alive
            if data is not None and offset < _GONE:
                header = fmt.Header.unpack(data[: fmt.HEADER_SIZE])
                if header is not None and header.schema > events.SCHEMA:
                    self.newer_schema = header.schema
                    return None
                if header is None and not sealed:
                    return None
                if header is not None and header.number == number:
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
        """The end of a segment where that is missing and `entry` is all that comes before it, or nothing is."""
        number, offset = self.position
        rest = entry is None or (entry.event is None and entry.end.offset == len(data))
        if not sealed or not rest:
            return None
        (end,) = fmt.END.unpack_from(data, fmt.END_OFFSET)
        if not end and len(data) < header.size and len(data) - offset < fmt.FRAME.size:
            end = header.size  # What was there nobody knows; with zeros behind the last event it would be all.
        if max(offset, fmt.HEADER_SIZE) >= end or (entry is not None and len(data) >= end):
            return None
        return Entry(None, Position(number, end), f"the end of segment {number}")

    def _gap(self, data: mmap.mmap | None, successor: int | None) -> Entry | None:
        """What is missing between the position, where all has been read, and the next segment that there is."""
        number, offset = self.position
        if data is None and number and offset < _GONE:
            return Entry(None, Position(number, _GONE), f"segment {number}")
        if successor is None:
            if number and (data is None or not self._went_on(data, number + 1)):
                return None
            return Entry(None, Position(number + 1, _GONE), f"segment {number + 1}")
        first, last = number + 1, successor - 1
        if first > last:
            return None
        what = f"segment {first}" if first == last else f"segments {first} to {last}"
        return Entry(None, Position(last, _GONE), what)

    def _went_on(self, data: mmap.mmap, number: int) -> bool:
        """Whether the writer had gone on to a segment, and did not die just before that had its name."""
        if len(data) < fmt.HEADER_SIZE or not fmt.END.unpack_from(data, fmt.END_OFFSET)[0]:
            return False
        for name in _UNNUMBERED:
            with contextlib.suppress(OSError):
                header = fmt.Header.unpack(_beginning(self.directory / name))
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
        if current and is_regular(self.directory / f"{current + 1:06d}.seg"):
            return current + 1
        following = next((number for number in segments(self.directory) if number > current), None)
        # A folder is not listed in one moment: the next segment may have come after the listing had passed its place.
        if following != current + 1 and is_regular(self.directory / f"{current + 1:06d}.seg"):
            return current + 1
        return following

    def _glance(self, number: int, offset: int) -> bytes:
        if number == 0:
            return b""
        try:
            descriptor = open_regular(self.directory / f"{number:06d}.seg")
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
            descriptor = open_regular(self.directory / f"{number:06d}.seg")
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
    """What is missing where nothing of a segment can be read: without its header nothing can be told from chance."""
    if header is None:
        return f"segment {number} (its header is damaged)"
    return f"segment {number} (its file holds segment {header.number})"  # Whose events would be read twice.


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


def segments(directory: Path) -> list[int]:
    """The numbers of a journal's segments, in order."""
    try:
        with os.scandir(directory) as found:
            names = [entry.name for entry in found if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for match in map(_SEGMENT.fullmatch, names) if match)


def missing_segments(directory: Path, position: Position) -> list[int]:
    """The numbers of segments that should be there, for all that is not delivered: between others, or partly read."""
    found = segments(directory)
    first = position.segment or 1
    if position.offset >= _GONE:  # It was missed already.
        first += 1
    return [number for number in range(first, max([position.segment, *found]) + 1) if number not in found]


def _beginning(path: Path) -> bytes:
    with open(open_regular(path), "rb") as file:
        return file.read(fmt.HEADER_SIZE)


def newer_schema(directory: Path) -> int | None:
    """The version of a journal's events where it is too new to be read, or None. A program writes one version alone."""
    for number in segments(directory)[:1]:
        try:
            header = fmt.Header.unpack(_beginning(directory / f"{number:06d}.seg"))
        except OSError:
            return None
        return header.schema if header is not None and header.schema > events.SCHEMA else None
    return None


def read_all(directory: Path) -> list[events.AnyEvent]:
    """Every event of a journal that can be read now."""
    reader = Reader(directory)
    try:
        entries = list(reader.read(1 << 62, writer_alive=False))
    finally:
        reader.close()
    return [entry.event for entry in entries if entry.event is not None]
