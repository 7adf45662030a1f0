"""The runs of one journal, as known to its delivery; `store_format.known_runs` describes how the ledger keeps them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from trackdsl.delivery.state._ended_runs import EndedRuns
from trackdsl.delivery.state._ledger import Ledger
from trackdsl.delivery.store._fallback_encoding import Keys
from trackdsl.errors import logger
from trackdsl.store_format.known_runs import KnownRun, run_of, value_of
from trackdsl.store_format.ledger import RANK, RUN, WITHOUT_PARENT, Kind, RunValue


@dataclass
class DeliveredRun(KnownRun):
    """A run that exists at MLflow, with what its delivery has learned of it.

    A run that has ended is another object after `RunMap.shrink`, and what was learned has to be asked for again.

    Attributes:
        params: parameters that MLflow has, by name; None if they were not looked up yet.
        keys: its keys, if the store may treat several keys as equal.
        made: when this process created it, on the monotonic clock; minus infinity if another process did.
    """

    params: dict[str, str] | None = None
    keys: Keys | None = None
    made: float = -math.inf


class RunMap:
    """The runs of one journal.

    Args:
        ledger: the journal's ledger.

    Attributes:
        without_parent: runs that were, or will be, created without their parents, with our ids of the parents.
        ranks: runs of ranks, with our ids of their shared roots.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        #: The keys of notes that are not written yet, and what undoes them, while they are collected.
        self._collected: dict[tuple[Kind[bytes, Any], bytes], None] | None = None
        self._undo: list[Callable[[], object]] = []
        self._runs: dict[bytes, DeliveredRun] = {}
        self._ended = EndedRuns()
        #: Runs in `_runs` that are to be moved to `_ended`, if they have ended.
        self._ending: list[bytes] = []
        for id_, value in ledger.load(RUN, self._values).items():
            run = run_of(id_, value)
            if run.open or not self._shrunk(id_, run):
                self._runs[id_] = DeliveredRun(run.run_id, run.experiment_id, run.open, run.ours, run.continued)
        self.without_parent = ledger.load(WITHOUT_PARENT, lambda: self.without_parent.items())
        self.ranks = ledger.load(RANK, lambda: self.ranks.items())

    def __len__(self) -> int:
        return len(self._runs) + len(self._ended)

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Write the entries at the end of this context, all at once; if it raises, forget them."""
        self._collected = {}
        try:
            yield
        except BaseException:
            self._collected = None
            for undo in reversed(self._undo):
                undo()
            raise
        else:
            collected, self._collected = self._collected, None
            self._write(kind.change(key, self._value(kind, key)) for kind, key in collected)
        finally:
            self._undo.clear()

    def get(self, id_: bytes) -> DeliveredRun | None:
        """The run with our id, if it exists at MLflow."""
        run = self._runs.get(id_)
        return self._restored(id_) if run is None else run

    def add(self, id_: bytes, run: DeliveredRun) -> None:
        """Add a run that exists."""
        self._set(id_, run)
        self._write_entry(RUN, id_)

    def adopt(self, id_: bytes, run: DeliveredRun) -> None:
        """Add a run that another process opened and ends."""
        self._set(id_, replace(run, open=False, ours=False, continued=False))
        self._write_entry(RUN, id_)

    def resume(self, id_: bytes, run: DeliveredRun) -> None:
        """Add a run that was resumed under its own id."""
        self._set(id_, run)
        self._write_entry(RUN, id_)

    def open_as(self, run_id: str) -> list[bytes]:
        """Our ids of this journal's open runs that are a certain MLflow run."""
        return [id_ for id_, run in self._runs.items() if run.run_id == run_id and run.open]

    def continued(self) -> list[str]:
        """MLflow's ids of the runs that the program of this journal has resumed."""
        return [run.run_id for run in self._runs.values() if run.continued]

    def close(self, id_: bytes) -> None:
        """Mark a run that was got as ended."""
        run = self._runs[id_]
        if self._collected is not None:
            self._undo.append(partial(setattr, run, "open", run.open))
        run.open = False
        run.params = None
        self._ending.append(id_)
        self._write_entry(RUN, id_)

    def shrink(self) -> None:
        """Keep of the runs that have ended only what is stored nowhere else; called when their stretch is delivered."""
        for id_ in self._ending:
            run = self._runs.get(id_)
            if run is not None and not run.open and self._shrunk(id_, run):
                del self._runs[id_]
        self._ending.clear()

    def mark_without_parent(self, id_: bytes, parent: bytes) -> None:
        """Write, before it is created, that a run has no parent: the parent must be looked up later."""
        if id_ not in self.without_parent:
            self.without_parent[id_] = parent
            # Written at once, and not undone: the store may have created the run although the rest of its stretch
            # fails.
            self._write([WITHOUT_PARENT.change(id_, parent)])

    def mark_with_parent(self, id_: bytes) -> None:
        """Write that such a run has got its parent."""
        parent = self.without_parent.pop(id_)
        self._undo.append(partial(self.without_parent.__setitem__, id_, parent))
        self._write_entry(WITHOUT_PARENT, id_)

    def mark_rank(self, id_: bytes, root: bytes) -> None:
        """Write, before it is created, that a run is that of a rank: its end may be that of the root."""
        before = self.ranks.get(id_)
        if before != root:
            self._undo.append(partial(self.ranks.__setitem__, id_, before) if before else partial(self.ranks.pop, id_))
            self.ranks[id_] = root
            self._write_entry(RANK, id_)

    def still_open(self) -> list[bytes]:
        """Ids of the runs that have not ended, latest first."""
        return [id_ for id_, run in reversed(self._runs.items()) if run.open]

    def maybe_written(self) -> list[bytes]:
        """Ids of the runs that the program of this journal may still write to, including those that others end."""
        return [id_ for id_, run in self._runs.items() if run.open or not run.ours]

    def ours(self) -> list[bytes]:
        """Ids of the runs that the program of this journal opened."""
        return [*(id_ for id_, _ in self._ended), *(id_ for id_, run in self._runs.items() if run.ours)]

    def _shrunk(self, id_: bytes, run: KnownRun) -> bool:
        return run.ours and not run.continued and run.run_id == id_.hex() and self._ended.add(id_, run.experiment_id)

    def _restored(self, id_: bytes) -> DeliveredRun | None:
        """A run that has ended, until `shrink` is called."""
        experiment_id = self._ended.get(id_)
        if experiment_id is None:
            return None
        self._ended.remove(id_)
        self._ending.append(id_)
        run = self._runs[id_] = DeliveredRun(id_.hex(), experiment_id, open=False)
        return run

    def _set(self, id_: bytes, run: DeliveredRun) -> None:
        before = self.get(id_)
        if self._collected is not None:
            self._undo.append(partial(self._runs.pop, id_) if before is None else partial(self._set, id_, before))
        self._runs[id_] = run

    def _write_entry(self, kind: Kind[bytes, Any], key: bytes) -> None:
        if self._collected is not None:
            self._collected[kind, key] = None
            return
        self._undo.clear()
        self._write([kind.change(key, self._value(kind, key))])

    def _value(self, kind: Kind[bytes, Any], key: bytes) -> RunValue | bytes | None:
        if kind is RUN:
            return value_of(key, self._runs[key])
        return (self.without_parent if kind is WITHOUT_PARENT else self.ranks).get(key)

    def _values(self) -> Iterator[tuple[bytes, RunValue]]:
        for id_, experiment_id in self._ended:
            yield id_, value_of(id_, KnownRun(id_.hex(), experiment_id, open=False))
        for id_, run in self._runs.items():
            yield id_, value_of(id_, run)

    def _write(self, changes: Iterable[tuple[int, bytes, Any]]) -> None:
        try:
            self._ledger.write(changes)
        except OSError as error:
            # Delivery continues: the facts about runs can also be found at MLflow, by tag.
            logger.warning("trackdsl cannot write the list of runs: %s", error)
