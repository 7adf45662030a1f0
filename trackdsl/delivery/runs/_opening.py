"""Opening runs at the store: those that a program begins, resumes, or writes to without beginning them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackdsl._core import events
from trackdsl.delivery.batches import _compose
from trackdsl.delivery.runs._continued import Continuations
from trackdsl.delivery.runs._creation import RunCreation
from trackdsl.delivery.runs._early_creation import EarlyCreation
from trackdsl.delivery.runs._git_tags import GitTags
from trackdsl.delivery.runs._parents import Parents
from trackdsl.delivery.runs._shared import Shared
from trackdsl.delivery.runs._shared_roots import SharedRoots
from trackdsl.delivery.runs._writer import RunWriter
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._sink import Sink

if TYPE_CHECKING:
    from trackdsl.delivery.state._open_journal import OpenJournal


class RunOpening:
    """Opens the runs of one journal.

    Args:
        stream: the journal.
        shared: what the journals of its store share.
        creation: creates runs.
        writer: writes events to runs.
        git: adds the tags that come from git.
        roots: the shared roots of ranks.
        continued: the runs that its program resumes.

    Attributes:
        parents: finds the parents of its runs.
        early: creates runs before their events are applied.
        pending_tags: tags about damage that was found while no run was open: for the runs that are opened until they
            are delivered.
    """

    def __init__(
        self,
        stream: OpenJournal,
        shared: Shared,
        creation: RunCreation,
        writer: RunWriter,
        git: GitTags,
        roots: SharedRoots,
        continued: Continuations,
    ) -> None:
        self._stream = stream
        self._runs = stream.runs
        self._shared = shared
        self._creation = creation
        self._writer = writer
        self._git = git
        self._roots = roots
        self._continued = continued
        self.parents = Parents(stream, shared.remote_runs)
        self.early = EarlyCreation(stream, shared.remote_runs, creation, self._tags_of_new_run)
        self.pending_tags: dict[str, str] = {}
        self._opened_since = False

    def open(self, sink: Sink, event: events.Open, in_doubt: bool) -> None:
        """Open a run, or find it if it may exist already.

        Args:
            sink: the store.
            event: opens the run.
            in_doubt: whether the run may exist.
        """
        if event.continued_id:
            self._resume(sink, event, in_doubt)
            return
        run = self._runs.get(event.run)
        if run is None and (known := self._shared.remote_runs.of_same_program(self._stream, event.run)) is not None:
            # This event is repeated, because the journal that held it first was deleted.
            run = DeliveredRun(known.run_id, known.experiment_id)
            self._runs.add(event.run, run)
        in_doubt = in_doubt or bool(self._stream.origin.after)
        if run is not None and (rest := self.early.take(event.run)) is not None:
            self._begin(event.run, run, rest)
        elif run is not None:
            # The run may have been created just before delivery failed: what is not written on creation may be missing.
            rest = self._creation.remaining(run, self._tags(event, self._git.known()))
            self._add_rest(event.run, run, rest)
        else:
            parent, links = (self.parents if event.rank is None else self._roots).find(sink, event)
            tags = self._tags_of_new_run(event) | links
            run, rest = self._creation.create(sink, event, parent, tags, in_doubt=in_doubt)
            self._begin(event.run, run, rest)
            self._runs.add(event.run, run)
        self.parents.opened(event)
        self._roots.began(sink, event.run)
        self._writer.write(sink, run, event, (), in_doubt=in_doubt)
        self._shared.what_changed.opened(self._stream, event, run.run_id)

    def adopt(self, sink: Sink, event: events.Adopt) -> None:
        """Find the run that another process ends."""
        if self._runs.get(event.run) is None:
            run = self._shared.remote_runs.known(event.run)
            if run is None:
                state = self._continued.find(sink, event.run, event.mlflow_run_id)
                run = DeliveredRun(state.run_id, state.experiment_id)
            self._runs.adopt(event.run, run)

    def forget(self) -> None:
        """Forget which runs were opened: it will be read again."""
        self._opened_since = False

    def delivered(self) -> None:
        """The runs that were opened are delivered."""
        if self._opened_since:
            self.pending_tags, self._opened_since = {}, False

    def _begin(self, id_: bytes, run: DeliveredRun, rest: _compose.Pending) -> None:
        rest.batch.tags.update(self.pending_tags)
        self._opened_since = True
        self._add_rest(id_, run, rest)
        if run.params is not None:  # It was created, not found.
            self._shared.models.begin(run.run_id)

    def _tags_of_new_run(self, event: events.Open) -> dict[str, str]:
        return self._tags(event, self._git.of_new_run(event.run))

    def _tags(self, event: events.Open, git: dict[str, str]) -> dict[str, str]:
        return _compose.opening_tags(self._stream.origin, event, git, self._shared.own_tags.spool)

    def _resume(self, sink: Sink, event: events.Open, in_doubt: bool) -> None:
        """Resume a run, again if that may not be written down."""
        run = self._runs.get(event.run)
        if run is None or in_doubt:
            fresh = self._continued.resume(sink, event)
            if run is None:
                run = fresh
                self._runs.resume(event.run, run)
        self.parents.opened(event)
        for key, text in event.tags.items():
            self._writer.outbox.of(event.run, run).add_tag(key, text)
        self._writer.write(sink, run, event, (), in_doubt=in_doubt)
        self._shared.what_changed.opened(self._stream, event, run.run_id)

    def _add_rest(self, id_: bytes, run: DeliveredRun, rest: _compose.Pending) -> None:
        if rest.batch.tags or rest.texts:
            self._writer.outbox.of(id_, run).add(rest)
