"""Writing single events to a run that exists at the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trackdsl._core import events
from trackdsl._core.ids import begins_with
from trackdsl.delivery.batches import _compose
from trackdsl.delivery.batches._model_points import Link, ModelPoints
from trackdsl.delivery.batches._outbox import Outbox
from trackdsl.delivery.batches._own_tags import OwnTags
from trackdsl.delivery.batches._shared_points import SharedPoints, Source
from trackdsl.delivery.batches._timestamp_dedup import TimestampDedup
from trackdsl.delivery.files._artifacts import Artifacts, Stored, path_of
from trackdsl.delivery.files._tables import Tables
from trackdsl.delivery.runs._continued import Continuations
from trackdsl.delivery.state._blocked import check_experiment
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._errors import Refused
from trackdsl.delivery.store._sink import Sink
from trackdsl.errors import logger
from trackdsl.store_format.files_tag import FileNote

if TYPE_CHECKING:
    from trackdsl.delivery.runs._remote_runs import RemoteRuns
    from trackdsl.delivery.state._open_journal import OpenJournal

#: Events have nanoseconds, MLflow has milliseconds.
_MS = 1_000_000


class RunWriter:
    """Writes the events of one journal to runs, or collects them in its outbox.

    Args:
        stream: the journal.
        remote_runs: knows the journals of other processes.
        points: the metric points of runs that several journals write to.
        tables: the tables.
        models: the points of logged models.
        refuse: called with what the store refused, and its answer.
        continued: the runs that its program resumes.
        own_tags: adds to tags that the runs have.

    Attributes:
        outbox: what is collected and not written yet.
        artifacts: the artifacts of the journal.
        timestamps: of the points of its own runs.
    """

    def __init__(
        self,
        stream: OpenJournal,
        remote_runs: RemoteRuns,
        points: SharedPoints,
        tables: Tables,
        models: ModelPoints,
        refuse: Callable[[str, Exception], None],
        continued: Continuations,
        own_tags: OwnTags,
    ) -> None:
        self._stream = stream
        self._name = stream.directory.name
        self._runs = stream.runs
        self._remote_runs = remote_runs
        self._points = points
        self._tables = tables
        self._models = models
        self._refuse = refuse
        self._continued = continued
        self.outbox = Outbox(refuse, points.write_assignments, models, own_tags)
        self.artifacts = Artifacts(stream, models)
        self.timestamps = TimestampDedup([])

    def times(self, sink: Sink, run: DeliveredRun, event: events.AnyEvent, source: Source) -> tuple[int, ...]:
        """The milliseconds for the points of an event; none if it has no points."""
        points = _points_of(event)
        if not points:
            return ()
        if not source.held and self._assigns_freely(event.run, run):
            return self.own_times(event, run)
        first = self._free_journals(event.run)
        return tuple(self._points.assign(sink, run.run_id, source, first, point) for point in points)

    def own_times(self, event: events.AnyEvent, run: DeliveredRun | None) -> tuple[int, ...]:
        """The milliseconds for the points of a run that no other journal writes to. The run may not exist yet."""
        shared = None if run is None else self._points.of(run.run_id, self._name)
        times = []
        for key, step, value, at in _points_of(event):
            if shared is None:
                times.append(self.timestamps.assign(event.run, key, step, value, at))
                continue
            times.append(self.timestamps.assign(event.run, key, step, value, at, shared.occupied(key, step, value)))
            shared.add_point(key, step, value, times[-1])
        return tuple(times)

    def times_before(self, event: events.AnyEvent, source: Source, *, continued: bool = False) -> tuple[int, ...]:
        """The milliseconds that the points of an event got before, without assigning any; none if there are none.

        Args:
            event: the event.
            source: where it was read.
            continued: whether its run is resumed, and could not be resumed yet.
        """
        run = self._runs.get(event.run)
        if run is not None and self._assigns_freely(event.run, run):
            return self.own_times(event, run)
        if run is None and not continued and begins_with(event.run, self._stream.prefix):
            return self.own_times(event, None)
        run = run or self._remote_runs.known(event.run)
        given = [self._points.given(run.run_id, source, key) for key, *_ in _points_of(event)] if run else []
        return () if None in given else tuple(time for time in given if time is not None)

    def write(
        self, sink: Sink, run: DeliveredRun, event: events.AnyEvent, times: tuple[int, ...], *, in_doubt: bool
    ) -> None:
        """Write an event to its run, or collect it.

        Args:
            sink: the store.
            run: the run of the event.
            event: the event.
            times: the milliseconds of its points.
            in_doubt: whether it may have been written before.
        """
        match event:
            # The two of every run come first: a pattern costs as much as a call.
            case events.Close():
                self._close(sink, run, event)
            case events.Open(id_, params=params):
                self.outbox.add_params(sink, id_, run, params)
            case events.Metric() | events.Metrics():
                link = self._link(sink, run, event) if isinstance(event, events.LinkedMetrics) else None
                for (key, step, value, _), at in zip(_points_of(event), times, strict=True):
                    self.outbox.add_metric(event.run, run, key, value, at, step, link)
            case events.Params(id_, values):
                self.outbox.add_params(sink, id_, run, values)
            case events.Tags(id_, tags):
                self.outbox.of(id_, run).add_tags(tags)
            case _:
                self._write_data(sink, run, event, in_doubt)

    def check_model(self, sink: Sink, run: DeliveredRun, event: events.AnyEvent) -> None:
        """Check that the model exists that an event names.

        Raises:
            NotYet: it may exist in a moment.
        """
        if isinstance(event, (events.LinkedMetrics, events.ModelInput)):
            self._models.find(sink, run, event.model)

    def add_points(self, run: DeliveredRun, event: events.AnyEvent, times: tuple[int, ...]) -> None:
        """Add points that already have their milliseconds."""
        shared = self._points.of(run.run_id, self._name)
        if shared is not None:
            for (key, step, value, _), at in zip(_points_of(event), times, strict=True):
                shared.add_point(key, step, value, at)

    def end(self, sink: Sink, run: DeliveredRun, status: str, time: int) -> None:
        """End a run; `time` in nanoseconds since 1970.

        Raises:
            RunBlocked: its experiment is deleted.
        """
        try:
            sink.end_run(run.run_id, status, time // _MS)
        except Refused as error:
            check_experiment(sink, run.experiment_id, error)
            # The run was deleted at MLflow: there is nothing to end.
            self._refuse(f"the end of run {run.run_id}", error)

    def is_own(self, id_: bytes, run: DeliveredRun) -> bool:
        """Whether no other journal is known to write to a run."""
        return self._assigns_freely(id_, run) and self._points.of(run.run_id, self._name) is None

    def _assigns_freely(self, id_: bytes, run: DeliveredRun) -> bool:
        """Whether this journal assigns milliseconds without agreement: at most one journal of a run may."""
        if self._runs.get(id_) is not run or run.continued:
            return False
        # Any process may write to a run of plain MLflow. It is assumed to belong to the process that no other has
        # started.
        return run.ours or (begins_with(id_, self._stream.prefix) and not self._stream.origin.ancestors)

    def _free_journals(self, id_: bytes) -> list[str]:
        """The journals that may assign milliseconds without agreement."""
        within = self._stream.origin.ancestors
        starters = [name for prefix in within for name in self._remote_runs.owners(bytes.fromhex(prefix))]
        return [*self._remote_runs.owners(id_), *starters]

    def _write_data(self, sink: Sink, run: DeliveredRun, event: events.AnyEvent, in_doubt: bool) -> None:
        match event:
            case events.File() | events.Model():
                if isinstance(event, events.Model):
                    self.outbox.flush(sink, event.run)  # A logged model copies the parameters of its run.
                self._store(sink, run, event, in_doubt)
            case events.Input():
                self._add_input(sink, run, event)
            case events.Table():
                self._add_rows(run, event, in_doubt)
            case events.ModelInput():
                self._add_model_input(sink, run, event)
            case events.ModelOutput(id_, model_id, step):
                self.outbox.flush(sink, id_)
                self._models.added(sink, run.run_id, model_id, step)

    def _store(self, sink: Sink, run: DeliveredRun, event: Stored, in_doubt: bool) -> None:
        path = path_of(event)
        omitted = self.artifacts.store(sink, run, event, in_doubt=in_doubt)
        for name, why in omitted.items():
            self._omit(event.run, run, name, why)
        if path not in omitted and event.handler:
            types = isinstance(event, events.File) and event.types
            self.outbox.of(event.run, run).files[path] = FileNote(event.handler, event.sha256, types)

    def _add_rows(self, run: DeliveredRun, event: events.Table, in_doubt: bool) -> None:
        omitted = self._tables.add_rows(run, event, self._stream.directory, in_doubt=in_doubt)
        if omitted is not None:
            self._omit(event.run, run, event.path, omitted)

    def _omit(self, id_: bytes, run: DeliveredRun, path: str, reason: str) -> None:
        self.outbox.of(id_, run).add_tag(f"trackdsl.omitted.{path}", reason[:500])
        self._stream.progress.refused += 1
        logger.warning("trackdsl: %r is left out: %s", path, reason)

    def _add_input(self, sink: Sink, run: DeliveredRun, event: events.Input) -> None:
        try:
            sink.write_input(run.run_id, event)
        except Refused as error:
            check_experiment(sink, run.experiment_id, error)
            pending = self.outbox.of(event.run, run)
            pending.add_tag(f"trackdsl.omitted.{event.name}", f"MLflow refused the dataset: {error}"[:500])
            self._refuse(f"the dataset {event.name!r} of run {run.run_id}", error)

    def _link(self, sink: Sink, run: DeliveredRun, event: events.LinkedMetrics) -> Link:
        model_id = self._models.find(sink, run, event.model)
        if model_id is None:
            for name in event.values:
                self._omit(event.run, run, f"{name}.model", "the model that it belongs to was not delivered")
        return Link(model_id or "", event.dataset)

    def _add_model_input(self, sink: Sink, run: DeliveredRun, event: events.ModelInput) -> None:
        try:
            model_id = self._models.find(sink, run, event.model)
            if model_id is None:
                self._omit(event.run, run, "model input", "the model was not delivered")
                return
            sink.write_model_input(run.run_id, model_id)
        except Refused as error:
            check_experiment(sink, run.experiment_id, error)
            self._omit(event.run, run, "model input", f"MLflow refused it: {error}")

    def _close(self, sink: Sink, run: DeliveredRun, event: events.Close) -> None:
        if self._continued.was_resumed_elsewhere(sink, event.run, run, event.time):
            self.outbox.flush(sink, event.run)
            self._close_run(event.run, run)
            return
        pending = self.outbox.of(event.run, run)
        if event.failure is not None:
            for key, value in _compose.failure_tags(event.failure).items():
                pending.add_tag(key, value)
        if event.lost:
            pending.add_tag("trackdsl.lost_events", str(event.lost))
        self.outbox.flush(sink, event.run)
        self.end(sink, run, event.status, event.time)
        self._close_run(event.run, run)

    def _close_run(self, id_: bytes, run: DeliveredRun) -> None:
        self._models.forget(run.run_id)
        if self._runs.get(id_) is run:
            self._runs.close(id_)


def _points_of(event: events.AnyEvent) -> list[tuple[str, int, float, int]]:
    """The metric points of an event: key, step, value, time in milliseconds since 1970."""
    match event:
        case events.Metric(_, key, value, step, at):
            return [(key, step, value, at // _MS)]
        case events.Metrics(_, values, step, at):
            return [(key, step, value, at // _MS) for key, value in values.items()]
    return []
