"""Milliseconds for the metric points of runs that several journals write to; `TimestampDedup` does it for one journal.

A journal that writes to a run of another process gets the millisecond of every point from here: the first free one,
beginning with the recorded one. A millisecond is occupied if it was assigned here before, if the store has a point at
it, or if the run's own journal has used it since. An assignment is written down before the point is sent, once for each
point: a point that is sent again gets the same millisecond. The ledger of the server keeps the journals that write to a
run, and of each point that got its millisecond here

    (MLflow's id of the run, key, step, value, time): (journal, held, segment, offset)

where it was read; empty if it is not free for another reason. All of a run is forgotten with the last of its journals.

The run's own journal, which may have millions of points, writes nothing here. It avoids the milliseconds that were
assigned here, and otherwise derives its milliseconds from the journal alone. After a crash these may differ from those
that were sent before, if others were assigned here in between. No point is lost or doubled: equal points cannot be
distinguished, and together they occupy the same milliseconds, in whichever order they are assigned.

A spool does not know the points that another machine is delivering, and the run's own journal does not ask the store.
If two equal points get the same millisecond there and here, MLflow keeps one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from trackdsl.delivery.state._ledger import Ledger
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.delivery.store._sink import Sink
from trackdsl.journal._segments import Position
from trackdsl.journal._spool import JOURNALS, is_journal_name
from trackdsl.store_format import limits as _limits
from trackdsl.store_format.ledger import POINT, SHARED_BY, PointKey, PointSource

#: How much earlier than a point the look-up of the store's points begins, in milliseconds, for later points.
_MARGIN = 60_000
#: How many of the store's points of one metric are remembered, unless there are more in that time.
_MOST_SEEN = 200_000
#: If more milliseconds of one run are assigned, those that no later point can need are forgotten.
_MOST_OCCUPIED = 100_000
#: How long after its journals were read past them, in milliseconds.
_FORGET_AFTER = 600_000
_INT64 = 1 << 63

#: Step and value, as MLflow stores them.
Identity = tuple[int, float | str]
_NOWHERE: PointSource = ("", False, 0, 0)


class Source(NamedTuple):
    """Where a point was read: the position behind its event, and whether the event was held; see `HeldEvents`."""

    journal: str
    end: Position
    held: bool = False


@dataclass
class _OtherPoints:
    """The points of one metric that were not assigned here, since a time."""

    since: int
    times: dict[Identity, set[int]] = field(default_factory=dict)
    count: int = 0
    most: int = _MOST_SEEN

    def add(self, identity: Identity, time: int) -> None:
        self.times.setdefault(identity, set()).add(time)
        self.count += 1


class SharedPoints:
    """Assigns milliseconds to points of remote runs.

    Args:
        ledger: keeps the assignments.
        spool: the spool's folder; no other process delivers from it to the same server meanwhile.
        reached: returns the time up to which some journals were read, in milliseconds since 1970.
    """

    def __init__(self, ledger: Ledger, spool: Path, reached: Callable[[set[str]], int]) -> None:
        self._reached = reached
        self._ledger = ledger
        self._journals = spool / JOURNALS
        self._runs: dict[str, SharedRun] = {}
        self._unwritten: dict[str, SharedRun] = {}
        for run_id, name in ledger.load(SHARED_BY, self._writers):
            if is_journal_name(name):
                self._run(run_id).journals.add(name)
        for (run_id, key, step, value, time), source in ledger.load(POINT, self._points).items():
            self._run(run_id).occupy(source, key, (step, value), time)
        self.remove_finished()

    def of(self, run_id: str, journal: str) -> SharedRun | None:
        """The assigned milliseconds of a run, if any, for a journal that assigns freely."""
        run = self._runs.get(run_id)
        if run is not None and journal not in run.journals:
            run.join(journal)
            self._unwritten[run_id] = run
        return run

    def assign(
        self, sink: Sink, run_id: str, source: Source, owners: Iterable[str], point: tuple[str, int, float, int]
    ) -> int:
        """The millisecond for a point; call `write_assignments` before it is sent.

        Args:
            sink: the store.
            run_id: MLflow's id of the run.
            source: where the point was read.
            owners: the run's own journals, which assign freely.
            point: key, step, value, and the time of recording in milliseconds since 1970.
        """
        run = self._run(run_id)
        run.join(source.journal, *owners)
        time = run.assign(sink, source, point)
        if run.unwritten:
            self._unwritten[run_id] = run
        return time

    def write_assignments(self) -> None:
        """Write the assignments to the disk.

        Raises:
            Unavailable: there is no space.
        """
        if not self._unwritten:
            return
        changes = [change for run in self._unwritten.values() for change in run.unwritten]
        try:
            self._ledger.write(changes, to_disk=True)
        except OSError as error:
            raise Unavailable(f"cannot write down points: {error}") from None
        for run in self._unwritten.values():
            run.unwritten.clear()
        self._unwritten.clear()

    def given(self, run_id: str, source: Source, key: str) -> int | None:
        """The millisecond that was assigned to a point before, if it may be asked for again, or None."""
        run = self._runs.get(run_id)
        return None if run is None else run.given_before(source, _limits.fit_key(key))

    def delivered(
        self, journal: str, *, held: bool = False, run_id: str | None = None, up_to: Position | None = None
    ) -> None:
        """What was assigned to points of a journal will not be asked for again.

        Args:
            journal: the journal.
            held: whether the points were held.
            run_id: the only run; None for all.
            up_to: the end of what is delivered. A stretch that failed may have been sent beyond it: its points are read
                again. None for the end of all.
        """
        for run in self._runs.values():
            if run_id not in (None, run.run_id):
                continue
            given = run.given.pop((journal, held), {})
            left = {} if up_to is None else {point: time for point, time in given.items() if point[0] > up_to}
            if left:
                run.given[journal, held] = left
            if run.count > run.most:
                run.forget(self._reached(run.journals) - _FORGET_AFTER)
        self._ledger.tidy()

    def remove_finished(self) -> None:
        """Forget the runs that no journal writes to any more."""
        for run_id, run in list(self._runs.items()):
            if not any((self._journals / name).is_dir() for name in run.journals):
                del self._runs[run_id]
                self._unwritten.pop(run_id, None)
        self._ledger.tidy()

    def _run(self, run_id: str) -> SharedRun:
        run = self._runs.get(run_id)
        if run is None:
            run = self._runs[run_id] = SharedRun(run_id)
        return run

    def _writers(self) -> Iterator[tuple[tuple[str, str], bool]]:
        for run in self._runs.values():
            for name in sorted(run.journals):
                yield (run.run_id, name), True

    def _points(self) -> Iterator[tuple[PointKey, PointSource]]:
        for run in self._runs.values():
            yield from run.points()


class SharedRun:
    """The points of one run with assigned milliseconds.

    Attributes:
        journals: those that are known to write to the run.
        given: by journal, the assignments of points that may not be delivered yet; separate for held events.
        count: how many milliseconds are not free.
        most: the count from which some are forgotten.
        unwritten: changes of the ledger that are not written yet.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.journals: set[str] = set()
        self.given: dict[tuple[str, bool], dict[tuple[Position, str], tuple[Identity, int]]] = {}
        self.count = 0
        self.most = _MOST_OCCUPIED
        self.unwritten: list[tuple[int, Any, Any]] = []
        self._occupied: dict[str, dict[Identity, set[int]]] = {}
        self._seen: dict[str, _OtherPoints] = {}

    def join(self, *journals: str) -> None:
        """Add journals that write to the run."""
        for name in journals:
            if name not in self.journals:
                self.journals.add(name)
                self.unwritten.append(SHARED_BY.change((self.run_id, name), True))

    def assign(self, sink: Sink, source: Source, point: tuple[str, int, float, int]) -> int:
        """See `SharedPoints.assign`."""
        key, identity, time = _identity(*point)
        before = self.given_before(source, key)
        if before is not None:
            return before
        occupied = self._occupied.get(key, {}).get(identity, ())
        seen = self._seen_since(sink, key, time).times.get(identity, ())
        while time in occupied or time in seen:
            time += 1
        read_at = (source.journal, source.held, *source.end)
        self.occupy(read_at, key, identity, time)
        self.unwritten.append(POINT.change((self.run_id, key, *identity, time), read_at))
        return time

    def given_before(self, source: Source, key: str) -> int | None:
        """See `SharedPoints.given`; `key` as MLflow has it."""
        before = self.given.get((source.journal, source.held), {}).get((source.end, key))
        return None if before is None else before[1]

    def occupied(self, key: str, step: int, value: float) -> set[int]:
        """The milliseconds that an equal point must avoid."""
        fitted, identity, _ = _identity(key, step, value, 0)
        return self._occupied.get(fitted, {}).get(identity, set())

    def add_point(self, key: str, step: int, value: float, time: int) -> None:
        """Add a point with a freely assigned millisecond."""
        fitted, identity, time = _identity(key, step, value, time)
        seen = self._seen.get(fitted)
        if seen is not None:
            seen.add(identity, time)

    def occupy(self, read_at: PointSource, key: str, identity: Identity, time: int) -> None:
        """Mark a millisecond as occupied, and where its point was read, if it was assigned here."""
        self._occupied.setdefault(key, {}).setdefault(identity, set()).add(time)
        self.count += 1
        journal, held, segment, offset = read_at
        if journal:
            self.given.setdefault((journal, held), {})[Position(segment, offset), key] = identity, time

    def points(self) -> Iterator[tuple[PointKey, PointSource]]:
        """All milliseconds that are not free, for the ledger."""
        sources: dict[tuple[str, Identity, int], PointSource] = {}
        for (journal, held), points in self.given.items():
            for (end, key), (identity, time) in points.items():
                sources[key, identity, time] = (journal, held, *end)
        for key, identities in self._occupied.items():
            for identity, times in identities.items():
                for time in times:
                    yield (self.run_id, key, *identity, time), sources.get((key, identity, time), _NOWHERE)

    def forget(self, before: int) -> None:
        """Forget milliseconds that no later point can need."""
        kept = [point for point in self.points() if point[1] is not _NOWHERE or point[0][-1] >= before]
        self.count = 0
        self.given.clear()
        self._occupied.clear()
        self._seen.clear()
        for (_, key, step, value, time), read_at in kept:
            self.occupy(read_at, key, (step, value), time)
        self.most = max(_MOST_OCCUPIED, 2 * self.count)

    def _seen_since(self, sink: Sink, key: str, time: int) -> _OtherPoints:
        seen = self._seen.get(key)
        if seen is None or time < seen.since or seen.count > seen.most:
            seen = _OtherPoints(time - _MARGIN)
            try:
                history = sink.metric_history(self.run_id, key)
            except Refused:  # The run is deleted; MLflow refuses what is written to it, which is reported.
                history = []
            for step, value, at in history:
                if at >= seen.since:
                    seen.add(_identity(key, step, value, at)[1], at)
            seen.most = max(_MOST_SEEN, 2 * seen.count)
            self._seen[key] = seen
        return seen


def _identity(key: str, step: int, value: float, time: int) -> tuple[str, Identity, int]:
    """A point as MLflow stores it: nan equals nan, and infinity is the largest number."""
    largest = sys.float_info.max
    same: float | str = "nan" if value != value else max(-largest, min(largest, float(value)))
    return _limits.fit_key(key), (min(max(step, -_INT64), _INT64 - 1), same), time
