"""Parents of runs, if parent and child are recorded by different processes, perhaps on different machines.

If a parent does not come in time, its child is created as a root with the tag `trackdsl.parent.missing`. The two are
linked if the parent is created later: after delivery creates such a child, it asks for the parent once more; after it
creates a run late, it looks for such children. A run counts as late after GRACE/2. A child waits for at least GRACE
after it was recorded, so no child can have been given up before that. Runs that are delivered in time, which is nearly
all, cost nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from trackdsl._core import events
from trackdsl.delivery._blocked import check_experiment
from trackdsl.delivery._run_map import DeliveredRun
from trackdsl.delivery._sink import Sink
from trackdsl.delivery._store_errors import Refused
from trackdsl.delivery._timing import timing

if TYPE_CHECKING:
    from trackdsl.delivery._open_journal import OpenJournal
    from trackdsl.delivery._remote_runs import RemoteRuns


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
        runs.note_without_parent(event.run, id_)
        # A run may only seem lost, if journals wait for each other: then it is asked for once more.
        self._asks = self._asks or not self._remote_runs.is_lost(id_)
        return None, {"trackdsl.parent.missing": id_.hex()}

    def opened(self, event: events.Open) -> None:
        """Note that a run exists."""
        if time.time() - event.time / 1e9 >= timing().missing_run / 2:
            self._late = True

    def relink(self, sink: Sink) -> None:
        """Link children and parents that were found since; called before a stretch is noted as delivered."""
        runs = self._stream.runs
        if self._late:
            for run_id, missing in sink.find_without_parent(self._stream.prefix.hex()):
                with contextlib.suppress(ValueError):
                    parent = runs.get(bytes.fromhex(missing))
                    if parent is not None:
                        link(sink, run_id, parent, self._stream.note_refusal)
            self._late = False
        if runs.without_parent:
            ask = self._remote_runs.ask_again if self._asks else lambda _, id_: self._remote_runs.known(id_)
            parents = {id_: ask(sink, id_) for id_ in set(runs.without_parent.values())}
            for child, id_ in list(runs.without_parent.items()):
                run, parent = runs.get(child), parents[id_]
                if run is not None and parent is not None:
                    link(sink, run.run_id, parent, self._stream.note_refusal)
                    runs.note_parent(child)
            self._asks = False


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
