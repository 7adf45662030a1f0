"""Keeps the events that began the open runs of a journal when their segments are removed.

Delivery itself does not need them. `trackdsl watch` does, for a program that has been running for days: its journal
has only what is not delivered yet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from trackdsl._core import events
from trackdsl.delivery.state._ledger import Ledger
from trackdsl.errors import logger
from trackdsl.journal._reader import Reader
from trackdsl.journal._segments import Position
from trackdsl.journal._structure import open_events_of, skim
from trackdsl.store_format.ledger import BEGINNING


class OpenEvents:
    """The events that began the open runs of a journal, as far as they are in no segment any more.

    Args:
        directory: the journal's folder.
        ledger: the journal's ledger.
    """

    def __init__(self, directory: Path, ledger: Ledger) -> None:
        self._directory = directory
        self._ledger = ledger
        self._kept: dict[bytes, bytes] = ledger.load(BEGINNING, lambda: self._kept.items())

    def keep(self, segments: Iterable[int], still_open: Collection[bytes]) -> None:
        """Keep the events of open runs in segments that are about to be removed; forget those of ended runs.

        Args:
            segments: their numbers.
            still_open: our ids of the runs that have not ended.
        """
        open_ = set(still_open)
        ended = [id_ for id_ in self._kept if id_ not in open_]
        new = open_.difference(self._kept)
        found = self._found(segments, new) if new else {}
        self._kept = {id_: event for id_, event in self._kept.items() if id_ in open_} | found
        try:
            self._ledger.write(
                [
                    *(BEGINNING.change(id_, None) for id_ in ended),
                    *(BEGINNING.change(id_, event) for id_, event in found.items()),
                ]
            )
        except OSError as error:
            logger.warning("trackdsl cannot write the list of open runs of %s: %s", self._directory, error)

    def _found(self, segments: Iterable[int], open_: set[bytes]) -> dict[bytes, bytes]:
        found = {}
        wanted = open_events_of(open_)
        for number in segments:
            reader = Reader(self._directory, Position(number, 0))
            try:
                for event in skim(reader, wanted=wanted):
                    if isinstance(event, events.Open) and event.run in open_:
                        found[event.run] = events.encode(event)
            except OSError as error:
                logger.warning("trackdsl cannot write the list of open runs of %s: %s", self._directory, error)
            finally:
                reader.close()
        return found
