"""Carrying out the events of one journal at the store, in order for each run.

What cannot be delivered now, while other runs can, is kept aside: see `_orphans.py` and `_blocked.py`.
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
from trackdsl.delivery._remote_runs import ForeignRuns
from trackdsl.delivery._run_map import DeliveredRun
from trackdsl.delivery._run_writer import RunWriter
from trackdsl.delivery._sampling import Sampler
from trackdsl.delivery._shared_points import SharedPoints, Source
from trackdsl.delivery._shared_roots import SharedRoots
from trackdsl.delivery._sink import GONE, NotYet, Refused, RunBlocked, Sink
from trackdsl.delivery._tables import Tables
from trackdsl.delivery._timestamp_dedup import Spacing
from trackdsl.delivery.dropped_runs import DroppedRuns
from trackdsl.journal._reader import START, Position
from trackdsl.store_format.held_events import HeldEvent

if TYPE_CHECKING:
    from trackdsl.delivery._open_journal import OpenJournal

DIED = "the process died before this run ended"
DELETED = "the journal was deleted before the end of this run was delivered"


@dataclass(frozen=True)
class Shared:
    """What the journals of a spool have in common.

    Attributes:
        foreign: finds runs that another journal opened.
        points: the metric points of runs that several journals write to.
        tables: the tables.
        models: the points of logged models.
        sampler: of the machine, while runs are open.
        own_tags: adds to tags that runs have.
    """

    foreign: ForeignRuns
    points: SharedPoints
    tables: Tables
    models: ModelPoints
    sampler: Sampler
    own_tags: OwnTags


class Waiting(NamedTuple):
    """How much of a journal waits.

    Attributes:
        total: artifacts, tables, events that are kept aside, and runs whose ends are.
        awaited: of these, events that wait for runs of others.
        blocked: how many runs are set aside.
    """

    total: int
    awaited: int
    blocked: int


class Interpreter:
    """Carries out events; what it gathers is sent by `flush`.

    Args:
        stream: the journal.
        shared: what it has in common with others.
        refuse: called with what the store refused, and its answer.
        skip: is told of the runs of events that are left out because nothing is known of them.

    Attributes:
        writer: of its events to runs.
        creation: of its runs.
        git: what git said.
        sampling: system metrics of its runs.
        blocked: its runs that are set aside.
        last_time: of the event that was met last, in nanoseconds since 1970.
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
        self._parents = Parents(stream, shared.foreign)
        self._orphans = HeldEvents(stream.directory)
        self._dropped = DroppedRuns(stream.directory, shared.foreign.is_dropped)
        #: What was read of each run in this stretch: it goes aside with the run.
        self._stretch: dict[bytes, list[HeldEvent]] = {}
        self.blocked = BlockedRuns(stream.directory)
        self._continued = Continuations(stream, shared.foreign, shared.own_tags.spool)
        self.writer = RunWriter(
            stream,
            shared.foreign,
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
        #: Tags for damage where no run was open: for the runs that are opened until they are delivered.
        self._untold: dict[str, str] = {}
        self._opened_since = False
        for id_ in self.blocked.ids():
            if id_ not in self._orphans.runs:  # It was delivered just before delivery died, or its end is asked anew.
                self.blocked.remove(id_)
        self._forget_dropped()

    @property
    def spacing(self) -> Spacing:
        """Of the points of its own runs."""
        return self.writer.spacing

    def apply(self, sink: Sink, event: events.AnyEvent, end: Position, *, in_doubt: bool) -> None:
        """Carry out one event, or gather what it brings, or keep it aside.

        Args:
            sink: the store.
            event: the event.
            end: the position behind it.
            in_doubt: it may have been carried out before.

        Raises:
            NotYet: it has to wait, and nothing was done.
            Unavailable: the store is away.
        """
        self.last_time = getattr(event, "time", self.last_time)
        if isinstance(event, events.Adopt) and event.mlflow_experiment_id:
            if self._runs.get(event.run) is None:
                self._runs.adopt(event.run, DeliveredRun(event.mlflow_run_id, event.mlflow_experiment_id))
            return
        source = Source(self._name, end)
        if end in self._orphans.kept:
            self.writer.times_before(event, source)  # Later points of its run go round those that it has.
            return
        if self._dropped.covers(event):
            self._drop(sink, event)
            return
        if event.run in self._orphans.runs and not self._comes(sink, event.run):
            # In order: an older tag must not replace a newer one later.
            continued = event.run in self._orphans.continued
            self._orphans.add(HeldEvent(event, end, self.writer.times_before(event, source, continued=continued)))
            return
        try:
            self._deliver(sink, event, source, in_doubt)
        except NotYet:
            raise
        except Exception as error:
            if not self._block(sink, event.run, error, HeldEvent(event, end)):
                raise

    def note_damage(self, tags: dict[str, str]) -> None:
        """Tag the runs that may have been written to where a journal is damaged; the next run where there are none."""
        found = self._runs.maybe_written()
        for id_ in found:
            self._gather(events.Tags(id_, tags))
        self._untold = {} if found else self._untold | tags

    def flush(self, sink: Sink) -> None:
        """Send everything that was gathered."""
        self._gather_samples()
        for id_ in self.writer.outbox.ids():
            try:
                self.writer.outbox.flush(sink, id_)
            except Exception as error:
                if not self._block(sink, id_, error):
                    raise
        self._shared.tables.upload(sink, self._stream.directory)
        self._parents.mend(sink)

    def forget(self, spacing: Spacing) -> None:
        """Forget what was gathered: it will be read again from where the spacing was this."""
        self.writer.outbox.clear()
        self._stretch.clear()
        self._opened_since = False
        self.sampling.forget()
        self.writer.spacing = spacing

    def delivered(self) -> None:
        """What was flushed counts as delivered now, and will not be read again."""
        self._stretch.clear()
        if self._opened_since:
            self._untold, self._opened_since = {}, False
        self._orphans.noted()
        self.blocked.delivered()
        self.sampling.delivered()
        self._shared.points.delivered(self._name)

    def samples_delivered(self) -> None:
        """The system metrics that were flushed have arrived."""
        self._stretch.clear()
        self.sampling.delivered()

    def retry(self, sink: Sink) -> bool:
        """Deliver what waits for an artifact store, for runs of others, or is set aside; returns whether any was."""
        delivered = self.writer.artifacts.retry(sink)
        trying = self.blocked.due()
        if trying:
            self.creation.ask_again()
        delivered = self._take_aside(sink) or delivered
        if trying and self.blocked:
            self.blocked.tried()
        return self._shared.tables.upload(sink, self._stream.directory) or delivered

    def retry_is_due(self) -> bool:
        """Whether it is time to call `retry`."""
        awaited = self._orphans.runs.difference(self.blocked.ids())
        return bool(
            awaited
            or self.blocked.due()
            or self.writer.artifacts.due()
            or self._shared.tables.due(self._stream.directory)
        )

    def hurry(self) -> None:
        """Try again at once what waits."""
        self.writer.artifacts.hurry()
        self.blocked.hurry()
        self._dropped.read()
        self._forget_dropped()

    def why_set_aside(self, id_: bytes) -> str | None:
        """Why a run that this journal opens is not made yet, before something is mended; None where that is not so."""
        if self._runs.get(id_) is not None or not (id_ in self._orphans.unmade or id_ in self.blocked):
            return None
        return self.blocked.why(id_) or "the run that it belongs to is set aside"

    def is_dropped(self, id_: bytes) -> bool:
        """Whether a run of this journal is dropped."""
        return id_ in self._dropped

    def waiting(self) -> Waiting:
        """How much waits."""
        awaited = self._orphans.count() - self._orphans.count(self._blocked_runs())
        ends = len([id_ for id_ in self.blocked.ids() if id_ not in self._orphans.runs])
        others = len(self.writer.artifacts) + self._shared.tables.waiting(self._stream.directory)
        return Waiting(others + self._orphans.count() + ends, awaited, len(self._blocked_runs()))

    def reason(self) -> str:
        """Why it waits."""
        awaited = self._orphans.runs - self._blocked_runs()
        return (
            self.blocked.reason
            or (self.writer.artifacts.reason if self.writer.artifacts else "")
            or (self._orphans.reason(awaited) if awaited else "")
            or self._shared.tables.reason
        )

    def leave_to(self, heirs: list[OpenJournal]) -> None:
        """Leave the runs that other journals go on with for them to end."""
        for id_ in self._runs.still_open():
            if any(heir.runs.get(id_) is not None for heir in heirs):
                self._runs.close(id_)

    def end_left_open(self, sink: Sink, time: int, lost: int, why: str = DIED) -> None:
        """End the runs that a process which has died left open, of those that can be ended now.

        Args:
            sink: the store.
            time: when it was last heard of, in nanoseconds since 1970.
            lost: how many events it could not record.
            why: why they are ended.
        """
        trying = self.blocked.due()
        for id_ in self._runs.still_open():
            # What is kept aside of a run may hold its end.
            if id_ in self._orphans.runs or (id_ in self.blocked and not trying):
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
        if self._continued.is_left_to_others(sink, id_, run, time):
            self._runs.close(id_)
            return
        pending = self.writer.outbox.of(id_, run)
        pending.add_tag("trackdsl.ended", why)
        if lost:
            pending.add_tag("trackdsl.lost_events", f"{lost} of the whole process")
        self._gather_samples(id_)
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
        run = self._runs.get(event.run) or self._shared.foreign.find(sink, self._stream, event.run, self.last_time)
        if run is not None:
            self.writer.check_model(sink, run, event)
            times = self.writer.times(sink, run, event, source)
            self._stretch.setdefault(event.run, []).append(HeldEvent(event, source.end, times))
            self._write(sink, run, event, times, in_doubt)
        elif self._shared.foreign.is_lost(event.run):
            self._skip(event.run)
        else:
            self._orphans.add(HeldEvent(event, source.end))

    def _open(self, sink: Sink, event: events.Open, in_doubt: bool) -> None:
        if event.goes_on:
            self._go_on(sink, event, in_doubt)
            return
        run = self._runs.get(event.run)
        if run is None and (known := self._shared.foreign.of_same_program(self._stream, event.run)) is not None:
            # Repeated, because the journal that held it first was deleted.
            run = DeliveredRun(known.run_id, known.experiment_id)
            self._runs.add(event.run, run)
        in_doubt = in_doubt or bool(self._stream.origin.after)
        if run is not None and in_doubt:
            # It may have been made just before delivery failed, without what does not go with its making.
            rest = self.creation.rest(run, self._opening_tags(event, self.git.known()))
            self._add_rest(event.run, run, rest)
        elif run is None:
            parent, links = (self._parents if event.rank is None else self._roots).find(sink, event)
            tags = self._opening_tags(event, self.git.of_new_run(event.run)) | links
            run, rest = self.creation.create(sink, event, parent, tags, in_doubt=in_doubt)
            rest.batch.tags.update(self._untold)
            self._opened_since = True
            self._add_rest(event.run, run, rest)
            self._runs.add(event.run, run)
            if run.params is not None:  # It was made, not found.
                self._shared.models.begin(run.run_id)
        self._parents.opened(event)
        self._roots.began(sink, event.run)
        self.writer.write(sink, run, event, (), in_doubt=in_doubt)

    def _opening_tags(self, event: events.Open, git: dict[str, str]) -> dict[str, str]:
        return _compose.opening_tags(self._stream.origin, event, git, self._shared.own_tags.spool)

    def _go_on(self, sink: Sink, event: events.Open, in_doubt: bool) -> None:
        """Have a run go on, as often as it may not be known to."""
        run = self._runs.get(event.run)
        if run is None or in_doubt:
            fresh = self._continued.go_on(sink, event)
            if run is None:
                run = fresh
                self._runs.go_on(event.run, run)
        self._parents.opened(event)
        for key, text in event.tags.items():
            self.writer.outbox.of(event.run, run).add_tag(key, text)
        self.writer.write(sink, run, event, (), in_doubt=in_doubt)

    def _adopt(self, sink: Sink, event: events.Adopt) -> None:
        """Find out which run is meant that somebody else ends."""
        if self._runs.get(event.run) is None:
            run = self._shared.foreign.known(event.run)
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
            self._gather_samples(event.run)
        self.writer.write(sink, run, event, times, in_doubt=in_doubt)
        if isinstance(event, events.Close):
            self._roots.ended(sink, event.run)

    def _gather_samples(self, only: bytes | None = None) -> None:
        for id_, point in self.sampling.gather(only):
            if self._runs.get(id_) is not None:
                self._gather(events.Metric(id_, point.key, point.value, point.step, point.time * 1_000_000), point.time)

    def _gather(self, event: events.Tags | events.Metric, *times: int) -> None:
        """Gather something that delivery adds to a run; it goes aside where the run is."""
        aside = HeldEvent(event, START, times)
        run = self._runs.get(event.run)
        if run is None or event.run in self._orphans.runs:
            self._orphans.add(aside)
            return
        self._stretch.setdefault(event.run, []).append(aside)
        match event:
            case events.Metric(id_, key, value, step):
                self.writer.outbox.add_metric(id_, run, key, value, times[0], step)
            case events.Tags(id_, tags):
                for key, text in tags.items():
                    self.writer.outbox.of(id_, run).add_tag(key, text)

    def _block(self, sink: Sink, id_: bytes, error: Exception, failed: HeldEvent | None = None) -> bool:
        """Set a run aside, with what this stretch has of it, where an error concerns it alone; says whether it does."""
        reason = self.blocked.judge(sink, id_, error)
        if reason is None:
            return False
        found = self._stretch.pop(id_, [])
        if failed is not None and (not found or found[-1].end != failed.end):
            found.append(failed)
        self.writer.outbox.discard(id_)
        if found:
            self._orphans.add(*found)
        self.blocked.add(id_, _name_in(found), reason)
        return True

    def _block_with(self, sink: Sink, event: events.Tags, error: Exception) -> bool:
        return self._block(sink, event.run, error, HeldEvent(event, START))

    def _blocked_runs(self) -> set[bytes]:
        """Runs that are set aside, of which the reason may not be known since a restart."""
        return {*self.blocked.ids(), *self._orphans.unmade}

    def _comes(self, sink: Sink, id_: bytes) -> bool:
        """Whether all that was kept aside of a run is delivered now, so that the journal goes on with it."""
        # Runs that are set aside are tried together, by `retry`.
        if id_ in self.blocked or id_ in self._orphans.unmade or begins_with(id_, self._stream.prefix):
            return False
        return self._take_aside(sink, id_)

    def _take_aside(self, sink: Sink, only: bytes | None = None) -> bool:
        if not self._orphans.runs:
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
            return self._orphans.take(deliver, only)
        finally:
            for id_ in delivered:
                self.blocked.remove(id_)
                run = self._runs.get(id_) or self._shared.foreign.known(id_)
                if run is not None:
                    self._shared.points.delivered(self._name, aside=True, run_id=run.run_id)

    def _deliver_group(self, sink: Sink, id_: bytes, group: list[HeldEvent]) -> bool:
        """Deliver all that was kept aside of one run; False where it has to wait, and is kept as it is."""
        outbox = self.writer.outbox
        try:
            for event, end, times in group:
                if self._dropped.covers(event):
                    self._drop(sink, event)
                elif not self._deliver_aside(sink, event, end, times):
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

    def _deliver_aside(self, sink: Sink, event: events.AnyEvent, end: Position, times: tuple[int, ...]) -> bool:
        if isinstance(event, events.Open):
            self._open(sink, event, in_doubt=True)
            return True
        if isinstance(event, events.Adopt):
            self._adopt(sink, event)
            return True
        id_ = event.run
        run = self._runs.get(id_) or self._shared.foreign.find(sink, self._stream, id_, 0)
        if run is None:
            if self._shared.foreign.is_lost(id_):
                self._skip(id_)
                return True
            return False
        self.writer.check_model(sink, run, event)
        if times:
            self.writer.see(run, event, times)
        else:
            times = self.writer.times(sink, run, event, Source(self._name, end, aside=True))
        self._write(sink, run, event, times, in_doubt=True)
        return True

    def _forget_dropped(self) -> None:
        """Forget what waits of dropped runs that MLflow has."""
        for id_ in self._dropped:
            run = self._runs.get(id_)
            if run is not None:
                self.writer.artifacts.drop(run.run_id)
                self._shared.tables.drop(run.run_id)

    def _drop(self, sink: Sink, event: events.AnyEvent) -> None:
        """Forget an event of a run that was dropped; a run that MLflow has is ended, if that can be done."""
        self._dropped.forget(event)
        run = self._runs.get(event.run)
        if run is not None and isinstance(event, events.Close):
            with contextlib.suppress(RunBlocked):  # As for all of this run, nobody waits for that.
                self.writer.end(sink, run, event.status, event.time)
                self._roots.ended(sink, event.run)
            if run.open:
                self._runs.close(event.run)


def _name_in(found: list[HeldEvent]) -> str:
    return next((aside.event.name for aside in found if isinstance(aside.event, events.Open)), "")
