"""Following a run of this program from its journal: what a live display shows, without a store and without a hook."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TypeVar

from trackdsl._core import events
from trackdsl.journal import _format as fmt
from trackdsl.journal._reader import Reader
from trackdsl.journal._replay import Point, RecordedRun, Replay
from trackdsl.journal._segments import Position
from trackdsl.journal._writer import Writer

T = TypeVar("T")

#: Points of one metric that are kept, at least half of them; enough for a curve that is as wide as a page.
MOST_POINTS = 512
#: Events between two looks at the clock.
_MOST_AT_ONCE = 500
#: What is read in any case, in bytes before the end: some hundred events.
_TAIL = 32_768
#: Events of files, which are not followed.
_FILES = (events.File, events.Model, events.Table)


class Thinned(list[T]):
    """The first, the last, and evenly spread points of a metric: a curve of any length in bounded memory.

    Args:
        most: fewer points than this are kept, and at least half of it; it is even.

    Attributes:
        total: how many points were appended.

    Example:
        >>> points = Thinned()
        >>> for step in range(10_000):
        ...     points.append(step / 2)
        >>> len(points) <= MOST_POINTS, points[0], points[-1], points.total
        (True, 0.0, 4999.5, 10000)
    """

    def __init__(self, most: int = MOST_POINTS) -> None:
        super().__init__()
        self.total = 0
        self._most = most
        self._stride = 1

    def append(self, point: T) -> None:
        """Add a point; it replaces the last one, unless that one is to be kept."""
        if self and (self.total - 1) % self._stride:
            self[-1] = point
        else:
            super().append(point)
        self.total += 1
        if len(self) == self._most:
            del self[1::2]
            self._stride *= 2
            if self[-1] is not point:
                super().append(point)


class ThinnedPoints(Thinned[Point]):
    """The points of a metric with their steps and times."""


class Follower:
    """Follows one run of this program, from its journal, at a bounded cost.

    Each reading takes no more CPU time than it is given: a program may record faster than it can be read, and
    reading takes time from it. If there is more to read, the middle is left out; the end, which has the latest values,
    is read.

    Delivery removes segments that it has delivered. What is in a segment that was removed before it was read here is
    left out too; this concerns only a display.

    Args:
        writer: the journal.
        run: the run's id. It has just begun.
        opening: the event that began it, encoded.

    Attributes:
        recorded: what was recorded, as far as it was read, without files.
        left_out: whether something was left out.
    """

    def __init__(self, writer: Writer, run: bytes, opening: bytes) -> None:
        self._writer = writer
        self._run = run
        self._reader = Reader(writer.directory, Position(*writer.position()))
        replay = Replay(ThinnedPoints)
        replay.add(events.decode(opening), writer.directory)
        self._replay = replay
        recorded = replay.run(run)
        assert recorded is not None
        self.recorded: RecordedRun = recorded
        self.left_out = False

    def read(self, seconds: float) -> None:
        """Read the events that are new since the last call.

        Args:
            seconds: of CPU time at most, and a moment for the end.
        """
        give_up = time.thread_time() + seconds
        end = Position(*self._writer.position())
        while self._reader.position < end:
            if time.thread_time() > give_up:
                self._skip_to(end)
            if not self._read_some():
                break

    def _skip_to(self, end: Position) -> None:
        """Continue shortly before a position. The reader finds the next event there."""
        start = max(fmt.HEADER_SIZE, end.offset - _TAIL)
        if self._reader.position < (end.segment, start):
            self._reader.position = Position(end.segment, start)
            self.left_out = True

    def _read_some(self) -> bool:
        found: Sequence[events.AnyEvent | None] = self._read_memory() or [
            entry.event for entry in self._reader.read_stretch(_MOST_AT_ONCE, writer_alive=True)
        ]
        for event in found:
            if event is not None and event.run == self._run and not isinstance(event, _FILES):
                self._replay.add(event, self._writer.directory)
        return bool(found)

    def _read_memory(self) -> list[events.AnyEvent]:
        """The next events of the segment that is being written: no file is opened for them.

        Empty at the end of a segment, and at anything that is not a whole event: see `_skip_to`.
        """
        number, offset = self._reader.position
        payloads, ends = self._writer.appended_since(number, offset, _MOST_AT_ONCE)
        found = events.decode_many(payloads) if payloads else []
        if found:
            self._reader.position = Position(number, ends[len(found) - 1])
        return found

    def close(self) -> None:
        """Close its files."""
        self._reader.close()
