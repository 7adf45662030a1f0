"""Parents of runs, where parent and child are recorded by different processes, perhaps on different machines.

A child whose parent did not come in time is created as a root that is tagged `trackdsl.parent.missing`. If the parent
is created after all, one of two finds the other: whoever creates such a child asks for its parent once more afterwards,
and whoever creates a run late looks for such children afterwards. Late is sooner than a child can have been given up,
which takes `GRACE` from when it was recorded, and that was after its parent: so what is delivered in time, which is
nearly everything, costs nothing.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from trackdsl._core import events
from trackdsl.delivery import _remote_runs as _foreign
from trackdsl.delivery._run_map import DeliveredRun
from trackdsl.delivery._sink import Refused, Sink

if TYPE_CHECKING:
    from trackdsl.delivery._open_journal import OpenJournal
    from trackdsl.delivery._remote_runs import ForeignRuns


class Parents:
    """Finds the parents of the runs of one journal.

    Args:
        stream: the journal.
        foreign: finds the runs of others.
    """

    def __init__(self, stream: OpenJournal, foreign: ForeignRuns) -> None:
        self._stream = stream
        self._foreign = foreign
        self._late = False
        self._asks = bool(stream.runs.orphans)

    def find(self, sink: Sink, event: events.Open) -> tuple[DeliveredRun | None, dict[str, str]]:
        """The parent of a run that is to be created, and the tags that tell of it.

        Raises:
            NotYet: it may still come.
        """
        runs, id_ = self._stream.runs, event.parent
        if id_ is None:
            return None, {}
        parent = runs.get(id_) or self._foreign.find(sink, self._stream, id_, event.time, event.experiment)
        if parent is not None:
            return parent, {"mlflow.parentRunId": parent.run_id}
        runs.note_orphan(event.run, id_)
        # One that is lost may only be thought to be: where journals wait for each other.
        self._asks = self._asks or not self._foreign.is_lost(id_)
        return None, {"trackdsl.parent.missing": id_.hex()}

    def opened(self, event: events.Open) -> None:
        """Take note of a run that exists now, or did already."""
        if time.time() - event.time / 1e9 >= _foreign.GRACE / 2:
            self._late = True

    def mend(self, sink: Sink) -> None:
        """Bring together what can be; called before a stretch counts as delivered."""
        runs = self._stream.runs
        if self._late:
            for run_id, missing in sink.find_orphans(self._stream.prefix.hex()):
                with contextlib.suppress(ValueError):
                    parent = runs.get(bytes.fromhex(missing))
                    if parent is not None:
                        _link(sink, run_id, parent)
            self._late = False
        if runs.orphans:
            ask = self._foreign.ask_again if self._asks else lambda _, id_: self._foreign.known(id_)
            found = {id_: ask(sink, id_) for id_ in set(runs.orphans.values())}
            for child, id_ in list(runs.orphans.items()):
                run, parent = runs.get(child), found[id_]
                if run is not None and parent is not None:
                    _link(sink, run.run_id, parent)
                    runs.note_parent(child)
            self._asks = False


def _link(sink: Sink, run_id: str, parent: DeliveredRun) -> None:
    with contextlib.suppress(Refused):  # It has been deleted.
        sink.link(run_id, parent.run_id)
