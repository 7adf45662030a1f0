"""The layout of a segment file: a header and frames.

    header  128 bytes: magic, schema, size in pages, segment number, salt, creation time, CRC-32; a count of lost
            events; the end of the events once the next segment has begun; and a second copy of the fields before the
            count, because nothing of the segment can be read without the salt
    frame   marker (2 bytes), length (4), CRC-32 of the payload started with the salt (4), payload

The file is allocated in advance, so zeros follow the last frame. Because of the salt, a user's value that happens to
contain the bytes of a frame is never read as a frame.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from dataclasses import dataclass

MAGIC = b"tdsl.jnl"
HEADER_SIZE = 128
_HALF = HEADER_SIZE // 2
_HEADER = struct.Struct("<8sHHIIQ")
_CHECK = struct.Struct("<I")
LOST = struct.Struct("<Q")
LOST_OFFSET = 40
#: The offset behind the last event, once the writer has begun the next segment; 0 before.
END = struct.Struct("<Q")
END_OFFSET = 48
#: The size of a segment is a multiple of this.
PAGE = 4096

#: The file next to the segments which notes that the program ended normally.
ENDED = "ended"
#: The size of the file next to the segments that says what is delivered: two slots of 32 KiB, see
#: `trackdsl.store_format.progress`.
PROGRESS_SIZE = 64 * 1024

MARKER = 0xD51E
MARKER_BYTES = struct.pack("<H", MARKER)
FRAME = struct.Struct("<HII")
#: A longer payload means damage: large values are kept as files.
MAX_PAYLOAD = 64 * 1024 * 1024


@dataclass(frozen=True)
class Header:
    """The header of a segment.

    Attributes:
        schema: version of the events inside.
        number: position of the segment in its journal, from 1.
        salt: start value of every checksum.
        created: nanoseconds since 1970.
        size: bytes allocated for it; 0 if an old version wrote it.
    """

    schema: int
    number: int
    salt: int
    created: int
    size: int = 0

    def pack(self) -> bytes:
        """The first `HEADER_SIZE` bytes of the segment."""
        body = _HEADER.pack(MAGIC, self.schema, self.size // PAGE, self.number, self.salt, self.created)
        return 2 * (body + _CHECK.pack(zlib.crc32(body))).ljust(_HALF, b"\0")

    @classmethod
    def unpack(cls, data: bytes) -> Header | None:
        """Read a header; None if both copies are damaged, or the data is something else."""
        if len(data) < HEADER_SIZE:
            return None
        return cls._unpack(data[:_HALF]) or cls._unpack(data[_HALF:])

    @classmethod
    def _unpack(cls, data: bytes) -> Header | None:
        magic, schema, pages, number, salt, created = _HEADER.unpack_from(data)
        (check,) = _CHECK.unpack_from(data, _HEADER.size)
        if magic != MAGIC or zlib.crc32(data[: _HEADER.size]) != check:
            return None
        return cls(schema, number, salt, created, pages * PAGE)


def frame(payload: bytes, salt: int) -> bytes:
    """Wrap a payload for the file."""
    return FRAME.pack(MARKER, len(payload), zlib.crc32(payload, salt)) + payload


def read_frame(data: memoryview, offset: int, salt: int) -> memoryview | None:
    """The payload of the frame at `offset`, or None if there is no whole, valid frame."""
    start = offset + FRAME.size
    if start > len(data):
        return None
    marker, length, check = FRAME.unpack_from(data, offset)
    if marker != MARKER or length > MAX_PAYLOAD or start + length > len(data):
        return None
    payload = data[start : start + length]
    return payload if zlib.crc32(payload, salt) == check else None


def valid_frames(data: mmap.mmap | bytes, offset: int, salt: int, limit: int) -> tuple[list[bytes], list[int]]:
    """The payloads of up to `limit` valid frames that follow an offset, and the offsets behind them."""
    size = len(data)
    unpack, crc, head, expected = FRAME.unpack_from, zlib.crc32, FRAME.size, MARKER
    payloads: list[bytes] = []
    ends: list[int] = []
    last = size - head
    for _ in range(limit):
        if offset > last:
            break
        marker, length, check = unpack(data, offset)
        start = offset + head
        offset = start + length
        if marker != expected or offset > size or length > MAX_PAYLOAD:
            break
        payload = data[start:offset]
        if crc(payload, salt) != check:
            break
        payloads.append(payload)
        ends.append(offset)
    return payloads, ends
