"""The file `aside` in a journal's folder: events that delivery holds back until their runs can be delivered.

A sequence of frames: length, position in the journal, event. A frame without an event marks an event that was delivered
from here, and may be read from the journal once more. Metric points that may have been sent keep their assigned
milliseconds: such a frame has the highest bit of its length set, and holds these and the event.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import msgspec

from trackdsl._core import events
from trackdsl.journal._files import read_regular
from trackdsl.journal._reader import Position

#: The file's name.
NAME = "aside"
_HEAD = struct.Struct("<IIQ")
_TIMED = 1 << 31


class HeldEvent(NamedTuple):
    """An event that is held back.

    Attributes:
        event: the event.
        end: the position behind it in the journal.
        times: the milliseconds that were assigned to its metric points, if any.
    """

    event: events.AnyEvent
    end: Position
    times: tuple[int, ...] = ()


def read_held(directory: Path) -> list[HeldEvent]:
    """The held events of a journal, read from outside: nothing is changed."""
    try:
        return parse(read_regular(directory / NAME))[0]
    except OSError:
        return []


def frame(held: HeldEvent) -> bytes:
    """A held event in the format of the file."""
    payload = events.encode(held.event)
    if not held.times:
        return _HEAD.pack(len(payload), *held.end) + payload
    payload = msgspec.msgpack.encode((held.times, payload))
    return _HEAD.pack(len(payload) | _TIMED, *held.end) + payload


def delivered_frame(end: Position) -> bytes:
    """The frame that marks a held event as delivered; `end` is the position behind it."""
    return _HEAD.pack(0, *end)


def parse(content: bytes) -> tuple[list[HeldEvent], set[Position], int]:
    """The held events, the positions of delivered ones, and the offset behind the last whole frame."""
    found: list[HeldEvent] = []
    delivered: set[Position] = set()
    offset = 0
    while offset + _HEAD.size <= len(content):
        length, *end = _HEAD.unpack_from(content, offset)
        stop = offset + _HEAD.size + (length & ~_TIMED)
        try:
            if length:
                found.append(_unframe(content[offset + _HEAD.size : stop], Position(*end), timed=bool(length & _TIMED)))
            else:
                delivered.add(Position(*end))
        except (msgspec.MsgspecError, RecursionError):
            break
        offset = stop
    return found, delivered, offset


def _unframe(payload: bytes, end: Position, *, timed: bool) -> HeldEvent:
    if not timed:
        return HeldEvent(events.decode(payload), end)
    times, event = _decode_timed(payload)
    return HeldEvent(events.decode(event), end, times)


_decode_timed = msgspec.msgpack.Decoder(tuple[tuple[int, ...], bytes]).decode
