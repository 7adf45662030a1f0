"""Creates the runs of a stretch concurrently, before its events are applied, where each creation is a request.

This is for what is ordinary: a new run whose parent is known or is created together with it. All others are created
when their events are applied, one after the other, and so is a run that the store refuses here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from trackdsl._core import events
from trackdsl.delivery.batches._compose import Pending
from trackdsl.delivery.runs._creation import RunCreation
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._sink import CreatesConcurrently, NewRun, Sink

if TYPE_CHECKING:
    from trackdsl.delivery.runs._remote_runs import RemoteRuns
    from trackdsl.delivery.state._open_journal import OpenJournal

_Planned = tuple[NewRun, DeliveredRun, Pending]


class EarlyCreation:
    """Creates runs of one journal before their events are applied.

    Args:
        stream: the journal.
        remote_runs: knows the journals of other processes.
        creation: creates its runs.
        tags: the tags of a run that its event opens.
    """

    def __init__(
        self,
        stream: OpenJournal,
        remote_runs: RemoteRuns,
        creation: RunCreation,
        tags: Callable[[events.Open], dict[str, str]],
    ) -> None:
        self._stream = stream
        self._runs = stream.runs
        self._remote_runs = remote_runs
        self._creation = creation
        self._tags = tags
        #: What is still to be written to runs whose events are not applied.
        self._rests: dict[bytes, Pending] = {}

    def create(self, sink: Sink, opened: list[tuple[events.Open, bool]]) -> None:
        """Create runs, as far as that needs no question to the store.

        Args:
            sink: the store.
            opened: the events that open runs, and whether each may have been applied before.

        Raises:
            Unavailable: the store cannot be reached.
        """
        planned: dict[bytes, _Planned] = {}
        for event, in_doubt in opened:
            plan = self._plan(sink, event, in_doubt, planned)
            if plan is not None:
                planned[event.run] = plan

        def created(new: NewRun) -> None:
            _, run, rest = planned[new.id_]
            run.run_id, run.made = new.run_id, time.monotonic()
            self._runs.add(new.id_, run)
            self._rests[new.id_] = rest

        try:
            if planned:
                cast(CreatesConcurrently, cast(Any, sink)).create_runs([new for new, *_ in planned.values()], created)
        finally:
            for new, *_ in planned.values():
                self._creation.record_outcome(new)

    def take(self, id_: bytes) -> Pending | None:
        """The rest of the first content of a run that was created early, given out once; None for any other run."""
        return self._rests.pop(id_, None)

    def _plan(self, sink: Sink, event: events.Open, in_doubt: bool, planned: dict[bytes, _Planned]) -> _Planned | None:
        ordinary = event.rank is None and not event.continued_id and not self._stream.origin.after
        if not ordinary or event.run in planned or self._runs.get(event.run) is not None:
            return None
        if self._creation.may_exist(event.run, in_doubt):
            return None
        if self._remote_runs.of_same_program(self._stream, event.run) is not None:
            return None
        parent: NewRun | DeliveredRun | None = None
        if event.parent is not None:
            parent = planned[event.parent][0] if event.parent in planned else self._runs.get(event.parent)
            if parent is None:
                return None
        return self._creation.plan(sink, event, parent, self._tags(event))
