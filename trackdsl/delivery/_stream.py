"""The delivery of one journal: reads a stretch of it, tells the store, notes how far it has come.

A stretch is noted as an intent before anything is sent and as done afterwards. Whatever lies between after a crash may
have been sent: runs are looked up by their tag before they are created, and everything else may be written twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

from trackdsl import _events as events
from trackdsl._process import Origin
from trackdsl._secrets import mask_text
from trackdsl.delivery import _compose, _limits
from trackdsl.delivery._artifacts import Artifacts, Stored, check_experiment, place_of
from trackdsl.delivery._compose import Pending
from trackdsl.delivery._creation import RunCreation
from trackdsl.delivery._progress import ProgressFile
from trackdsl.delivery._runs import KnownRun, RunMap
from trackdsl.delivery._sink import GONE, Batch, Refused, Sink, Unavailable
from trackdsl.delivery._spacing import Spacing
from trackdsl.delivery._tables import Tables
from trackdsl.errors import logger
from trackdsl.journal._lock import is_held
from trackdsl.journal._reader import Position, Reader, segments
from trackdsl.journal._spool import remove_journal

_STRETCH = 2000
#: How long the end of a journal waits for git's answer, in seconds.
_GIT_PATIENCE = 10.0
_DIED = "the process died before this run ended"

#: Finds a run of another journal: (our id) -> known run, or None; raises Unavailable while it may still come.
FindForeign = Callable[[bytes, "Stream"], "KnownRun | None"]


class Stream:
    """One journal on its way to MLflow.

    Args:
        directory: the journal's folder.
        origin: who wrote it, and where it goes.
        find_foreign: finds runs that another journal opened.
        tables: the tables of the whole spool.

    Attributes:
        finished: the journal is delivered to its end, and gone.
        gathering: its program lives, and the last stretch was not full: more is worth waiting for.
    """

    def __init__(self, directory: Path, origin: Origin, find_foreign: FindForeign, tables: Tables) -> None:
        self.directory = directory
        self.origin = origin
        self.runs = RunMap(directory)
        self.finished = False
        self.gathering = False
        self._find_foreign = find_foreign
        self._file = ProgressFile(directory, write=True)
        self.progress = self._file.read()
        self._reader = Reader(directory, self.progress.position)
        # Where the note of the intent is lost, everything may have been sent.
        unknown = not self.progress.count and bool(self.runs)
        self._doubt_until = Position(1 << 62, 0) if unknown else self.progress.intent
        self._spacing = Spacing(self.progress.points)
        self._pending: dict[bytes, Pending] = {}
        self._creation = RunCreation(self._refuse)
        # Whether an earlier process has told these is not known; telling them twice does no harm.
        self._without_git = self.runs.ours()
        self._git = None if self._without_git else _compose.git_tags(directory)
        self._artifacts = Artifacts(directory)
        self._tables = tables
        self._last_time = 0

    def step(self, sink: Sink) -> bool:
        """Deliver the next stretch.

        Returns:
            whether there was anything to do.

        Raises:
            Unavailable: the store is away; nothing is noted as delivered.
        """
        # Asked first: what a dead writer left is all there before its lock is seen free.
        alive = is_held(self.directory / "lock")
        start = self._reader.position
        entries = list(self._reader.read(_STRETCH, writer_alive=alive))
        self.gathering = alive and len(entries) < _STRETCH
        if not entries:
            if self._reader.newer_schema is not None:
                raise Unavailable(f"the journal was written by a newer trackdsl (schema {self._reader.newer_schema})")
            self._take_git(sink)
            return self._rest(sink, alive)
        self._note_intent()
        damaged, orphans = self.progress.damaged, self.progress.orphans
        try:
            # Inside: whatever fails from here on, these entries are read again.
            self._take_git(sink)
            for entry in entries:
                if entry.event is None:
                    self._skip_damage()
                else:
                    self._apply(sink, entry.event, in_doubt=entry.end <= self._doubt_until)
            self._flush_all(sink)
            self._tables.upload(sink, self.directory)
        except BaseException:
            self._reader.position = start
            self._pending.clear()
            self._spacing = Spacing(self.progress.points)
            self.progress.damaged, self.progress.orphans = damaged, orphans
            # Whatever was sent of this stretch is looked up the next time.
            self._doubt_until = max(self._doubt_until, entries[-1].end)
            raise
        self._note_done(len(entries))
        self._retry_deferred(sink)
        return True

    def note_blocked(self, error: str) -> None:
        """Note what stands in the way, for whoever asks."""
        if not self.progress.blocked_since:
            self.progress.blocked_since = time.time_ns()
        self.progress.error = error[:1000]
        self._file.write(self.progress)

    def hurry(self) -> None:
        """Somebody asks to go on at once: nothing waits for its time to be tried again."""
        self._artifacts.hurry()

    def has_more(self) -> bool:
        """Whether something is left to deliver right now."""
        return not self.finished and (not self._reader.at_end() or not is_held(self.directory / "lock"))

    def close(self) -> None:
        """Let go of the files."""
        self._reader.close()
        self._file.close()

    def _apply(self, sink: Sink, event: events.AnyEvent, *, in_doubt: bool) -> None:
        self._last_time = getattr(event, "time", self._last_time)
        if isinstance(event, events.Open):
            self._open(sink, event, in_doubt)
        elif isinstance(event, events.Adopt):
            if self.runs.get(event.run) is None:
                self.runs.adopt(event.run, KnownRun(event.mlflow_run_id, event.mlflow_experiment_id))
        else:
            run = self.runs.get(event.run) or self._find_foreign(event.run, self)
            if run is None:
                self._skip_orphan(event.run)
                return
            self._apply_to(sink, run, event, in_doubt)

    def _apply_to(self, sink: Sink, run: KnownRun, event: events.AnyEvent, in_doubt: bool) -> None:
        match event:
            case events.Metric(id_, key, value, step, at):
                self._add_metric(id_, key, value, step, at)
            case events.Metrics(id_, values, step, at):
                for key, value in values.items():
                    self._add_metric(id_, key, value, step, at)
            case events.Params(id_, values):
                self._add_params(sink, run, id_, values)
            case events.Tags(id_, tags):
                for key, text in tags.items():
                    self._of(id_).add_tag(key, text)
            case events.Close():
                self._close(sink, run, event)
            case _:
                self._apply_data(sink, run, event, in_doubt)

    def _apply_data(self, sink: Sink, run: KnownRun, event: events.AnyEvent, in_doubt: bool) -> None:
        match event:
            case events.File() | events.Model():
                if isinstance(event, events.Model):
                    self._flush(sink, event.run, run)  # A logged model takes the parameters that its run has.
                self._store(sink, run, event, in_doubt)
            case events.Input():
                self._add_input(sink, run, event)
            case events.Table():
                omitted = self._tables.take(run.run_id, event, self.directory, in_doubt=in_doubt)
                if omitted is not None:
                    self._omit(event.run, event.path, omitted)

    def _open(self, sink: Sink, event: events.Open, in_doubt: bool) -> None:
        run = self.runs.get(event.run)
        if run is None:
            parent = None
            tags = _compose.process_tags(self.origin) | (self._git or {}) | _compose.run_tags(event)
            if event.parent is not None:
                parent = self.runs.get(event.parent) or self._find_foreign(event.parent, self)
                tags |= (
                    {"trackdsl.parent.missing": event.parent.hex()}
                    if parent is None
                    else {"mlflow.parentRunId": parent.run_id}
                )
            run, texts = self._creation.create(sink, event, parent, tags, in_doubt=in_doubt)
            self._of(event.run).texts.update(texts)
            self.runs.add(event.run, run)
            if self._git is None:
                self._without_git.append(event.run)
        self._add_params(sink, run, event.run, event.params)

    def _add_metric(self, run: bytes, key: str, value: float, step: int, at: int) -> None:
        milliseconds = self._spacing.place(run, key, step, value, at // 1_000_000)
        pending = self._of(run)
        pending.add_metric(key, value, milliseconds, step)
        if math.isinf(value):
            pending.add_tag(
                f"trackdsl.infinite.{key}", f"{value} at step {step} is the largest number to MLflow's store"
            )

    def _add_params(self, sink: Sink, run: KnownRun, id_: bytes, values: dict[str, events.Scalar]) -> None:
        if not values:
            return
        if run.params is None:
            try:
                run.params = sink.params(run.run_id)
            except Refused:  # The run is gone for good; what is written to it will be refused, and told.
                run.params = {}
        fresh = Pending()
        for key, value in values.items():
            fresh.add_param(key, value)
        pending = self._of(id_)
        for key, text in fresh.batch.params.items():
            known = run.params.setdefault(key, text)
            if known == text:
                pending.batch.params[key] = text
            else:
                # MLflow would refuse the whole batch: the first value stands, the later one is told.
                pending.add_tag(f"trackdsl.param.later.{key}", text)
        pending.batch.tags.update(fresh.batch.tags)
        pending.texts.update(fresh.texts)

    def _store(self, sink: Sink, run: KnownRun, event: Stored, in_doubt: bool) -> None:
        place = place_of(event)
        omitted = self._artifacts.store(sink, run, event, in_doubt=in_doubt)
        if omitted is not None:
            self._omit(event.run, place, omitted)
        elif event.handler:
            key, value = _compose.artifact_tag(place, event.handler, event.sha256)
            self._of(event.run).add_tag(key, value)

    def _omit(self, run: bytes, place: str, reason: str) -> None:
        self._of(run).add_tag(f"trackdsl.omitted.{place}", reason[:500])
        logger.warning("trackdsl: %r is left out: %s", place, reason)

    def _add_input(self, sink: Sink, run: KnownRun, event: events.Input) -> None:
        try:
            sink.write_input(run.run_id, event)
        except Refused as error:
            check_experiment(sink, run, error)
            self._of(event.run).add_tag(f"trackdsl.omitted.{event.name}", f"MLflow refused the dataset: {error}"[:500])
            self._refuse(f"the dataset {event.name!r} of run {run.run_id}", error)

    def _close(self, sink: Sink, run: KnownRun, event: events.Close) -> None:
        pending = self._of(event.run)
        if event.failure is not None:
            for key, value in _compose.failure_tags(event.failure).items():
                pending.add_tag(key, value)
        if event.lost:
            pending.add_tag("trackdsl.lost_events", str(event.lost))
        self._flush(sink, event.run, run)
        self._end(sink, run, event.status, event.time // 1_000_000)
        if self.runs.get(event.run) is run:
            self.runs.close(event.run)

    def _end(self, sink: Sink, run: KnownRun, status: str, end: int) -> None:
        try:
            sink.end_run(run.run_id, status, end)
        except Refused as error:
            # The run was deleted at MLflow: there is nothing left to end.
            self._refuse(f"the end of run {run.run_id}", error)

    def _of(self, run: bytes) -> Pending:
        pending = self._pending.get(run)
        if pending is None:
            pending = self._pending[run] = Pending()
        return pending

    def _flush_all(self, sink: Sink) -> None:
        for id_ in list(self._pending):
            run = self.runs.get(id_) or self._find_foreign(id_, self)
            if run is not None:
                self._flush(sink, id_, run)

    def _flush(self, sink: Sink, id_: bytes, run: KnownRun) -> None:
        pending = self._pending.pop(id_, None)
        if pending is None:
            return
        for part in _compose.split(pending.batch):
            try:
                sink.write(run.run_id, part)
            except Refused as error:
                if sink.status(run.run_id) == GONE:
                    self._refuse(f"everything else of run {run.run_id}, which is deleted", error)
                    return
                self._write_singly(sink, run, part)
        for place, text in pending.texts.items():
            try:
                sink.write_text(run.run_id, text, place)
            except Refused as error:
                self._refuse(f"{place} of run {run.run_id}", error)

    def _write_singly(self, sink: Sink, run: KnownRun, batch: Batch) -> None:
        refused: dict[str, str] = {}
        for single in _compose.singles(batch):
            try:
                sink.write(run.run_id, single)
            except Refused as error:
                name = next(iter([*single.params, *single.tags, *(point[0] for point in single.metrics)]))
                refused[_limits.fit_key(f"trackdsl.refused.{name}")] = _limits.fit_text(str(error), 500)
                self._refuse(f"{name!r} of run {run.run_id}", error)
        try:
            for part in _compose.split(Batch(tags=refused)):
                sink.write(run.run_id, part)
        except Refused as error:
            self._refuse(f"run {run.run_id}", error)

    def _refuse(self, what: str, error: Exception) -> None:
        self.progress.error = mask_text(f"MLflow refused {what}: {error}")[:1000]
        logger.warning("trackdsl: %s", self.progress.error)

    def _skip_orphan(self, id_: bytes) -> None:
        if not self.progress.orphans:
            logger.warning(
                "trackdsl: nothing is known of run %s, of which %s tells; it is left out", id_.hex(), self.directory
            )
        self.progress.orphans += 1

    def _skip_damage(self) -> None:
        self.progress.damaged += 1
        logger.warning("trackdsl: a damaged record in %s was skipped", self.directory)
        for id_ in self.runs.still_open()[:1]:
            self._of(id_).add_tag("trackdsl.damaged_records", str(self.progress.damaged))

    def _take_git(self, sink: Sink) -> None:
        if self._git is None:
            self._git = _compose.git_tags(self.directory)
        # One by one: where the store goes away in between, the rest is told the next time.
        while self._git is not None and self._without_git:
            run = self.runs.get(self._without_git[-1])
            if run is not None and self._git:
                try:
                    sink.write(run.run_id, Batch(tags=self._git))
                except Refused as error:
                    self._refuse(f"the git tags of run {run.run_id}", error)
            self._without_git.pop()

    def _rest(self, sink: Sink, alive: bool) -> bool:
        """What is left to do when everything is read."""
        return self._retry_deferred(sink) if alive else self._finish(sink)

    def _retry_deferred(self, sink: Sink) -> bool:
        delivered = self._artifacts.retry(sink)
        delivered = self._tables.upload(sink, self.directory) or delivered
        if delivered:
            self.progress.deferred = self._deferred()
            self._file.write(self.progress)
        return delivered

    def _deferred(self) -> int:
        return len(self._artifacts) + self._tables.waiting(self.directory)

    def _finish(self, sink: Sink) -> bool:
        """End what a dead writer left open, and remove the journal."""
        if self._git is None and self._without_git and self._age() < _GIT_PATIENCE:
            return False
        self._creation.settle(sink, self.runs)
        lost = self._reader.lost()
        for id_ in self.runs.still_open():
            run = self.runs.get(id_)
            assert run is not None
            if sink.status(run.run_id) != "RUNNING":
                self.runs.close(id_)  # The note of its end was lost.
                continue
            pending = self._of(id_)
            pending.add_tag("trackdsl.ended", _DIED)
            if lost:
                pending.add_tag("trackdsl.lost_events", f"{lost} of the whole process")
            self._flush(sink, id_, run)
            self._end(sink, run, "KILLED", (self._last_time or self._newest_time()) // 1_000_000)
            self.runs.close(id_)
        self._retry_deferred(sink)
        if self._deferred():
            raise Unavailable(self._artifacts.reason if self._artifacts else self._tables.reason)
        self.finished = True
        self.close()
        remove_journal(self.directory)
        return True

    def _age(self) -> float:
        return (time.time_ns() - self.origin.time) / 1e9

    def _newest_time(self) -> int:
        # The last event was delivered by an earlier process: the file was last touched when it was written.
        found = segments(self.directory)
        path = self.directory / f"{found[-1]:06d}.seg" if found else self.directory
        return path.stat().st_mtime_ns

    def _note_intent(self) -> None:
        position = self._reader.position
        self.progress.intent_segment, self.progress.intent_offset = position
        self._file.write(self.progress)

    def _note_done(self, count: int) -> None:
        position = self._reader.position
        self.progress.segment, self.progress.offset = position
        self.progress.events += count
        self.progress.blocked_since = 0
        self.progress.deferred = self._deferred()
        self.progress.points = self._spacing.remembered()
        self._file.write(self.progress)
        for number in segments(self.directory):
            if number < position.segment:
                (self.directory / f"{number:06d}.seg").unlink(missing_ok=True)
