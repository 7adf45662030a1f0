"""Ended runs of one journal in a few bytes each: a program that records for weeks must not fill delivery's memory.

The id of a run is the prefix of its process and a count, and a run that we create in a database or at a server with the
plugin has the same id there. So of such a run only its experiment has to be known: one byte at the index of its count,
which is the number of the experiment, or 0 if the run has not ended.
"""

from __future__ import annotations

from collections.abc import Iterator

from trackdsl._core.ids import PREFIX_LENGTH, prefix_of

#: The largest number that a byte holds.
_MOST_EXPERIMENTS = 255
#: Runs with higher counts are not kept here: a damaged id must not take all memory.
_MOST = 1 << 24


class EndedRuns:
    """The experiments of ended runs, by our ids of the runs.

    >>> ended = EndedRuns()
    >>> id_ = b"process id" + bytes(5) + b"7"
    >>> ended.add(id_, "3"), ended.get(id_), len(ended)
    (True, '3', 1)
    """

    def __init__(self) -> None:
        #: The first part of the ids of the process whose runs are kept here: that of the first run.
        self._prefix: bytes | None = None
        self._experiments: list[str] = []
        self._numbers = bytearray()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[bytes, str]]:
        prefix = self._prefix or b""
        for count, number in enumerate(self._numbers):
            if number:
                yield prefix + count.to_bytes(6, "big"), self._experiments[number - 1]

    def add(self, id_: bytes, experiment_id: str) -> bool:
        """Add a run that is not among them; returns whether it can be kept here."""
        if self._prefix is None and len(id_) == 16:
            self._prefix = prefix_of(id_)
        count = self._count_of(id_)
        if count is None:
            return False
        if experiment_id not in self._experiments:
            if len(self._experiments) == _MOST_EXPERIMENTS:
                return False
            self._experiments.append(experiment_id)
        missing = count + 1 - len(self._numbers)
        if missing > 0:
            self._numbers += bytes(missing)
        self._numbers[count] = self._experiments.index(experiment_id) + 1
        self._count += 1
        return True

    def get(self, id_: bytes) -> str | None:
        """The id of a run's experiment; None if the run is not among them."""
        if id_[:PREFIX_LENGTH] != self._prefix or len(id_) != 16:
            return None
        count = int.from_bytes(id_[PREFIX_LENGTH:], "big")
        number = self._numbers[count] if count < len(self._numbers) else 0
        return self._experiments[number - 1] if number else None

    def remove(self, id_: bytes) -> None:
        """Forget a run that is among them."""
        count = self._count_of(id_)
        assert count is not None
        self._numbers[count] = 0
        self._count -= 1

    def _count_of(self, id_: bytes) -> int | None:
        if id_[:PREFIX_LENGTH] != self._prefix or len(id_) != 16:
            return None
        count = int.from_bytes(id_[PREFIX_LENGTH:], "big")
        return count if count < _MOST else None
