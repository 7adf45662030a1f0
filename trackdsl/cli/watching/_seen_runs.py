"""Which runs of a program `trackdsl watch` has read, in a byte for each: a program may record for weeks."""

from __future__ import annotations

from trackdsl._core.ids import PREFIX_LENGTH, prefix_of

#: Runs with higher counts are not kept: a damaged id must not take all memory.
_MOST = 1 << 24


class SeenRuns:
    """Runs of one program, whose ids are its prefix and a count.

    Args:
        prefix: the first bytes of the ids, in hexadecimal.

    >>> seen = SeenRuns(b"process id".hex())
    >>> first, third = (b"process id" + bytes(5) + bytes([count]) for count in (1, 3))
    >>> seen.add(third), third in seen, first in seen
    (None, True, False)
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._seen = bytearray()

    def add(self, id_: bytes) -> None:
        """Remember that a run was read."""
        count = self._count(id_)
        if count < 0:
            return
        if count >= len(self._seen):
            self._seen += bytes(count + 1 - len(self._seen))
        self._seen[count] = 1

    def __contains__(self, id_: bytes) -> bool:
        count = self._count(id_)
        return count < 0 or (count < len(self._seen) and bool(self._seen[count]))

    def _count(self, id_: bytes) -> int:
        """The count of an id; -1 for an id of another program, which is not remembered."""
        count = int.from_bytes(id_[PREFIX_LENGTH:], "big")
        return count if prefix_of(id_).hex() == self._prefix and count < _MOST else -1
