"""The runs that `trackdsl watch` knows: the tree of what runs, and of what has ended as much as fits into memory."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from trackdsl._core import events
from trackdsl.journal._follower import Thinned

#: How many ended runs are kept; of the others only their number.
_MOST_ENDED = 2000
#: How many metrics of a run are kept: those with the latest points.
_MOST_METRICS = 12
#: How many points of a metric are kept, at least half of them: enough for a curve of a few characters.
_MOST_POINTS = 24
#: How many nested loops are kept, in addition to the outermost one.
_MOST_LOOPS = 4
#: The longest names and messages, in characters.
_LONGEST = 300
#: The status of a run that has ended if its journal does not say how.
ENDED = "ENDED"
RUNNING = "RUNNING"


@dataclass(eq=False, slots=True)
class WatchedRun:
    """A run.

    Attributes:
        id: trackdsl's id.
        name: the run's name.
        path: names from the root down, joined by `/`.
        journal: the name of the journal that ends it.
        began: when it began, in nanoseconds since 1970.
        parent_id: the run around it, or None.
        parent: the same, once it is known.
        children: those that are kept, in the order they began.
        status: `RUNNING`, `FINISHED`, `FAILED`, `KILLED`, or `ENDED` where it is unknown how it ended.
        ended: when it ended; None while it is open.
        failure: the exception that ended it: its type, and the first and the last line of its message.
        metrics: the values of each metric, those with the latest points last.
        steps: the step of the last point of each metric.
        loops: the `steps` loops that were reported last, from the outermost inwards.
        dropped: how many runs below it are not kept, by status.
        derived: whether no program ends it: the root of ranks, or a run of plain MLflow.
        version: a number that is higher after each change.
    """

    id: bytes
    name: str
    path: str
    journal: str
    began: int
    parent_id: bytes | None = None
    parent: WatchedRun | None = None
    children: dict[bytes, WatchedRun] = field(default_factory=dict)
    status: str = RUNNING
    ended: int | None = None
    failure: str | None = None
    metrics: dict[str, Thinned[float]] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    loops: list[events.Loop] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    derived: bool = False
    version: int = 0
    #: Whether it is in the queue of ended runs.
    queued: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it runs."""
        return self.ended is None

    def walk(self) -> Iterator[WatchedRun]:
        """This run and all that are kept below it, each before its children."""
        waiting = [self]
        while waiting:
            run = waiting.pop()
            yield run
            waiting += reversed(run.children.values())


class WatchedRuns:
    """The runs of all journals of a spool.

    Attributes:
        roots: runs without a known parent, by id, in the order they were seen.
        dropped: how many ended runs without a parent are not kept, with those below them, by status.
        totals: how many runs there were by status, whether they are kept or not.
        version: a number that is higher after each change.
        before_drop: is called with each run that is not kept any longer, as long as it is below the runs around it.
    """

    def __init__(self) -> None:
        self.before_drop: Callable[[WatchedRun], object] = lambda _: None
        self.totals: Counter[str] = Counter()
        self.roots: dict[bytes, WatchedRun] = {}
        self.dropped: dict[str, int] = {}
        self.version = 0
        self._runs: dict[bytes, WatchedRun] = {}
        #: Other ids of runs that were resumed.
        self._resumed: dict[bytes, bytes] = {}
        self._open: dict[str, dict[bytes, WatchedRun]] = {}
        #: Runs whose parents are not known (yet), by the id of the parent.
        self._waiting: dict[bytes, dict[bytes, WatchedRun]] = {}
        self._ended: deque[WatchedRun] = deque()

    def __iter__(self) -> Iterator[WatchedRun]:
        return iter(self._runs.values())

    def get(self, id_: bytes) -> WatchedRun | None:
        """The run with an id, if it is kept."""
        return self._runs.get(self._resumed.get(id_, id_))

    def open_in(self, journal: str) -> list[WatchedRun]:
        """The open runs that a journal ends."""
        return list(self._open.get(journal, {}).values())

    def apply(self, event: events.AnyEvent, journal: str) -> None:
        """Apply an event of a journal."""
        if isinstance(event, events.Open):
            self._begin(event, journal)
            return
        if isinstance(event, events.Adopt):
            if self.get(event.run) is None:
                label = event.mlflow_run_id[:8] or event.run.hex()[:8]
                self._add(WatchedRun(event.run, f"MLflow run {label}", "", journal, 0, derived=True))
            return
        run = self.get(event.run)
        if run is None:
            return
        if isinstance(event, events.Metric):
            self._add_point(run, event.key, event.value, event.step)
        elif isinstance(event, events.Metrics):
            for key, value in event.values.items():
                self._add_point(run, key, value, event.step)
        elif isinstance(event, events.Loop):
            run.loops[max(0, min(event.depth, _MOST_LOOPS)) :] = [event]
        elif isinstance(event, events.Close):
            self._end(run, event.status, event.time, _last_line(event.failure))
        else:
            return
        self._changed(run)

    def end(self, run: WatchedRun, status: str, time: int) -> None:
        """End a run whose end is in no journal."""
        self._end(run, status, time, None)
        self._changed(run)

    def count_unread(self, ids: Collection[bytes], journal: str) -> None:
        """Count ended runs of a journal of which nothing can be read any more.

        If one run is around all that is open in the journal, those that began after it count as below it.

        Args:
            ids: the ids of the runs.
            journal: the journal's name.
        """
        if not ids:
            return
        self.totals[ENDED] += len(ids)
        around = [run for run in self.open_in(journal) if run.parent is None or run.parent.journal != journal]
        below = sum(id_ > around[0].id for id_ in ids) if len(around) == 1 and not around[0].derived else 0
        if below:
            around[0].dropped[ENDED] = around[0].dropped.get(ENDED, 0) + below
            self._changed(around[0])
        if len(ids) > below:
            self.dropped[ENDED] = self.dropped.get(ENDED, 0) + len(ids) - below
        self.version += 1

    def _set_status(self, run: WatchedRun, status: str, ended: int | None) -> None:
        self.totals[run.status] -= 1
        self.totals[status] += 1
        run.status, run.ended = status, ended

    def _changed(self, run: WatchedRun) -> None:
        self.version += 1
        run.version = self.version

    def _begin(self, event: events.Open, journal: str) -> None:
        known = self.get(event.run) or self._earlier(event)
        if known is None:
            name, path = event.name[:_LONGEST], event.path[:_LONGEST]
            run = WatchedRun(event.run, name, path, journal, event.time, event.parent)
            if event.rank is not None and event.parent is not None and self.get(event.parent) is None:
                root = event.rank.root[:_LONGEST]
                self._add(WatchedRun(event.parent, root, root, journal, event.time, derived=True))
            self._add(run)
            return
        if known.derived and event.run == known.id:  # Another journal named it first.
            known.derived, known.name, known.path = False, event.name[:_LONGEST], event.path[:_LONGEST]
            known.began, known.parent_id = event.time, event.parent
            self._set_status(known, RUNNING, None)
            self.roots.pop(known.id, None)
            self._attach(known)
        elif event.run != known.id and not known.is_open:
            self._resumed[event.run] = known.id
            self._set_status(known, RUNNING, None)
            known.failure = None
        self._own(known, journal)
        self._changed(known)

    def _earlier(self, event: events.Open) -> WatchedRun | None:
        """The run that is resumed, if it is kept."""
        try:
            return self.get(bytes.fromhex(event.continued_id)) if event.continued_id else None
        except ValueError:
            return None

    def _add(self, run: WatchedRun) -> None:
        self._runs[run.id] = run
        self.totals[run.status] += 1
        self._attach(run)
        self._own(run, run.journal)
        for child in self._waiting.pop(run.id, {}).values():
            if all(child is not one for one in above(run)):  # A damaged journal may contain a circle.
                del self.roots[child.id]
                child.parent = run
                run.children[child.id] = child
        self._changed(run)

    def _attach(self, run: WatchedRun) -> None:
        parent = None if run.parent_id is None else self.get(run.parent_id)
        if parent is None or any(run is one for one in above(parent)):
            self.roots[run.id] = run
            if run.parent_id is not None:
                self._waiting.setdefault(run.parent_id, {})[run.id] = run
            return
        run.parent = parent
        parent.children[run.id] = run
        if parent.derived and not parent.is_open:
            self._set_status(parent, RUNNING, None)
            self._own(parent, parent.journal)

    def _own(self, run: WatchedRun, journal: str) -> None:
        if run.is_open:
            self._open.get(run.journal, {}).pop(run.id, None)
            self._open.setdefault(journal, {})[run.id] = run
        run.journal = journal

    def _add_point(self, run: WatchedRun, key: str, value: float, step: int) -> None:
        key = key[:_LONGEST]
        curve = run.metrics.pop(key, None)
        if curve is None:
            curve = Thinned(_MOST_POINTS)
            if len(run.metrics) >= _MOST_METRICS:
                oldest = next(iter(run.metrics))
                del run.metrics[oldest], run.steps[oldest]
        curve.append(value)
        run.metrics[key] = curve
        run.steps[key] = step

    def _end(self, run: WatchedRun, status: str, time: int, failure: str | None) -> None:
        self._set_status(run, status, max(time, run.began))
        run.failure = failure
        own = self._open.get(run.journal, {})
        own.pop(run.id, None)
        if not own:
            self._open.pop(run.journal, None)
        if not run.queued:
            run.queued = True
            self._ended.append(run)
        self._derive(run.parent, time)
        while len(self._ended) > _MOST_ENDED:
            oldest = self._ended.popleft()
            oldest.queued = False
            self._drop(oldest)

    def _derive(self, run: WatchedRun | None, time: int) -> None:
        """End a run that no program ends when all below it has ended."""
        if run is None or not run.derived or any(child.is_open for child in run.children.values()):
            return
        found = {child.status for child in run.children.values()} | set(run.dropped)
        status = next((one for one in ("FAILED", "KILLED", ENDED) if one in found), "FINISHED")
        self.end(run, status, time)

    def _drop(self, run: WatchedRun | None) -> None:
        """Drop an ended run without children, and the ended ones above it that have none left."""
        while run is not None and not run.is_open and not run.queued and not run.children:
            self.before_drop(run)
            parent = run.parent
            counts = self.dropped if parent is None else parent.dropped
            for status, count in (*run.dropped.items(), (run.status, 1)):
                counts[status] = counts.get(status, 0) + count
            self._runs.pop(run.id, None)
            self.roots.pop(run.id, None)
            if parent is not None:
                parent.children.pop(run.id, None)
            elif run.parent_id is not None and (others := self._waiting.get(run.parent_id)) is not None:
                others.pop(run.id, None)
                if not others:
                    del self._waiting[run.parent_id]
            run = parent


def above(run: WatchedRun | None) -> Iterator[WatchedRun]:
    """A run and those around it."""
    while run is not None:
        yield run
        run = run.parent


def _last_line(failure: events.Failure | None) -> str | None:
    """The last line of a traceback, behind the first line of the message where that has several."""
    if failure is None:
        return None
    first, *others = [line.strip() for line in failure.message.splitlines() if line.strip()] or [""]
    last = f" … {others[-1][: _LONGEST // 2]}" if others else ""
    whole = f"{failure.type}: {first}" if first else failure.type
    return whole[: _LONGEST - len(last)] + last
