"""Parents of runs, if parent and child are recorded by different processes, perhaps on different machines.

If a parent does not come in time, its child is created as a root with the tag `trackdsl.parent.missing`. The two are
linked if the parent is created later: after delivery creates such a child, it asks for the parent once more; after it
creates a run late, it looks for such children. A child whose experiment is deleted at that moment is blocked, and
linked when the experiment is restored. A run counts as late after GRACE/2. A child waits for at least GRACE
after it was recorded, so no child can have been given up before that. Runs that are delivered in time, which is nearly
all, cost nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from trackdsl._core import events
from trackdsl.delivery._timing import timing
from trackdsl.delivery.state._blocked import check_experiment
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._errors import Refused, RunBlocked
from trackdsl.delivery.store._sink import Sink

if TYPE_CHECKING:
    from trackdsl.delivery.runs._deferral import Deferral
    from trackdsl.delivery.runs._remote_runs import RemoteRuns
    from trackdsl.delivery.state._open_journal import OpenJournal


class Parents:
    """Finds the parents of the runs of one journal.

    Args:
        stream: the journal.
        remote_runs: finds the runs of other journals.
    """

    def __init__(self, stream: OpenJournal, remote_runs: RemoteRuns) -> None:
        self._stream = stream
        self._remote_runs = remote_runs
        self._late = False
        self._asks = bool(stream.runs.without_parent)

    def find(self, sink: Sink, event: events.Open) -> tuple[DeliveredRun | None, dict[str, str]]:
        """The parent of a run that is to be created, and the tags for the link.

        Raises:
            NotYet: it may still come.
        """
        runs, id_ = self._stream.runs, event.parent
        if id_ is None:
            return None, {}
        parent = runs.get(id_) or self._remote_runs.find(sink, self._stream, id_, event.time, event.experiment)
        if parent is not None:
            return parent, {"mlflow.parentRunId": parent.run_id}
        runs.mark_without_parent(event.run, id_)
        # A run may only seem lost, if journals wait for each other: then it is asked for once more.
        self._asks = self._asks or not self._remote_runs.is_lost(id_)
        return None, {"trackdsl.parent.missing": id_.hex()}

    def opened(self, event: events.Open) -> None:
        """A run exists. If it comes late, children may have missed it."""
        if time.time() - event.time / 1e9 >= timing().missing_run / 2:
            self._late = True

    def relink(self, sink: Sink, deferral: Deferral) -> None:
        """Link children and parents that were found since; called before a stretch is written down as delivered.

        Args:
            sink: the store.
            deferral: blocks a child whose experiment is deleted, until it is restored.
        """
        runs = self._stream.runs
        if self._late:
            found = sink.find_without_parent(self._stream.prefix.hex())
            linked = [self._link_late(sink, run_id, missing) for run_id, missing in found]
            self._late = not all(linked)
        if runs.without_parent:
            ask = self._remote_runs.ask_again if self._asks else lambda _, id_: self._remote_runs.known(id_)
            parents = {id_: ask(sink, id_) for id_ in set(runs.without_parent.values())}
            for child, id_ in list(runs.without_parent.items()):
                run, parent = runs.get(child), parents[id_]
                # One that is held back is linked once that is delivered.
                if run is not None and parent is not None and child not in deferral.held.runs:
                    self._link(sink, child, run, parent, deferral)
            self._asks = False

    def link_held(self, sink: Sink, child: bytes) -> None:
        """Link a child whose held events were delivered just now, if its parent has been found since.

        Raises:
            RunBlocked: its experiment is deleted.
        """
        runs, id_ = self._stream.runs, self._stream.runs.without_parent.get(child)
        run, parent = runs.get(child), None if id_ is None else self._remote_runs.ask_again(sink, id_)
        if run is not None and parent is not None:
            link(sink, run.run_id, parent, self._stream.record_refusal)
            runs.mark_with_parent(child)

    def _link(self, sink: Sink, child: bytes, run: DeliveredRun, parent: DeliveredRun, deferral: Deferral) -> None:
        try:
            link(sink, run.run_id, parent, self._stream.record_refusal)
        except RunBlocked as error:
            if child not in deferral.dropped:
                # Held without a tag: when it is delivered, the child is linked.
                if not deferral.block_with(sink, events.Tags(child, {}), error):
                    raise
                return
        self._stream.runs.mark_with_parent(child)

    def _link_late(self, sink: Sink, run_id: str, missing: str) -> bool:
        """Link a run to a parent that came late; False if that has to be tried again."""
        parent = None
        with contextlib.suppress(ValueError):
            parent = self._stream.runs.get(bytes.fromhex(missing))
        try:
            if parent is not None:
                link(sink, run_id, parent, self._stream.record_refusal)
        except RunBlocked:  # Its experiment was deleted a moment ago, and may be restored.
            return False
        return True


def link(sink: Sink, run_id: str, parent: DeliveredRun, refuse: Callable[[str, Exception], None]) -> None:
    """Make a run the child of another one, unless it is deleted.

    Args:
        sink: the store.
        run_id: the store's id of the run.
        parent: its parent.
        refuse: called with what the store refused, and its answer.

    Raises:
        RunBlocked: its experiment is deleted, and may be restored.
    """
    try:
        sink.link(run_id, parent.run_id)
    except Refused as error:
        state = sink.state(run_id)
        if state is not None:
            check_experiment(sink, state.experiment_id, error)
            if not state.deleted:
                refuse(f"{parent.run_id} as the parent of run {run_id}", error)
