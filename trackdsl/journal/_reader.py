"""Reading a journal, whatever state its writer left it in.

A frame that does not check is skipped up to the next frame that does, and counted. In the segment that a living
program is writing, an unsound end may be a write in progress: it is left for the next look.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from trackdsl import _events as events
from trackdsl.journal import _format as fmt
from trackdsl.journal._files import NoRegularFile, is_regular, open_regular


class Position(NamedTuple):
    """A place between two events: segment number and offset in it."""

    segment: int
    offset: int


START = Position(0, 0)
_SEGMENT = re.compile(r"([0-9]{6}|[1-9][0-9]{6,17})\.seg")
#: In bytes: more than the largest event and the rest of a segment take. A larger file is damage.
LARGEST = 4 * fmt.MAX_PAYLOAD


@dataclass(frozen=True)
class Entry:
    """One event and the position behind it. `event` is None for damage that was skipped."""

    event: events.AnyEvent | None
    end: Position


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
        data = self._data(self.position.segment)
        return data is None or not any(data[self.position.offset : self.position.offset + fmt.FRAME.size])

    def lost(self) -> int:
        """How many events the writer could not write, as noted in the latest segment."""
        numbers = segments(self.directory)
        data = self._data(numbers[-1]) if numbers else None
        return fmt.LOST.unpack_from(data, fmt.LOST_OFFSET)[0] if data else 0

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
            if data is not None:
                header = fmt.Header.unpack(data[: fmt.HEADER_SIZE])
                if header is None:
                    if successor is None and writer_alive:
                        return None
                    return self._skip_segment(data)
                if header.schema > events.SCHEMA:
                    self.newer_schema = header.schema
                    return None
                sealed = successor is not None or not writer_alive
                entry = self._entry(data, number, max(offset, fmt.HEADER_SIZE), header.salt, sealed)
                if entry is not None:
                    return entry
            if successor is None:
                return None
            self.position = Position(successor, fmt.HEADER_SIZE)

    def _skip_segment(self, data: mmap.mmap) -> Entry | None:
        # Without its header a segment has no salt, so nothing in it can be told from chance.
        number, offset = self.position
        if offset >= len(data):
            return None
        return Entry(None, Position(number, len(data)))

    def _entry(self, data: mmap.mmap, number: int, offset: int, salt: int, sealed: bool) -> Entry | None:
        with memoryview(data) as view:
            payload = fmt.read_frame(view, offset, salt)
            if payload is not None:
                end = Position(number, offset + fmt.FRAME.size + len(payload))
                try:
                    return Entry(events.decode(payload), end)
                except msgspec.MsgspecError:
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
        return next((number for number in segments(self.directory) if number > current), None)

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


def newer_schema(directory: Path) -> int | None:
    """The version of a journal's events where it is too new to be read, or None. A program writes one version alone."""
    for number in segments(directory)[:1]:
        try:
            with open(open_regular(directory / f"{number:06d}.seg"), "rb") as file:
                header = fmt.Header.unpack(file.read(fmt.HEADER_SIZE))
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
