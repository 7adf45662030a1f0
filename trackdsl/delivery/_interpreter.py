"""Carrying out the events of one journal at the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trackdsl import _events as events
from trackdsl._ids import begins_with
from trackdsl.delivery import _compose
from trackdsl.delivery._artifacts import Artifacts, Stored, check_experiment, place_of
from trackdsl.delivery._creation import RunCreation
from trackdsl.delivery._foreign import ForeignRuns
from trackdsl.delivery._git_tags import GitTags
from trackdsl.delivery._orphans import Aside, Orphans
from trackdsl.delivery._outbox import Outbox
from trackdsl.delivery._parents import Parents
from trackdsl.delivery._runs import KnownRun
from trackdsl.delivery._sampling import Sampler
from trackdsl.delivery._shared_points import SharedPoints, Source
from trackdsl.delivery._sink import Refused, Sink
from trackdsl.delivery._spacing import Spacing
from trackdsl.delivery._tables import Tables
from trackdsl.errors import logger
from trackdsl.journal._reader import Position

if TYPE_CHECKING:
    from trackdsl.delivery._stream import Stream

_DIED = "the process died before this run ended"


@dataclass(frozen=True)
class Shared:
    """What the journals of a spool have in common.

    Attributes:
        foreign: finds runs that another journal opened.
        points: the metric points of runs that several journals write to.
        tables: the tables.
        sampler: of the machine, while runs are open.
    """

    foreign: ForeignRuns
    points: SharedPoints
    tables: Tables
    sampler: Sampler


class Interpreter:
    """Carries out events; what it gathers is sent by `flush`.

    Args:
        stream: the journal.
        shared: what it has in common with others.
        refuse: is told what the store refused, and its answer.
        skip: is told of the runs of events that are left out because nothing is known of them.

    Attributes:
        spacing: of the points of its own runs.
        creation: of its runs.
        git: what git said.
        sampling: system metrics of its runs.
        last_time: of the event that was met last, in nanoseconds since 1970.
    """

    def __init__(
        self,
        stream: Stream,
        shared: Shared,
        refuse: Callable[[str, Exception], None],
        skip: Callable[[bytes], None],
    ) -> None:
        self._stream = stream
        self._directory = stream.directory
        self._name = stream.directory.name
        self._runs = stream.runs
        self._shared = shared
        self._refuse = refuse
        self._skip = skip
        self._outbox = Outbox(refuse, shared.points.settle)
        self._parents = Parents(stream, shared.foreign)
        self._artifacts = Artifacts(stream.directory)
        self._orphans = Orphans(stream.directory)
        self.sampling = shared.sampler.sampling(stream.directory, stream.origin)
        self.spacing = Spacing([])
        self.creation = RunCreation(refuse)
        self.git = GitTags(stream.directory, stream.runs, refuse)
        self.last_time = 0

    def apply(self, sink: Sink, event: events.AnyEvent, end: Position, *, in_doubt: bool) -> None:
        """Carry out one event, or gather what it brings.

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
        if isinstance(event, events.Open):
            self._open(sink, event, in_doubt)
            return
        if isinstance(event, events.Adopt):
            if self._runs.get(event.run) is None:
                self._runs.adopt(event.run, KnownRun(event.mlflow_run_id, event.mlflow_experiment_id))
            return
        if self._orphans.kept and end in self._orphans.kept:
            return
        if event.run in self._orphans.runs and not self._deliver_orphans(sink, event.run):
            self._orphans.add(event, end)  # In order: an older tag must not replace a newer one later.
            return
        run = self._runs.get(event.run) or self._shared.foreign.find(sink, self._stream, event.run, self.last_time)
        if run is not None:
            source = None if self._goes_first(event.run, run) else Source(self._name, end)
            self._apply_to(sink, run, event, source, in_doubt)
        elif self._shared.foreign.is_lost(event.run):
            self._skip(event.run)
        else:
            self._orphans.add(event, end)

    def note_damage(self, count: int) -> None:
        """Tell of damage on a run that was open."""
        for id_ in self._runs.still_open()[:1]:
            run = self._runs.get(id_)
            assert run is not None
            self._outbox.of(id_, run).add_tag("trackdsl.damaged_records", str(count))

    def flush(self, sink: Sink) -> None:
        """Send everything that was gathered."""
        self._gather_samples()
        self._outbox.flush_all(sink)
        self._shared.tables.upload(sink, self._directory)
        self._parents.mend(sink)

    def forget(self, spacing: Spacing) -> None:
        """Forget what was gathered: it will be read again from where the spacing was this."""
        self._outbox.clear()
        self.sampling.forget()
        self.spacing = spacing

    def delivered(self) -> None:
        """What was flushed counts as delivered now, and will not be read again."""
        self._orphans.noted()
        self.sampling.delivered()
        self._shared.points.delivered(self._name)

    def retry(self, sink: Sink) -> bool:
        """Deliver what waits for a store of artifacts or for runs of others; returns whether there was any."""
        delivered = self._artifacts.retry(sink)
        delivered = self._deliver_orphans(sink) or delivered
        return self._shared.tables.upload(sink, self._directory) or delivered

    def hurry(self) -> None:
        """Try again at once what waits."""
        self._artifacts.hurry()

    def waiting(self) -> tuple[int, int]:
        """How much waits, and how much of it are events that wait for runs of others."""
        aside = len(self._orphans)
        return len(self._artifacts) + aside + self._shared.tables.waiting(self._directory), aside

    def reason(self) -> str:
        """Why it waits."""
        return next((kept.reason for kept in (self._artifacts, self._orphans) if kept), self._shared.tables.reason)

    def kill(self, sink: Sink, id_: bytes, run: KnownRun, time: int, lost: int) -> None:
        """End a run that its process has left open when it died."""
        pending = self._outbox.of(id_, run)
        pending.add_tag("trackdsl.ended", _DIED)
        if lost:
            pending.add_tag("trackdsl.lost_events", f"{lost} of the whole process")
        self._gather_samples(id_)
        self._outbox.flush(sink, id_)
        self._end(sink, run, "KILLED", time // 1_000_000)
        self._runs.close(id_)

    def _apply_to(
        self, sink: Sink, run: KnownRun, event: events.AnyEvent, source: Source | None, in_doubt: bool = True
    ) -> None:
        match event:
            case events.Metric(id_, key, value, step, at):
                self._add_metric(sink, id_, run, source, (key, step, value, at // 1_000_000))
            case events.Metrics(id_, values, step, at):
                for key, value in values.items():
                    self._add_metric(sink, id_, run, source, (key, step, value, at // 1_000_000))
            case events.Params(id_, values):
                self._outbox.add_params(sink, id_, run, values)
            case events.Tags(id_, tags):
                for key, text in tags.items():
                    self._outbox.of(id_, run).add_tag(key, text)
            case events.Close():
                self._close(sink, run, event)
            case _:
                self._apply_data(sink, run, event, in_doubt)

    def _apply_data(self, sink: Sink, run: KnownRun, event: events.AnyEvent, in_doubt: bool) -> None:
        match event:
            case events.File() | events.Model():
                if isinstance(event, events.Model):
                    self._outbox.flush(sink, event.run)  # A logged model takes the parameters that its run has.
                self._store(sink, run, event, in_doubt)
            case events.Input():
                self._add_input(sink, run, event)
            case events.Table():
                omitted = self._shared.tables.take(run.run_id, event, self._directory, in_doubt=in_doubt)
                if omitted is not None:
                    self._omit(event.run, run, event.path, omitted)

    def _open(self, sink: Sink, event: events.Open, in_doubt: bool) -> None:
        run = self._runs.get(event.run)
        if run is None:
            parent, links = self._parents.find(sink, event)
            tags = _compose.process_tags(self._stream.origin) | self.git.of_new_run(event.run)
            tags |= _compose.run_tags(event) | links
            run, rest = self.creation.create(sink, event, parent, tags, in_doubt=in_doubt)
            pending = self._outbox.of(event.run, run)
            pending.texts.update(rest.texts)
            pending.batch.tags.update(rest.batch.tags)
            self._runs.add(event.run, run)
        self._parents.opened(event)
        self._outbox.add_params(sink, event.run, run, event.params)

    def _add_metric(
        self, sink: Sink, id_: bytes, run: KnownRun, source: Source | None, point: tuple[str, int, float, int]
    ) -> None:
        key, step, value, at = point
        if source is not None:
            at = self._shared.points.place(sink, run.run_id, source, self._first_ones(id_), point)
        elif (shared := self._shared.points.of(run.run_id, self._name)) is None:
            at = self.spacing.place(id_, key, step, value, at)
        else:
            at = self.spacing.place(id_, key, step, value, at, shared.taken(key, step, value))
            shared.see(key, step, value, at)
        self._outbox.add_metric(id_, run, key, value, at, step)

    def _goes_first(self, id_: bytes, run: KnownRun) -> bool:
        """Whether the points of this journal need not ask for their place: at most one does not for each run."""
        if self._runs.get(id_) is not run:
            return False
        # Any process may write to a run of plain MLflow. It is taken to be that of a process which none started.
        return run.ours or (begins_with(id_, self._stream.prefix) and not self._stream.origin.within)

    def _first_ones(self, id_: bytes) -> list[str]:
        """The journals that may go first."""
        foreign = self._shared.foreign
        starters = [name for prefix in self._stream.origin.within for name in foreign.owners(bytes.fromhex(prefix))]
        return [*foreign.owners(id_), *starters]

    def _store(self, sink: Sink, run: KnownRun, event: Stored, in_doubt: bool) -> None:
        place = place_of(event)
        omitted = self._artifacts.store(sink, run, event, in_doubt=in_doubt)
        for name, why in omitted.items():
            self._omit(event.run, run, name, why)
        if place not in omitted and event.handler:
            key, value = _compose.artifact_tag(place, event.handler, event.sha256)
            self._outbox.of(event.run, run).add_tag(key, value)

    def _omit(self, id_: bytes, run: KnownRun, place: str, reason: str) -> None:
        self._outbox.of(id_, run).add_tag(f"trackdsl.omitted.{place}", reason[:500])
        logger.warning("trackdsl: %r is left out: %s", place, reason)

    def _add_input(self, sink: Sink, run: KnownRun, event: events.Input) -> None:
        try:
            sink.write_input(run.run_id, event)
        except Refused as error:
            check_experiment(sink, run, error)
            pending = self._outbox.of(event.run, run)
            pending.add_tag(f"trackdsl.omitted.{event.name}", f"MLflow refused the dataset: {error}"[:500])
            self._refuse(f"the dataset {event.name!r} of run {run.run_id}", error)

    def _close(self, sink: Sink, run: KnownRun, event: events.Close) -> None:
        pending = self._outbox.of(event.run, run)
        if event.failure is not None:
            for key, value in _compose.failure_tags(event.failure).items():
                pending.add_tag(key, value)
        if event.lost:
            pending.add_tag("trackdsl.lost_events", str(event.lost))
        self._gather_samples(event.run)
        self._outbox.flush(sink, event.run)
        self._end(sink, run, event.status, event.time // 1_000_000)
        if self._runs.get(event.run) is run:
            self._runs.close(event.run)

    def _gather_samples(self, only: bytes | None = None) -> None:
        for id_, point in self.sampling.gather(only):
            run = self._runs.get(id_)
            if run is not None:
                self._outbox.add_metric(id_, run, *point)

    def _end(self, sink: Sink, run: KnownRun, status: str, end: int) -> None:
        try:
            sink.end_run(run.run_id, status, end)
        except Refused as error:
            # The run was deleted at MLflow: there is nothing left to end.
            self._refuse(f"the end of run {run.run_id}", error)

    def _deliver_orphans(self, sink: Sink, only: bytes | None = None) -> bool:
        """Deliver events whose runs have come; returns whether there were any, and none of run `only` is left."""

        def apply(aside: Aside) -> bool:
            id_ = aside.event.run
            run = self._runs.get(id_) or self._shared.foreign.find(sink, self._stream, id_, 0)
            if run is not None:
                self._apply_to(sink, run, aside.event, Source(self._name, aside.end, aside=True))
            elif self._shared.foreign.is_lost(id_):
                self._skip(id_)
            else:
                return False
            return True

        if not self._orphans.take(apply, lambda: self._outbox.flush_all(sink)):
            return False
        self._shared.points.delivered(self._name, aside=True)
        return only not in self._orphans.runs
