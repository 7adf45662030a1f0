"""Ending runs: those that their program closes, those that a dead program left open, those that are dropped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from trackdsl._core import events
from trackdsl.delivery.runs._continued import Continuations
from trackdsl.delivery.runs._deferral import Deferral
from trackdsl.delivery.runs._sampling import Sampling
from trackdsl.delivery.runs._shared_roots import SharedRoots
from trackdsl.delivery.runs._writer import RunWriter
from trackdsl.delivery.state._blocked import check_experiment
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._errors import NotYet, Refused, RunBlocked
from trackdsl.delivery.store._sink import GONE, Sink
from trackdsl.delivery.summaries._what_changed import WhatChanged

if TYPE_CHECKING:
    from trackdsl.delivery.state._open_journal import OpenJournal

DIED = "the process died before this run ended"
DELETED = "the journal was deleted before the end of this run was delivered"


class RunEnding:
    """Ends the runs of one journal.

    Args:
        stream: the journal.
        deferral: what of it is deferred.
        writer: writes events to runs.
        sampling: system metrics of its runs.
        roots: the shared roots of ranks.
        continued: the runs that its program resumes.
        what_changed: the root runs whose changes are still to be written.
    """

    def __init__(
        self,
        stream: OpenJournal,
        deferral: Deferral,
        writer: RunWriter,
        sampling: Sampling,
        roots: SharedRoots,
        continued: Continuations,
        what_changed: WhatChanged,
    ) -> None:
        self._stream = stream
        self._what_changed = what_changed
        self._runs = stream.runs
        self._deferral = deferral
        self._writer = writer
        self._sampling = sampling
        self._roots = roots
        self._continued = continued

    def write(
        self, sink: Sink, run: DeliveredRun, event: events.AnyEvent, times: tuple[int, ...], in_doubt: bool
    ) -> None:
        """Write an event to its run; if it ends the run, with all that belongs to an end."""
        if isinstance(event, events.Close):
            self.collect_samples(lambda id_: id_ == event.run)
        self._writer.write(sink, run, event, times, in_doubt=in_doubt)
        if isinstance(event, events.Close):
            self._roots.ended(sink, event.run)
            self._what_changed.closed(self._stream, event.run)

    def collect_samples(self, wanted: Callable[[bytes], bool] | None = None) -> None:
        """Collect the system metrics of runs that are delivered or blocked: of the wanted ones, or of all.

        Those of other runs are kept, because these may begin in a later stretch.
        """
        for id_, point in self._sampling.unsent(wanted or self._is_known):
            if self._is_known(id_):
                self._deferral.collect(
                    events.Metric(id_, point.key, point.value, point.step, point.time * 1_000_000), point.time
                )

    def _is_known(self, id_: bytes) -> bool:
        return self._runs.get(id_) is not None or id_ in self._deferral.held.runs

    def drop(self, sink: Sink, event: events.AnyEvent) -> None:
        """Forget an event of a dropped run; a run that exists at MLflow is ended, if possible."""
        self._deferral.dropped.forget(event)
        run = self._runs.get(event.run)
        if run is not None and isinstance(event, events.Close):
            with contextlib.suppress(RunBlocked):  # Nothing of a dropped run is waited for.
                self._writer.end(sink, run, event.status, event.time)
                self._roots.ended(sink, event.run)
            if run.open:
                self._runs.close(event.run)

    def leave_to(self, successors: list[OpenJournal]) -> None:
        """Leave the runs that successors of this journal continue for them to end."""
        for id_ in self._runs.still_open():
            if any(successor.runs.get(id_) is not None for successor in successors):
                self._runs.close(id_)

    def end_left_open(self, sink: Sink, time: int, lost: int, why: str = DIED) -> None:
        """End the runs that a dead process left open, as far as they can be ended now.

        Args:
            sink: the store.
            time: of the last sign of the process, in nanoseconds since 1970.
            lost: how many events the process could not record.
            why: the reason for the tag of these runs.
        """
        deferral = self._deferral
        trying = deferral.blocked.due()
        for id_ in self._runs.still_open():
            # The held events of a run may contain its end.
            if id_ in deferral.held.runs or (id_ in deferral.blocked and not trying):
                continue
            run = self._runs.get(id_)
            assert run is not None
            try:
                self._kill(sink, id_, run, time, lost, why)
            except Exception as error:
                if isinstance(error, NotYet) or not deferral.block(sink, id_, error):
                    raise
                if id_ in deferral.dropped:
                    self._runs.close(id_)
                    deferral.blocked.remove(id_)
                continue
            deferral.blocked.remove(id_)

    def _kill(self, sink: Sink, id_: bytes, run: DeliveredRun, time: int, lost: int, why: str) -> None:
        status = sink.status(run.run_id)
        if status == GONE:
            check_experiment(sink, run.experiment_id, Refused("the run is deleted with it"))
        if status != "RUNNING":
            self._roots.ended(sink, id_)
            self._runs.close(id_)  # The note of its end was lost.
            return
        if self._continued.was_resumed_elsewhere(sink, id_, run, time):
            self._runs.close(id_)
            return
        pending = self._writer.outbox.of(id_, run)
        pending.add_tag("trackdsl.ended", why)
        if lost:
            pending.add_tag("trackdsl.lost_events", f"{lost} of the whole process")
        self.collect_samples(lambda other: other == id_)
        self._writer.outbox.flush(sink, id_)
        self._writer.end(sink, run, "KILLED", time)
        self._roots.ended(sink, id_)
        self._runs.close(id_)
