"""Events → the run tree that they describe, without MLflow."""

# No `from __future__ import annotations`: `trackdsl.testing` shows classes of this module as its own, and would have to
# know all names in their annotations.

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from trackdsl._core import events
from trackdsl.journal._snapshots import UnsafeSnapshot, expected_path


class Point(NamedTuple):
    """One point of a metric; `time` in nanoseconds since 1970."""

    step: int
    value: float
    time: int


@dataclass
class RecordedRun:
    """A run as recorded.

    Attributes:
        id: trackdsl's id, 32 hexadecimal digits.
        name: the run's name.
        path: names from the root down, joined by `/`.
        decorator: `experiment`, `stage`, or `mlflow` for a run that plain MLflow began.
        experiment: the MLflow experiment.
        parent: the run around it, or None.
        children: the runs inside it, in the order they began.
        params: values as recorded: masked, flat, of plain types.
        metrics: name to points, in the order of logging.
        tags: name to value.
        artifacts: path in the run to the snapshot on disk.
        inputs: the datasets it uses.
        models: name to the folder of the snapshot on disk.
        tables: path in the run to the snapshots of what was appended, in order.
        status: `FINISHED`, `FAILED`, `KILLED`, or `RUNNING` while it is open.
        began: when it began, in nanoseconds since 1970.
        ended: when it ended; None while it is open.
        failure: type, message and traceback of the exception that ended it, or None.
        lost: how many of its events could not be recorded.
    """

    id: str
    name: str
    path: str
    decorator: str = "stage"
    experiment: str | None = None
    parent: "RecordedRun | None" = field(default=None, repr=False, compare=False)
    children: "list[RecordedRun]" = field(default_factory=list, repr=False, compare=False)
    params: dict[str, events.Scalar] = field(default_factory=dict)
    metrics: dict[str, list[Point]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, Path] = field(default_factory=dict)
    inputs: list[events.Input] = field(default_factory=list)
    models: dict[str, Path] = field(default_factory=dict)
    tables: dict[str, list[Path]] = field(default_factory=dict)
    status: str = "RUNNING"
    began: int = 0
    ended: int | None = None
    failure: events.Failure | None = None
    lost: int = 0

    def metric(self, name: str) -> float:
        """The last value of a metric.

        Raises:
            KeyError: it was never logged.
        """
        return self.metrics[name][-1].value

    def walk(self) -> "Iterator[RecordedRun]":
        """This run and everything below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


def replay(recorded: Iterable[tuple[events.AnyEvent, Path]]) -> list[RecordedRun]:
    """Fold events into runs.

    Args:
        recorded: each event with the folder of its journal, in the order they were written.

    Returns:
        the runs in the order they began. Events of unknown runs are skipped; a run whose parent is unknown is a root.
    """
    whole = Replay()
    for event, directory in recorded:
        whole.add(event, directory)
    return whole.runs


class Replay:
    """Folds events into runs, one after the other.

    Args:
        points: makes the list of a metric's points; a program that is watched may log millions of them.
    """

    def __init__(self, points: Callable[[], list[Point]] = list) -> None:
        self._points = points
        self._runs: dict[bytes, RecordedRun] = {}

    @property
    def runs(self) -> list[RecordedRun]:
        """The runs so far, in the order they began."""
        return list({id(run): run for run in self._runs.values()}.values())

    def run(self, id_: bytes) -> RecordedRun | None:
        """The run with an id, if it has begun."""
        return self._runs.get(id_)

    def add(self, event: events.AnyEvent, directory: Path) -> None:
        """Add an event, which is in the journal of a folder."""
        runs = self._runs
        if isinstance(event, (events.Open, events.Adopt)) and event.run in runs:
            return  # A journal that replaces a deleted one repeats the beginnings of open runs.
        if isinstance(event, events.Open) and (earlier := _earlier(event, runs)) is not None:
            _resume(earlier, event)
            runs[event.run] = earlier
        elif isinstance(event, events.Open):
            runs[event.run] = _opened(event, runs)
        elif isinstance(event, events.Adopt):
            runs[event.run] = RecordedRun(event.run.hex(), "mlflow", "mlflow", decorator="mlflow")
        elif event.run in runs:
            self._apply(runs[event.run], event, directory)

    def _apply(self, run: RecordedRun, event: events.AnyEvent, directory: Path) -> None:
        if isinstance(event, events.Metric):
            self._add_point(run, event.key, Point(event.step, event.value, event.time))
        elif isinstance(event, events.Metrics):
            for key, value in event.values.items():
                self._add_point(run, key, Point(event.step, value, event.time))
        elif isinstance(event, events.Params):
            run.params.update(event.values)
        elif isinstance(event, events.Tags):
            run.tags.update(event.values)
        elif isinstance(event, (events.File, events.Model, events.Table)):
            with contextlib.suppress(UnsafeSnapshot):
                _keep(run, event, expected_path(directory, event.snapshot))
        elif isinstance(event, events.Input):
            run.inputs.append(event)
        elif isinstance(event, events.Close):
            run.status, run.failure, run.lost, run.ended = event.status, event.failure, event.lost, event.time

    def _add_point(self, run: RecordedRun, key: str, point: Point) -> None:
        points = run.metrics.get(key)
        if points is None:
            points = run.metrics[key] = self._points()
        points.append(point)


def _earlier(event: events.Open, runs: dict[bytes, RecordedRun]) -> RecordedRun | None:
    """The run that is resumed, if it is known."""
    with contextlib.suppress(ValueError):
        return runs.get(bytes.fromhex(event.continued_id))
    return None


def _resume(run: RecordedRun, event: events.Open) -> None:
    run.status, run.failure, run.ended = "RUNNING", None, None
    run.params = {**event.params, **run.params}
    run.tags.update(event.tags)


def _opened(event: events.Open, runs: dict[bytes, RecordedRun]) -> RecordedRun:
    parent = runs.get(event.parent) if event.parent is not None else None
    run = RecordedRun(
        event.run.hex(),
        event.name,
        event.path,
        event.decorator,
        event.experiment,
        parent,
        params=dict(event.params),
        tags=dict(event.tags),
        began=event.time,
    )
    if parent is not None:
        parent.children.append(run)
    return run


def _keep(run: RecordedRun, event: events.File | events.Model | events.Table, snapshot: Path) -> None:
    if isinstance(event, events.File):
        run.artifacts[event.path] = snapshot
    elif isinstance(event, events.Model):
        run.models[event.name] = snapshot
    else:
        run.tables.setdefault(event.path, []).append(snapshot)
