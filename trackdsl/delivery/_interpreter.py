"""Applying the events of one journal to the store, in order for each run.

Events that cannot be delivered now are held back, so that other runs are delivered: see `_held_events.py` and
`_blocked.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from trackdsl._core import events
from trackdsl._core.ids import begins_with
from trackdsl.delivery import _compose
from trackdsl.delivery._blocked import BlockedRuns, check_experiment
from trackdsl.delivery._continued import Continuations
from trackdsl.delivery._creation import RunCreation
from trackdsl.delivery._git_tags import GitTags
from trackdsl.delivery._held_events import HeldEvents
from trackdsl.delivery._model_points import ModelPoints
from trackdsl.delivery._own_tags import OwnTags
from trackdsl.delivery._parents import Parents
from trackdsl.delivery._remote_runs import RemoteRuns
from trackdsl.delivery._run_map import DeliveredRun
from trackdsl.delivery._run_writer import RunWriter
from trackdsl.delivery._sampling import Sampler
from trackdsl.delivery._shared_points import SharedPoints, Source
from trackdsl.delivery._shared_roots import SharedRoots
from trackdsl.delivery._sink import GONE, NotYet, Refused, RunBlocked, Sink
from trackdsl.delivery._tables import Tables
from trackdsl.delivery._timestamp_dedup import TimestampDedup
from trackdsl.delivery.dropped_runs import DroppedRuns
from trackdsl.journal._reader import START, Position
from trackdsl.store_format.held_events import HeldEvent

if TYPE_CHECKING:
    from trackdsl.delivery._open_journal import OpenJournal

DIED = "the process died before this run ended"
DELETED = "the journal was deleted before the end of this run was delivered"


@dataclass(frozen=True)
class Shared:
    """What the journals of one store share.

    Attributes:
        remote_runs: finds runs that another journal opened.
        points: the metric points of runs that several journals write to.
        tables: the tables.
        models: the points of logged models.
        sampler: of system metrics, while runs are open.
        own_tags: adds to tags that runs have.
    """

    remote_runs: RemoteRuns
    points: SharedPoints
    tables: Tables
    models: ModelPoints
    sampler: Sampler
    own_tags: OwnTags


class Waiting(NamedTuple):
    """How much of a journal is deferred.

    Attributes:
        total: artifacts, tables, held events, and runs whose ends are.
        awaited: of these, events that wait for runs of others.
        blocked: how many runs are set aside.
    """

    total: int
    awaited: int
    blocked: int


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
        git: adds the tags that come from git.
        sampling: system metrics of its runs.
        blocked: its runs that are set aside.
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
        self._parents = Parents(stream, shared.remote_runs)
        self._held = HeldEvents(stream.directory)
        self._dropped = DroppedRuns(stream.directory, shared.remote_runs.is_dropped)
        #: What was read of each run in this stretch; if the run is set aside, these events are held too.
        self._stretch: dict[bytes, list[HeldEvent]] = {}
        self.blocked = BlockedRuns(stream.directory)
        self._continued = Continuations(stream, shared.remote_runs, shared.own_tags.spool)
        self.writer = RunWriter(
            stream,
            shared.remote_runs,
            shared.points,
            shared.tables,
            shared.models,
            refuse,
            self._continued,
            shared.own_tags,
        )
        self.sampling = shared.sampler.sampling(stream.directory, stream.origin)
        self.creation = RunCreation(stream.note_refusal)
        self.git = GitTags(stream.directory, stream.runs, stream.note_refusal, shared.own_tags, self._block_with)
        self._roots = SharedRoots(stream, self.creation, self.writer, self.git, self._continued, shared.own_tags.spool)
        self.last_time = 0
        #: Tags about damage that was found while no run was open: for the runs that are opened until they are
        #: delivered.
        self._pending_tags: dict[str, str] = {}
        self._opened_since = False
        for id_ in self.blocked.ids():
            if id_ not in self._held.runs:  # It was delivered just before delivery died, or its end is tried again.
                self.blocked.remove(id_)
        self._forget_dropped()

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
        if isinstance(event, events.Adopt) and event.mlflow_experiment_id:
            if self._runs.get(event.run) is None:
                self._runs.adopt(event.run, DeliveredRun(event.mlflow_run_id, event.mlflow_experiment_id))
            return
        source = Source(self._name, end)
        if end in self._held.kept:
            self.writer.times_before(event, source)  # Later points of its run must avoid the timestamps of its points.
            return
        if self._dropped.covers(event):
            self._drop(sink, event)
            return
        if event.run in self._held.runs and not self._is_released(sink, event.run):
            # In order: an older tag must not replace a newer one later.
            continued = event.run in self._held.continued
            self._held.add(HeldEvent(event, end, self.writer.times_before(event, source, continued=continued)))
            return
        try:
            self._deliver(sink, event, source, in_doubt)
        except NotYet:
            raise
        except Exception as error:
            if not self._block(sink, event.run, error, HeldEvent(event, end)):
                raise

    def note_damage(self, tags: dict[str, str]) -> None:
        """Tag all runs that a damaged journal may have written to; if there are none, the next runs."""
        found = self._runs.maybe_written()
        for id_ in found:
            self._collect(events.Tags(id_, tags))
        self._pending_tags = {} if found else self._pending_tags | tags

    def flush(self, sink: Sink) -> None:
        """Send everything that was collected."""
        self._collect_samples()
        for id_ in self.writer.outbox.ids():
            try:
                self.writer.outbox.flush(sink, id_)
            except Exception as error:
                if not self._block(sink, id_, error):
                    raise
        self._shared.tables.upload(sink, self._stream.directory)
        self._parents.relink(sink)

    def forget(self, timestamps: TimestampDedup) -> None:
        """Forget what was collected: it will be read again, starting with these timestamps."""
        self.writer.outbox.clear()
        self._stretch.clear()
        self._opened_since = False
        self.sampling.forget()
        self.writer.timestamps = timestamps

    def delivered(self) -> None:
        """Note that what was flushed is delivered and will not be read again."""
        self._stretch.clear()
        if self._opened_since:
            self._pending_tags, self._opened_since = {}, False
        self._held.noted()
        self.blocked.delivered()
        self.sampling.delivered()
        self._shared.points.delivered(self._name)

    def samples_delivered(self) -> None:
        """Note that the system metrics that were flushed are delivered."""
        self._stretch.clear()
        self.sampling.delivered()

    def retry(self, sink: Sink) -> bool:
        """Deliver what waits for an artifact store, for remote runs, or is set aside; returns whether anything was."""
        delivered = self.writer.artifacts.retry(sink)
        trying = self.blocked.due()
        if trying:
            self.creation.ask_again()
        delivered = self._deliver_held(sink) or delivered
        if trying and self.blocked:
            self.blocked.tried()
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

    def why_set_aside(self, id_: bytes) -> str | None:
        """Why a run that this journal opens was set aside before it was created; None if it was not."""
        if self._runs.get(id_) is not None or not (id_ in self._held.unmade or id_ in self.blocked):
            return None
        return self.blocked.why(id_) or "the run that it belongs to is set aside"

    def is_dropped(self, id_: bytes) -> bool:
        """Whether a run of this journal is dropped."""
        return id_ in self._dropped

    def waiting(self) -> Waiting:
        """How much is deferred."""
        awaited = self._held.count() - self._held.count(self._blocked_runs())
        ends = len([id_ for id_ in self.blocked.ids() if id_ not in self._held.runs])
        others = len(self.writer.artifacts) + self._shared.tables.waiting(self._stream.directory)
        return Waiting(others + self._held.count() + ends, awaited, len(self._blocked_runs()))

    def reason(self) -> str:
        """Why it is deferred."""
        awaited = self._held.runs - self._blocked_runs()
        return (
            self.blocked.reason
            or (self.writer.artifacts.reason if self.writer.artifacts else "")
            or (self._held.reason(awaited) if awaited else "")
            or self._shared.tables.reason
        )

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
        trying = self.blocked.due()
        for id_ in self._runs.still_open():
            # The held events of a run may contain its end.
            if id_ in self._held.runs or (id_ in self.blocked and not trying):
                continue
            run = self._runs.get(id_)
            assert run is not None
            try:
                self._kill(sink, id_, run, time, lost, why)
            except Exception as error:
                if isinstance(error, NotYet) or not self._block(sink, id_, error):
                    raise
                if id_ in self._dropped:
                    self._runs.close(id_)
                    self.blocked.remove(id_)
                continue
            self.blocked.remove(id_)

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
        pending = self.writer.outbox.of(id_, run)
        pending.add_tag("trackdsl.ended", why)
        if lost:
            pending.add_tag("trackdsl.lost_events", f"{lost} of the whole process")
        self._collect_samples(id_)
        self.writer.outbox.flush(sink, id_)
        self.writer.end(sink, run, "KILLED", time)
        self._roots.ended(sink, id_)
        self._runs.close(id_)

    def _deliver(self, sink: Sink, event: events.AnyEvent, source: Source, in_doubt: bool) -> None:
        if isinstance(event, events.Open):
            self._stretch.setdefault(event.run, []).append(HeldEvent(event, source.end))
            self._open(sink, event, in_doubt)
            return
        if isinstance(event, events.Adopt):
            self._stretch.setdefault(event.run, []).append(HeldEvent(event, source.end))
            self._adopt(sink, event)
            return
        run = self._runs.get(event.run) or self._shared.remote_runs.find(sink, self._stream, event.run, self.last_time)
        if run is not None:
            self.writer.check_model(sink, run, event)
            times = self.writer.times(sink, run, event, source)
            self._stretch.setdefault(event.run, []).append(HeldEvent(event, source.end, times))
            self._write(sink, run, event, times, in_doubt)
        elif self._shared.remote_runs.is_lost(event.run):
            self._skip(event.run)
        else:
            self._held.add(HeldEvent(event, source.end))

    def _open(self, sink: Sink, event: events.Open, in_doubt: bool) -> None:
        if event.goes_on:
            self._resume(sink, event, in_doubt)
            return
        run = self._runs.get(event.run)
        if run is None and (known := self._shared.remote_runs.of_same_program(self._stream, event.run)) is not None:
            # This event is repeated, because the journal that held it first was deleted.
            run = DeliveredRun(known.run_id, known.experiment_id)
            self._runs.add(event.run, run)
        in_doubt = in_doubt or bool(self._stream.origin.after)
        if run is not None and in_doubt:
            # The run may have been created just before delivery failed: what is not written on creation may be missing.
            rest = self.creation.remaining(run, self._opening_tags(event, self.git.known()))
            self._add_rest(event.run, run, rest)
        elif run is None:
            parent, links = (self._parents if event.rank is None else self._roots).find(sink, event)
            tags = self._opening_tags(event, self.git.of_new_run(event.run)) | links
            run, rest = self.creation.create(sink, event, parent, tags, in_doubt=in_doubt)
            rest.batch.tags.update(self._pending_tags)
            self._opened_since = True
            self._add_rest(event.run, run, rest)
            self._runs.add(event.run, run)
            if run.params is not None:  # It was created, not found.
                self._shared.models.begin(run.run_id)
        self._parents.opened(event)
        self._roots.began(sink, event.run)
        self.writer.write(sink, run, event, (), in_doubt=in_doubt)

    def _opening_tags(self, event: events.Open, git: dict[str, str]) -> dict[str, str]:
        return _compose.opening_tags(self._stream.origin, event, git, self._shared.own_tags.spool)

    def _resume(self, sink: Sink, event: events.Open, in_doubt: bool) -> None:
        """Resume a run, again if that may not be noted."""
        run = self._runs.get(event.run)
        if run is None or in_doubt:
            fresh = self._continued.resume(sink, event)
            if run is None:
                run = fresh
                self._runs.resume(event.run, run)
        self._parents.opened(event)
        for key, text in event.tags.items():
            self.writer.outbox.of(event.run, run).add_tag(key, text)
        self.writer.write(sink, run, event, (), in_doubt=in_doubt)

    def _adopt(self, sink: Sink, event: events.Adopt) -> None:
        """Find the run that another process ends."""
        if self._runs.get(event.run) is None:
            run = self._shared.remote_runs.known(event.run)
            if run is None:
                state = self._continued.find(sink, event.run, event.mlflow_run_id)
                run = DeliveredRun(state.run_id, state.experiment_id)
            self._runs.adopt(event.run, run)

    def _add_rest(self, id_: bytes, run: DeliveredRun, rest: _compose.Pending) -> None:
        pending = self.writer.outbox.of(id_, run)
        pending.texts.update(rest.texts)
        pending.batch.tags.update(rest.batch.tags)

    def _write(
        self, sink: Sink, run: DeliveredRun, event: events.AnyEvent, times: tuple[int, ...], in_doubt: bool
    ) -> None:
        if isinstance(event, events.Close):
            self._collect_samples(event.run)
        self.writer.write(sink, run, event, times, in_doubt=in_doubt)
        if isinstance(event, events.Close):
            self._roots.ended(sink, event.run)

    def _collect_samples(self, only: bytes | None = None) -> None:
        for id_, point in self.sampling.unsent(only):
            if self._runs.get(id_) is not None:
                self._collect(
                    events.Metric(id_, point.key, point.value, point.step, point.time * 1_000_000), point.time
                )

    def _collect(self, event: events.Tags | events.Metric, *times: int) -> None:
        """Collect something that delivery adds to a run; it is held back if the run is."""
        held = HeldEvent(event, START, times)
        run = self._runs.get(event.run)
        if run is None or event.run in self._held.runs:
            self._held.add(held)
            return
        self._stretch.setdefault(event.run, []).append(held)
        match event:
            case events.Metric(id_, key, value, step):
                self.writer.outbox.add_metric(id_, run, key, value, times[0], step)
            case events.Tags(id_, tags):
                for key, text in tags.items():
                    self.writer.outbox.of(id_, run).add_tag(key, text)

    def _block(self, sink: Sink, id_: bytes, error: Exception, failed: HeldEvent | None = None) -> bool:
        """Set a run aside, with its events of this stretch. False if an error does not concern this run alone."""
        reason = self.blocked.judge(sink, id_, error)
        if reason is None:
            return False
        found = self._stretch.pop(id_, [])
        if failed is not None and (not found or found[-1].end != failed.end):
            found.append(failed)
        self.writer.outbox.discard(id_)
        if found:
            self._held.add(*found)
        self.blocked.add(id_, _name_in(found), reason)
        return True

    def _block_with(self, sink: Sink, event: events.Tags, error: Exception) -> bool:
        return self._block(sink, event.run, error, HeldEvent(event, START))

    def _blocked_runs(self) -> set[bytes]:
        """Runs that are set aside, including those whose reason is unknown after a restart."""
        return {*self.blocked.ids(), *self._held.unmade}

    def _is_released(self, sink: Sink, id_: bytes) -> bool:
        """Whether all held events of a run are delivered now, so that its later events can follow."""
        # `retry` tries the runs that are set aside, all together.
        if id_ in self.blocked or id_ in self._held.unmade or begins_with(id_, self._stream.prefix):
            return False
        return self._deliver_held(sink, id_)

    def _deliver_held(self, sink: Sink, only: bytes | None = None) -> bool:
        if not self._held.runs:
            return False
        trying = self.blocked.due()
        delivered: list[bytes] = []

        def deliver(id_: bytes, group: list[HeldEvent]) -> bool:
            if id_ in self.blocked and not trying and not self._dropped.covers(group[0].event):
                return False
            if self._deliver_group(sink, id_, group):
                delivered.append(id_)
                return True
            return False

        try:
            return self._held.deliver_groups(deliver, only)
        finally:
            for id_ in delivered:
                self.blocked.remove(id_)
                run = self._runs.get(id_) or self._shared.remote_runs.known(id_)
                if run is not None:
                    self._shared.points.delivered(self._name, held=True, run_id=run.run_id)

    def _deliver_group(self, sink: Sink, id_: bytes, group: list[HeldEvent]) -> bool:
        """Deliver all held events of one run; False if it has to wait, and its events stay held."""
        outbox = self.writer.outbox
        try:
            for event, end, times in group:
                if self._dropped.covers(event):
                    self._drop(sink, event)
                elif not self._deliver_held_event(sink, event, end, times):
                    return False
            outbox.flush(sink, id_)
        except NotYet:
            outbox.discard(id_)
            return False
        except Exception as error:
            outbox.discard(id_)
            reason = self.blocked.judge(sink, id_, error)
            if reason is None:
                raise
            self.blocked.add(id_, _name_in(group), reason)
            return False
        return True

    def _deliver_held_event(self, sink: Sink, event: events.AnyEvent, end: Position, times: tuple[int, ...]) -> bool:
        if isinstance(event, events.Open):
            self._open(sink, event, in_doubt=True)
            return True
        if isinstance(event, events.Adopt):
            self._adopt(sink, event)
            return True
        id_ = event.run
        run = self._runs.get(id_) or self._shared.remote_runs.find(sink, self._stream, id_, 0)
        if run is None:
            if self._shared.remote_runs.is_lost(id_):
                self._skip(id_)
                return True
            return False
        self.writer.check_model(sink, run, event)
        if times:
            self.writer.note_points(run, event, times)
        else:
            times = self.writer.times(sink, run, event, Source(self._name, end, held=True))
        self._write(sink, run, event, times, in_doubt=True)
        return True

    def _forget_dropped(self) -> None:
        """Forget deferred items of dropped runs that exist at MLflow."""
        for id_ in self._dropped:
            run = self._runs.get(id_)
            if run is not None:
                self.writer.artifacts.drop(run.run_id)
                self._shared.tables.drop(run.run_id)

    def _drop(self, sink: Sink, event: events.AnyEvent) -> None:
        """Forget an event of a dropped run; a run that exists at MLflow is ended, if possible."""
        self._dropped.forget(event)
        run = self._runs.get(event.run)
        if run is not None and isinstance(event, events.Close):
            with contextlib.suppress(RunBlocked):  # Nothing of a dropped run is waited for.
                self.writer.end(sink, run, event.status, event.time)
                self._roots.ended(sink, event.run)
            if run.open:
                self._runs.close(event.run)


def _name_in(found: list[HeldEvent]) -> str:
    return next((held.event.name for held in found if isinstance(held.event, events.Open)), "")
