"""Delivering the events that are held back, as soon as that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trackdsl._core import events
from trackdsl._core.ids import begins_with
from trackdsl.delivery.batches._shared_points import Source
from trackdsl.delivery.runs._deferral import Deferral, name_in
from trackdsl.delivery.runs._ending import RunEnding
from trackdsl.delivery.runs._opening import RunOpening
from trackdsl.delivery.runs._shared import Shared
from trackdsl.delivery.runs._writer import RunWriter
from trackdsl.delivery.store._errors import NotYet
from trackdsl.delivery.store._sink import Sink
from trackdsl.journal._segments import Position
from trackdsl.store_format.held_events import HeldEvent

if TYPE_CHECKING:
    from trackdsl.delivery.state._open_journal import OpenJournal


class HeldDelivery:
    """Delivers the held events of one journal, run by run.

    Args:
        stream: the journal.
        shared: what the journals of its store share.
        deferral: what of it is deferred.
        opening, ending: open and end its runs.
        writer: writes events to runs.
        skip: called with the run of each event that is left out because its run is unknown.
    """

    def __init__(
        self,
        stream: OpenJournal,
        shared: Shared,
        deferral: Deferral,
        opening: RunOpening,
        ending: RunEnding,
        writer: RunWriter,
        skip: Callable[[bytes], None],
    ) -> None:
        self._stream = stream
        self._runs = stream.runs
        self._shared = shared
        self._deferral = deferral
        self._opening = opening
        self._ending = ending
        self._writer = writer
        self._skip = skip

    def is_released(self, sink: Sink, id_: bytes) -> bool:
        """Whether all held events of a run are delivered now, so that its later events can follow."""
        # `deliver` tries the blocked runs, all together.
        if id_ in self._deferral.blocked or id_ in self._deferral.held.unmade or begins_with(id_, self._stream.prefix):
            return False
        return self.deliver(sink, id_)

    def deliver(self, sink: Sink, only: bytes | None = None) -> bool:
        """Deliver what can be delivered now, of one run or of all; returns whether anything was."""
        deferral = self._deferral
        if not deferral.held.runs:
            return False
        trying = deferral.blocked.due()
        delivered: list[bytes] = []

        def deliver(id_: bytes, group: list[HeldEvent]) -> bool:
            if id_ in deferral.blocked and not trying and not deferral.dropped.covers(group[0].event):
                return False
            if self._deliver_group(sink, id_, group):
                delivered.append(id_)
                return True
            return False

        try:
            return deferral.held.deliver_groups(deliver, only)
        finally:
            for id_ in delivered:
                deferral.blocked.remove(id_)
                run = self._runs.get(id_) or self._shared.remote_runs.known(id_)
                if run is not None:
                    self._shared.points.delivered(self._stream.directory.name, held=True, run_id=run.run_id)

    def _deliver_group(self, sink: Sink, id_: bytes, group: list[HeldEvent]) -> bool:
        """Deliver all held events of one run; False if it has to wait, and its events stay held."""
        outbox, deferral = self._writer.outbox, self._deferral
        try:
            for event, end, times in group:
                if deferral.dropped.covers(event):
                    self._ending.drop(sink, event)
                elif not self._deliver_event(sink, event, end, times):
                    return False
            outbox.flush(sink, id_)
            if id_ not in deferral.dropped:
                self._opening.parents.link_held(sink, id_)
            sink.commit()  # Once delivered, these events are not held any more.
        except NotYet:
            outbox.discard(id_)
            return False
        except Exception as error:
            outbox.discard(id_)
            reason = deferral.blocked.judge(sink, id_, error)
            if reason is None:
                raise
            deferral.blocked.add(id_, name_in(group), reason)
            return False
        return True

    def _deliver_event(self, sink: Sink, event: events.AnyEvent, end: Position, times: tuple[int, ...]) -> bool:
        if isinstance(event, events.Open):
            self._opening.open(sink, event, in_doubt=True)
            return True
        if isinstance(event, events.Adopt):
            self._opening.adopt(sink, event)
            return True
        id_ = event.run
        run = self._runs.get(id_) or self._shared.remote_runs.find(sink, self._stream, id_, 0)
        if run is None:
            if self._shared.remote_runs.is_lost(id_):
                self._skip(id_)
                return True
            return False
        self._writer.check_model(sink, run, event)
        if times:
            self._writer.add_points(run, event, times)
        else:
            source = Source(self._stream.directory.name, end, held=True)
            times = self._writer.times(sink, run, event, source)
        self._ending.write(sink, run, event, times, in_doubt=True)
        return True
