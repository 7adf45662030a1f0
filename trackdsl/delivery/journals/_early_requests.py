"""Requests for the next events of a stretch, begun before the events are applied: runs are created and files are sent.

Requests to a server are faster concurrently than one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator

from trackdsl._core import events
from trackdsl.delivery.files._artifacts import Artifacts
from trackdsl.delivery.runs._deferral import Deferral
from trackdsl.delivery.runs._early_creation import EarlyCreation
from trackdsl.delivery.state._run_map import DeliveredRun, RunMap
from trackdsl.delivery.store._sink import Sink
from trackdsl.journal._reader import Entry
from trackdsl.journal._segments import Position

#: This many runs are created before the next events are applied. They exist without their content only for moments.
_EARLY = 50
#: The next files are found among this many events.
_FILES_AHEAD = 300


class EarlyRequests:
    """Begins requests for events that are not applied yet.

    Args:
        runs: the runs of the journal that exist at MLflow.
        deferral: what of it is deferred; nothing is begun for that.
        creation: creates runs concurrently.
        artifacts: sends files.
    """

    def __init__(self, runs: RunMap, deferral: Deferral, creation: EarlyCreation, artifacts: Artifacts) -> None:
        self._runs = runs
        self._held = deferral.held
        self._dropped = deferral.dropped
        self._creation = creation
        self._artifacts = artifacts

    def create_runs(self, sink: Sink, entries: list[Entry], start: int, doubt_until: Position) -> int:
        """Create the next runs of a stretch concurrently.

        Args:
            sink: the store.
            entries: the stretch.
            start: the index of the next entry to apply.
            doubt_until: everything before may have been applied before.

        Returns:
            the index of the first entry that was not read.

        Raises:
            Unavailable: the store cannot be reached.
        """
        if sink.own_ids or any(entry.event is None for entry in entries):
            return len(entries)  # Tags about damage are for the runs that are open where it is found.
        opened: list[tuple[events.Open, bool]] = []
        number = start
        while number < len(entries) and len(opened) < _EARLY:
            event, end = entries[number].event, entries[number].end
            number += 1
            held = event is None or event.run in self._held.runs or end in self._held.kept
            if isinstance(event, events.Open) and not held and not self._dropped.covers(event):
                opened.append((event, end <= doubt_until))
        self._creation.create(sink, opened)
        return number

    def begin_files(self, sink: Sink, entries: list[Entry], start: int) -> None:
        """Begin to send the next files of a stretch, if its store takes them by requests.

        Args:
            sink: the store.
            entries: the stretch.
            start: the index of the next entry to apply.
        """
        self._artifacts.begin(sink, self._next_files(entries, start))

    def _next_files(self, entries: list[Entry], start: int) -> Iterator[tuple[DeliveredRun, events.File]]:
        for event, end, *_ in entries[start : start + _FILES_AHEAD]:
            if isinstance(event, events.File) and end not in self._held.kept:
                run = self._runs.get(event.run)
                if run is not None and event.run not in self._held.runs and not self._dropped.covers(event):
                    yield run, event
