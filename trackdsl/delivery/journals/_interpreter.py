"""Applying the events of one journal to the store, in order for each run.

Events that cannot be delivered now are held back, so that other runs are delivered: see `state/_held_events.py` and
`state/_blocked.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trackdsl._core import events
from trackdsl.delivery.batches._plain_points import PlainPoints, Points
from trackdsl.delivery.batches._shared_points import Source
from trackdsl.delivery.batches._timestamp_dedup import TimestampDedup
from trackdsl.delivery.journals._early_requests import EarlyRequests
from trackdsl.delivery.runs._continued import Continuations
from trackdsl.delivery.runs._creation import RunCreation
from trackdsl.delivery.runs._deferral import Deferral, Waiting
from trackdsl.delivery.runs._ending import RunEnding
from trackdsl.delivery.runs._git_tags import GitTags
from trackdsl.delivery.runs._held_delivery import HeldDelivery
from trackdsl.delivery.runs._opening import RunOpening
from trackdsl.delivery.runs._shared import Shared
from trackdsl.delivery.runs._shared_roots import SharedRoots
from trackdsl.delivery.runs._writer import RunWriter
from trackdsl.delivery.state._blocked import BlockedRuns
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._errors import NotYet
from trackdsl.delivery.store._sink import Sink
from trackdsl.journal._reader import Entry
from trackdsl.journal._segments import Position
from trackdsl.store_format.held_events import HeldEvent

if TYPE_CHECKING:
    from trackdsl.delivery.state._open_journal import OpenJournal


class Interpreter:
    """Applies events; what it collects is sent by `flush`.

    Args:
        stream: the journal.
        shared: what the journals of its store share.
        refuse: called with what the store refused, and its answer.
        skip: called with the run of each event that is left out because its run is unknown.

    Attributes:
        writer: writes events to runs.
        creation: creates runs.
        ending: ends runs.
        git: adds the tags that come from git.
        sampling: system metrics of its runs.
        deferral: what is deferred.
        early_requests: begins requests for the next events.
        last_time: the time of the latest event, in nanoseconds since 1970.
    """

    def __init__(
        self,
        stream: OpenJournal,
        shared: Shared,
        refuse: Callable[[str, Exception], None],
        skip: Callable[[bytes], None],
    ) -> None:
        self._stream = stream
        self._name = stream.directory.name
        self._runs = stream.runs
        self._shared = shared
        self._skip = skip
        self._plain = PlainPoints(self._ordinary)
        spool = shared.own_tags.spool
        continued = Continuations(stream, shared.remote_runs, spool)
        self.writer = RunWriter(
            stream,
            shared.remote_runs,
            shared.points,
            shared.tables,
            shared.models,
            refuse,
            continued,
            shared.own_tags,
        )
        self.deferral = Deferral(stream, shared.remote_runs.is_dropped, self.writer.outbox, self._plain.runs)
        self._held = self.deferral.held
        self._dropped = self.deferral.dropped
        self.sampling = shared.sampler.sampling(stream.directory, stream.origin)
        self.creation = RunCreation(stream.record_refusal)
        block = self.deferral.block_with
        self.git = GitTags(stream.directory, stream.runs, stream.record_refusal, shared.own_tags, block)
        roots = SharedRoots(stream, self.creation, self.writer, self.git, continued, spool)
        self._opening = RunOpening(stream, shared, self.creation, self.writer, self.git, roots, continued)
        self.early_requests = EarlyRequests(stream.runs, self.deferral, self._opening.early, self.writer.artifacts)
        self.ending = RunEnding(
            stream, self.deferral, self.writer, self.sampling, roots, continued, shared.what_changed
        )
        self._held_delivery = HeldDelivery(stream, shared, self.deferral, self._opening, self.ending, self.writer, skip)
        self.last_time = 0
        self._forget_dropped()

    @property
    def blocked(self) -> BlockedRuns:
        """Its blocked runs."""
        return self.deferral.blocked

    @property
    def is_batching(self) -> bool:
        """Whether writes are collected, so that the store may refuse a stretch as a whole.

        Then its events are read again, and written singly.
        """
        return self.deferral.is_batching

    @is_batching.setter
    def is_batching(self, value: bool) -> None:
        self.deferral.is_batching = value

    @property
    def timestamps(self) -> TimestampDedup:
        """The timestamps of the points of its own runs."""
        return self.writer.timestamps

    def apply(self, sink: Sink, event: events.AnyEvent, end: Position, *, in_doubt: bool) -> None:
        """Apply one event, collect it for later, or hold it back.

        Args:
            sink: the store.
            event: the event.
            end: the position behind it.
            in_doubt: whether it may have been applied before.

        Raises:
            NotYet: it has to wait, and nothing was done.
            Unavailable: the store cannot be reached.
        """
        self.last_time = getattr(event, "time", self.last_time)
        if self._is_for_no_store(event):
            return
        source = Source(self._name, end)
        if end in self._held.kept:
            self.writer.times_before(event, source)  # Later points of its run must avoid the timestamps of its points.
            return
        if self._dropped.covers(event):
            self.ending.drop(sink, event)
            return
        if event.run in self._held.runs and not self._held_delivery.is_released(sink, event.run):
            # In order: an older tag must not replace a newer one later.
            continued = event.run in self._held.continued
            self._held.add(HeldEvent(event, end, self.writer.times_before(event, source, continued=continued)))
            return
        try:
            self._deliver(sink, event, source, in_doubt)
            if self.is_batching:
                self._plain.runs.add(event.run)
        except NotYet:
            raise
        except Exception as error:
            if not self.deferral.block(sink, event.run, error, HeldEvent(event, end)):
                raise

    def _is_for_no_store(self, event: events.AnyEvent) -> bool:
        """Whether nothing of an event is written to the store; it may have to be written down here."""
        if isinstance(event, events.Adopt) and event.mlflow_experiment_id:
            if self._runs.get(event.run) is None:
                self._runs.adopt(event.run, DeliveredRun(event.mlflow_run_id, event.mlflow_experiment_id))
            return True
        return isinstance(event, events.Loop)  # Only displays show it.

    def collect_points(self, entries: list[Entry], start: int) -> int:
        """Collect points of ordinary runs quickly, as long as there is nothing else.

        Only while writes are collected: if the store refuses them, the events are read again and applied singly.

        Args:
            entries: what was read.
            start: the index of the first entry that is not applied.

        Returns:
            the index of the next entry for `apply`, or the number of entries.
        """
        end = self._plain.collect(entries, start, self.writer.timestamps)
        if end > start:
            self.last_time = getattr(entries[end - 1].event, "time", self.last_time)
        return end

    def tag_damage(self, tags: dict[str, str]) -> None:
        """Tag all runs that a damaged journal may have written to; if there are none, the next runs."""
        maybe_written = self._runs.maybe_written()
        for id_ in maybe_written:
            self.deferral.collect(events.Tags(id_, tags))
        self._opening.pending_tags = {} if maybe_written else self._opening.pending_tags | tags

    def flush(self, sink: Sink, *, all_read: bool = False) -> None:
        """Send everything that was collected.

        Args:
            sink: the store.
            all_read: whether the whole journal is read. Then no run begins later that was sampled already.
        """
        self.ending.collect_samples((lambda _: True) if all_read else None)
        for id_ in self.writer.outbox.ids():
            try:
                self.writer.outbox.flush(sink, id_)
            except Exception as error:
                if not self.deferral.block(sink, id_, error):
                    raise
        self._shared.tables.upload(sink, self._stream.directory)
        self._opening.parents.relink(sink, self.deferral)

    def forget(self, timestamps: TimestampDedup) -> None:
        """Forget what was collected, which will be read again; start again with these timestamps."""
        self.writer.outbox.clear()
        self.writer.artifacts.forget()
        self._plain.clear()
        self.deferral.forget_stretch()
        self._opening.forget()
        self.sampling.forget()
        self.writer.timestamps = timestamps

    def delivered(self, end: Position) -> None:
        """What was flushed is delivered, up to a position, and will not be read again."""
        self.deferral.forget_stretch()
        self._plain.clear()
        self._opening.delivered()
        self._held.release()
        self.blocked.delivered()
        self.sampling.delivered()
        self._shared.points.delivered(self._name, up_to=end)
        self.writer.artifacts.delivered()

    def samples_delivered(self) -> None:
        """The system metrics that were flushed are delivered."""
        self.deferral.forget_stretch()
        self.sampling.delivered()

    def retry(self, sink: Sink) -> bool:
        """Deliver what waits for an artifact store, for remote runs, or is blocked; returns whether anything was."""
        delivered = self.writer.artifacts.retry(sink)
        trying = self.blocked.due()
        if trying:
            self.creation.ask_again()
        delivered = self._held_delivery.deliver(sink) or delivered
        if trying and self.blocked:
            self.blocked.tried()
        self.writer.artifacts.delivered()
        return self._shared.tables.upload(sink, self._stream.directory) or delivered

    def retry_is_due(self) -> bool:
        """Whether it is time to call `retry`."""
        awaited = self._held.runs.difference(self.blocked.ids())
        return bool(
            awaited
            or self.blocked.due()
            or self.writer.artifacts.due()
            or self._shared.tables.due(self._stream.directory)
        )

    def retry_now(self) -> None:
        """Try everything again at once that waits for its next attempt."""
        self.writer.artifacts.retry_now()
        self.blocked.retry_now()
        self._dropped.read()
        self._forget_dropped()

    def waiting(self) -> Waiting:
        """The numbers of deferred items."""
        return self.deferral.waiting()._replace(total=self.count_waiting())

    def count_waiting(self) -> int:
        """The number of all deferred items."""
        others = len(self.writer.artifacts) + self._shared.tables.waiting(self._stream.directory)
        return self.deferral.count() + others

    def reason(self) -> str:
        """A text that says why items are deferred."""
        awaited = self.deferral.awaited()
        return (
            self.blocked.reason
            or (self.writer.artifacts.reason if self.writer.artifacts else "")
            or (self._held.reason(awaited) if awaited else "")
            or self._shared.tables.reason
        )

    def _deliver(self, sink: Sink, event: events.AnyEvent, source: Source, in_doubt: bool) -> None:
        if isinstance(event, events.Open):
            self.deferral.remember(event, source.end)
            self._opening.open(sink, event, in_doubt)
            return
        if isinstance(event, events.Adopt):
            self.deferral.remember(event, source.end)
            self._opening.adopt(sink, event)
            return
        run = self._runs.get(event.run) or self._shared.remote_runs.find(sink, self._stream, event.run, self.last_time)
        if run is not None:
            self.writer.check_model(sink, run, event)
            times = self.writer.times(sink, run, event, source)
            self.deferral.remember(event, source.end, times)
            self.ending.write(sink, run, event, times, in_doubt)
        elif self._shared.remote_runs.is_lost(event.run):
            self._skip(event.run)
        else:
            self._held.add(HeldEvent(event, source.end))

    def _ordinary(self, id_: bytes) -> Points | None:
        """The list that collects the points of a run, if nothing else has to be done for them; else None."""
        run = self._runs.get(id_)
        if run is None or id_ in self._held.runs or self._held.kept or id_ in self._dropped or id_ in self.blocked:
            return None
        if not self.writer.is_own(id_, run):
            return None
        return self.writer.outbox.of(id_, run).batch.metrics

    def _forget_dropped(self) -> None:
        """Forget deferred items of dropped runs that exist at MLflow."""
        for id_ in self._dropped:
            run = self._runs.get(id_)
            if run is not None:
                self.writer.artifacts.drop(run.run_id)
                self._shared.tables.drop(run.run_id)
