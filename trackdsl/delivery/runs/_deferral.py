"""The deferred part of a journal: held events, blocked runs and dropped runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from trackdsl._core import events
from trackdsl.delivery.batches._outbox import Outbox
from trackdsl.delivery.dropped_runs import DroppedRuns
from trackdsl.delivery.state._blocked import BlockedRuns
from trackdsl.delivery.state._held_events import HeldEvents
from trackdsl.delivery.store._errors import RefusedTogether
from trackdsl.delivery.store._sink import Sink
from trackdsl.journal._segments import START, Position
from trackdsl.store_format.held_events import HeldEvent

if TYPE_CHECKING:
    from trackdsl.delivery.state._open_journal import OpenJournal


class Waiting(NamedTuple):
    """The numbers of deferred items of a journal.

    Attributes:
        total: artifacts, tables, held events, and runs whose ends are.
        awaited: of these, events that wait for runs of others.
        blocked: how many runs are blocked.
    """

    total: int
    awaited: int
    blocked: int


class Deferral:
    """Holds events back, and blocks runs together with the events that were read of them.

    Args:
        stream: the journal.
        is_dropped: whether a run is dropped in another journal.
        outbox: what is collected for runs and not written yet.
        unremembered: runs of which not all events of this stretch are remembered.

    Attributes:
        held: the events that are held back.
        blocked: the blocked runs.
        dropped: the runs that are dropped.
        is_batching: whether writes are collected. Then the events of a stretch are not remembered: if one fails, all
            are read again.
    """

    def __init__(
        self, stream: OpenJournal, is_dropped: Callable[[bytes], bool], outbox: Outbox, unremembered: set[bytes]
    ) -> None:
        self._runs = stream.runs
        self._outbox = outbox
        self.held = HeldEvents(stream.ledger)
        self.blocked = BlockedRuns(stream.ledger)
        self.dropped = DroppedRuns(stream.directory, is_dropped)
        self.is_batching = False
        self._unremembered = unremembered
        #: What was read of each run in this stretch; if the run is blocked, these events are held too.
        self._stretch: dict[bytes, list[HeldEvent]] = {}
        for id_ in self.blocked.ids():
            if id_ not in self.held.runs:  # It was delivered just before delivery died, or its end is tried again.
                self.blocked.remove(id_)

    def remember(self, event: events.AnyEvent, end: Position, times: tuple[int, ...] = ()) -> None:
        """Remember an event that was read of a run: if the run is blocked, its events are held."""
        if not self.is_batching:
            self._stretch.setdefault(event.run, []).append(HeldEvent(event, end, times))

    def forget_stretch(self) -> None:
        """Forget the remembered events: they are delivered, or will be read again."""
        self._stretch.clear()

    def collect(self, event: events.Tags | events.Metric, *times: int) -> None:
        """Collect something that delivery adds to a run; it is held back if the run is."""
        held = HeldEvent(event, START, times)
        run = self._runs.get(event.run)
        if run is None or event.run in self.held.runs:
            self.held.add(held)
            return
        self._stretch.setdefault(event.run, []).append(held)
        match event:
            case events.Metric(id_, key, value, step):
                self._outbox.add_metric(id_, run, key, value, times[0], step)
            case events.Tags(id_, tags):
                for key, text in tags.items():
                    self._outbox.of(id_, run).add_tag(key, text)

    def block(self, sink: Sink, id_: bytes, error: Exception, failed: HeldEvent | None = None) -> bool:
        """Block a run, with its events of this stretch. False if an error does not concern this run alone."""
        reason = self.blocked.judge(sink, id_, error)
        if reason is None:
            return False
        if id_ in self._unremembered:
            raise RefusedTogether(reason) from error
        held = self._stretch.pop(id_, [])
        if failed is not None and (not held or held[-1].end != failed.end):
            held.append(failed)
        self._outbox.discard(id_)
        if held:
            self.held.add(*held)
        self.blocked.add(id_, name_in(held), reason)
        return True

    def block_with(self, sink: Sink, event: events.Tags, error: Exception) -> bool:
        """Block a run, with an event that delivery adds to it; see `block`."""
        return self.block(sink, event.run, error, HeldEvent(event, START))

    def block_reason(self, id_: bytes) -> str | None:
        """Why a run that this journal opens was blocked before it was created; None if it was not."""
        if self._runs.get(id_) is not None or not (id_ in self.held.unmade or id_ in self.blocked):
            return None
        return self.blocked.why(id_) or "the run that it belongs to is blocked"

    def blocked_runs(self) -> set[bytes]:
        """Blocked runs, including those whose reason is unknown after a restart."""
        return {*self.blocked.ids(), *self.held.unmade}

    def waiting(self) -> Waiting:
        """The numbers of deferred items, without artifacts and tables."""
        blocked = self.blocked_runs()
        return Waiting(self.count(), self.held.count() - self.held.count(blocked), len(blocked))

    def count(self) -> int:
        """The number of deferred items, without artifacts and tables: held events, and runs whose ends are."""
        return self.held.count() + len([id_ for id_ in self.blocked.ids() if id_ not in self.held.runs])

    def awaited(self) -> set[bytes]:
        """The runs that held events wait for, without those that are blocked."""
        return self.held.runs - self.blocked_runs()


def name_in(held_events: Iterable[HeldEvent]) -> str:
    """The name of the run that one of these events opens; empty if none does."""
    return next((held.event.name for held in held_events if isinstance(held.event, events.Open)), "")
