"""How much of a journal is not delivered, for progress bars and `trackdsl status`."""

from __future__ import annotations

from pathlib import Path

from trackdsl.journal._files import read_regular
from trackdsl.journal._format import HEADER_SIZE
from trackdsl.journal._reader import LARGEST
from trackdsl.journal._segments import START, Position, segment_path, segments
from trackdsl.store_format import ledger
from trackdsl.store_format.progress import Progress


def end_of(directory: Path) -> Position:
    """The position behind the last event of a journal at this moment."""
    # The rest of a segment is zeros. An event may end in zeros too. That makes no difference to comparisons: no
    # position is between its last other byte and its end.
    for number in reversed(segments(directory)):
        try:
            size = len(read_regular(segment_path(directory, number), LARGEST).rstrip(b"\0"))
        except OSError:
            continue
        if size > HEADER_SIZE:
            return Position(number, size)
    return START


def bytes_between(directory: Path, start: tuple[int, int], end: tuple[int, int]) -> int:
    """Bytes of events between two positions of a journal."""
    if end <= start:
        return 0
    if start[0] == end[0]:
        return end[1] - max(start[1], HEADER_SIZE)
    middle = [number for number in segments(directory) if start[0] <= number < end[0]]
    sizes = 0
    for number in middle:
        try:
            size = segment_path(directory, number).stat().st_size
        except OSError:
            continue
        sizes += size - (max(start[1], HEADER_SIZE) if number == start[0] else HEADER_SIZE)
    return sizes + max(end[1] - HEADER_SIZE, 0)


def delivery_state(directory: Path, progress: Progress) -> object:
    """A value that changes whenever the delivery of a journal makes progress.

    Delivery may note runs in the ledger, one by one, before a stretch of events counts as done.
    """
    try:
        noted = (directory / ledger.NAME).stat().st_size
    except OSError:
        noted = 0
    return progress.position, progress.intent, progress.deferred, noted
