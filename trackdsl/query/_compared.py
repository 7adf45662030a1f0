"""What differs between runs, and between the stages below them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trackdsl._core.readable import difference
from trackdsl.query._changes import RunChanges


@dataclass(frozen=True)
class Difference:
    """One name, with the value of each run.

    Attributes:
        kind: `params`, `metrics`, `source` or `tags`.
        name: the name.
        values: the value of each run, in order; None if the run has none.
    """

    kind: str
    name: str
    values: tuple[Any, ...]

    @property
    def differs(self) -> bool:
        """Whether the values are not all the same."""
        first = self.values[0]
        return not all(_same(first, value) for value in self.values[1:])

    @property
    def deltas(self) -> tuple[float | None, ...]:
        """The difference of each value from that of the first run; None for texts, and if either is missing."""
        return tuple(_delta(self.values[0], value) for value in self.values)


@dataclass(frozen=True)
class ComparedStage:
    """A stage of the compared runs; those with the same path are one.

    Attributes:
        path: the names from below the compared run to it; empty for the runs themselves.
        run_ids: MLflow's id in each run; None if that run has no such stage.
        statuses: its status in each.
        seconds: how long it took in each; None before it has ended.
        differences: the parameters and metrics that differ; those of the runs themselves are in
            `Comparison.differences`.
        metrics: the names of its metrics, whether they differ or not.
    """

    path: str
    run_ids: tuple[str | None, ...]
    statuses: tuple[str | None, ...]
    seconds: tuple[float | None, ...]
    differences: tuple[Difference, ...] = ()
    metrics: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether something other than its time differs."""
        return bool(self.differences) or len(set(self.statuses)) > 1


@dataclass(frozen=True, repr=False)
class ComparedRuns:
    """The runs, and what differs; see `Comparison`."""

    runs: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    differences: tuple[Difference, ...]
    same: int
    stages: tuple[ComparedStage, ...] = ()
    changes: tuple[RunChanges, ...] = ()
    tracking_uri: str = field(default="", compare=False)
    originals: Mapping[str, str] = field(default_factory=dict, compare=False)

    def shown_name(self, name: str) -> str:
        """The original name of a parameter or metric, for people."""
        return self.originals.get(name, name)

    def __iter__(self) -> Iterator[Difference]:
        return iter(self.differences)

    def __len__(self) -> int:
        return len(self.differences)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    return bool(one == other)


def _delta(first: Any, value: Any) -> float | None:
    return difference(first, value) if isinstance(first, float) and isinstance(value, float) else None
