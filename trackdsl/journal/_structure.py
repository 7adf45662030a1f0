"""Reading only the tree of runs from a journal: a program may record points faster than a display can read them.

The events that begin and end runs are found by their first bytes, at the speed of a search in memory, and each one is
checked by its checksum. Everything else is passed over without decoding it.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec

from trackdsl._core import events
from trackdsl.journal import _format as fmt
from trackdsl.journal._reader import Reader
from trackdsl.journal._segments import Position

#: A frame whose payload begins with an array, of up to 15 elements or of more.
_EVENT = re.escape(fmt.MARKER_BYTES) + rb".{8}(?:[\x90-\x9f]|\xdc..)"
#: The tag of `Open`, `Close`, `Adopt` or `Loop` follows.
_STRUCTURE = re.compile(_EVENT + rb"[\x01\x07\x08\x0f]", re.DOTALL)

#: More bytes than a pattern takes.
_PATTERN = 64
#: For more runs than this, the pattern matches any id: it would try one id after the other, which takes longer than
#: decoding the events of all runs.
_FEW = 50


def open_events_of(ids: Collection[bytes]) -> re.Pattern[bytes]:
    """A pattern for `skim` that finds the events that begin certain runs, and perhaps some of other runs."""
    some = b"|".join(map(re.escape, ids)) if len(ids) <= _FEW else b".{16}"
    return re.compile(_EVENT + rb"\x01\xc4\x10(?:" + some + rb")", re.DOTALL)


def skim(reader: Reader, tail: int = 0, wanted: re.Pattern[bytes] = _STRUCTURE) -> list[events.AnyEvent]:
    """Pass over the rest of a reader's segment, up to its end or up to its last bytes.

    Args:
        reader: the journal; its position is moved. It finds the next event from there by itself.
        tail: how many bytes before the last event are left to read.
        wanted: the first bytes of the frames of what is wanted.

    Returns:
        what is wanted, in order: by default the events that begin and end runs and say how far loops are.
    """
    reader.check_size()
    number, offset = reader.position
    data = reader._data(number)
    header = None if data is None else fmt.Header.unpack(data[: fmt.HEADER_SIZE])
    if data is None or header is None or header.number != number or header.schema > events.SCHEMA:
        return []
    # The rest of a segment is zeros: the last marker is that of the last event, or is inside of it.
    last = max(data.rfind(fmt.MARKER_BYTES, fmt.HEADER_SIZE), 0)
    # At a marker: elsewhere an event may hold zeros, which a reader takes for the end of what is written.
    stop = data.find(fmt.MARKER_BYTES, max(last - tail, 0)) if tail else len(data)
    start = max(offset, fmt.HEADER_SIZE)
    if stop <= start:
        return []
    reader.position = Position(number, stop)
    structure: list[events.AnyEvent] = []
    with memoryview(data) as view:
        for match in wanted.finditer(data, start, stop + _PATTERN):
            if not start <= match.start() < stop:  # Inside of an event: the value of a parameter, for example.
                continue
            payload = fmt.read_frame(view, match.start(), header.salt)
            if payload is None:
                continue
            start = match.start() + fmt.FRAME.size + len(payload)
            try:
                structure.append(events.decode(payload))
            except (msgspec.MsgspecError, RecursionError):
                continue
            finally:
                payload.release()
    if start > stop:  # The last of them ends behind.
        reader.position = Position(number, start)
    return structure
