"""How much of a journal is delivered: the file `progress` in its folder, with two slots that are never half written.

Each slot is a length, a CRC-32 and a MessagePack record with a count. Among the slots with a correct checksum, the one
with the higher count is valid. The space is allocated with the journal, so that progress can be written on a full disk.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from pathlib import Path

import msgspec

from trackdsl._core.decoders import msgpack_decoder
from trackdsl.journal._files import open_regular
from trackdsl.journal._format import PROGRESS_SIZE
from trackdsl.journal._segments import START, Position

_SLOT = PROGRESS_SIZE // 2
_HEAD = struct.Struct("<II")
_NAME = "progress"


class Progress(msgspec.Struct, array_like=True):
    """The progress of a journal's delivery.

    Attributes:
        count: increases with every note.
        segment, offset: everything before is delivered.
        intent_segment, intent_offset: everything before may have been sent.
        events: how many events are delivered.
        damaged: how many damaged records were skipped.
        unknown: how many events belong to unknown runs.
        deferred: how many artifacts wait for their store, and events for their runs.
        blocked_since: when delivery began to fail, in nanoseconds since 1970; 0 while it works.
        error: why delivery fails, or what was refused last.
        points: the latest time assigned to each metric point that a later one could equal, see `TimestampDedup`.
        clock: the latest time of a metric point, in milliseconds since 1970.
        failures: how often delivery has failed.
        held: how many events wait for runs that another machine delivers.
        blocked: how many runs are blocked, see `blocked_runs`.
        missing: the segments, and ends of segments, that were missing.
        refused: how many items the store refused: fields, artifacts, everything for a deleted run.
    """

    count: int = 0
    segment: int = 0
    offset: int = 0
    intent_segment: int = 0
    intent_offset: int = 0
    events: int = 0
    damaged: int = 0
    unknown: int = 0
    deferred: int = 0
    blocked_since: int = 0
    error: str = ""
    points: list[tuple[bytes, str, int, float, int]] = []
    clock: int = 0
    failures: int = 0
    held: int = 0
    blocked: int = 0
    missing: list[str] = []
    refused: int = 0

    @property
    def position(self) -> Position:
        """The position before which everything is delivered."""
        return Position(self.segment, self.offset)

    @property
    def intent(self) -> Position:
        """The position before which everything may have been sent."""
        return Position(self.intent_segment, self.intent_offset)


class ProgressFile:
    """The `progress` file of a journal.

    Args:
        directory: the journal's folder.
        write: whether it will be written to.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, directory: Path, *, write: bool = False) -> None:
        self._directory = directory
        self._for_writing = write
        self._open: mmap.mmap | None = self._map()

    def read(self) -> Progress:
        """The latest valid note; an empty one if there is none."""
        found = [slot for slot in (self._slot(0), self._slot(1)) if slot is not None]
        return max(found, key=lambda progress: progress.count, default=Progress())

    def write(self, progress: Progress) -> None:
        """Write the progress; it survives the death of this process."""
        progress.count += 1
        payload = _encode(progress)
        kept = progress.points
        while len(payload) > _SLOT - _HEAD.size:
            # Points that are not remembered could collide only if delivery died at this moment.
            kept = kept[len(kept) // 2 :]
            payload = _encode(msgspec.structs.replace(progress, points=kept, error=progress.error[:200]))
        start = (progress.count % 2) * _SLOT
        slot = _HEAD.pack(len(payload), zlib.crc32(payload)) + payload
        self._mapped()[start : start + len(slot)] = slot

    def to_disk(self) -> None:
        """Flush it to the disk, before segments are removed that it marks as delivered."""
        self._mapped().flush()

    def close(self) -> None:
        """Close the file until it is used again: a mapping holds a descriptor too."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _mapped(self) -> mmap.mmap:
        if self._open is None:
            try:
                self._open = self._map()
            except FileNotFoundError:  # The journal was deleted meanwhile; the rest of it is still delivered.
                self._open = mmap.mmap(-1, PROGRESS_SIZE)
        return self._open

    def _map(self) -> mmap.mmap:
        write = self._for_writing
        descriptor = open_regular(self._directory / _NAME, os.O_RDWR | os.O_CREAT if write else os.O_RDONLY)
        try:
            if write and os.fstat(descriptor).st_size < PROGRESS_SIZE:
                os.ftruncate(descriptor, PROGRESS_SIZE)
            protection = mmap.PROT_READ | (mmap.PROT_WRITE if write else 0)
            return mmap.mmap(descriptor, PROGRESS_SIZE, prot=protection)
        finally:
            os.close(descriptor)

    def _slot(self, number: int) -> Progress | None:
        start = number * _SLOT
        mapped = self._mapped()
        length, check = _HEAD.unpack_from(mapped, start)
        if not 0 < length <= _SLOT - _HEAD.size:
            return None
        payload = mapped[start + _HEAD.size : start + _HEAD.size + length]
        if zlib.crc32(payload) != check:
            return None
        try:
            progress: Progress = msgpack_decoder(Progress).decode(payload)
            return progress
        except (msgspec.MsgspecError, RecursionError):
            return None


_encode = msgspec.msgpack.Encoder().encode


def read_progress(directory: Path) -> Progress | None:
    """The progress of a journal; None if the journal is gone."""
    try:
        file = ProgressFile(directory)
    except (OSError, ValueError):
        return None
    try:
        return file.read()
    finally:
        file.close()


__all__ = ["START", "Progress", "ProgressFile", "read_progress"]
