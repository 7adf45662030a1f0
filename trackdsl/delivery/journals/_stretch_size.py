"""How many events of a journal are delivered together: fewer after a failure; refused events are sent one by one."""

from __future__ import annotations

from trackdsl.journal._reader import Entry
from trackdsl.journal._segments import START, Position

#: How many events are delivered together at most; see also `Reader.read_stretch`.
_STRETCH = 20_000
#: A stretch that a store refuses as a whole is delivered in this many parts, down to a few events, which go singly.
_PARTS = 8
_FEW = 16


class StretchSize:
    """The size of the next stretches of a journal, and which events are written together."""

    def __init__(self) -> None:
        self._limit = _STRETCH
        #: Everything before is written singly.
        self._singly_until = START

    def limit(self) -> int:
        """The largest number of events in the next stretch."""
        return min(self._limit, _STRETCH)

    def is_together(self, start: Position) -> bool:
        """Whether a stretch that begins here may be written together."""
        return start >= self._singly_until

    def shorten(self, count: int) -> None:
        """Deliver less at once after a failure: if a server fails now and then, a short stretch gets through.

        Args:
            count: how many events the stretch had.
        """
        self._limit = max(count // _PARTS, _FEW)

    def lengthen(self) -> None:
        """Deliver more at once after a success."""
        self._limit = min(self._limit * _PARTS, _STRETCH)

    def take_apart(self, entries: list[Entry]) -> None:
        """Deliver a stretch that the store refused as a whole in smaller parts, and a small one singly."""
        if len(entries) > _FEW:
            self.shorten(len(entries))
        else:
            self._singly_until = entries[-1].end
