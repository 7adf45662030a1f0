"""The data that queries read from MLflow: runs, experiments, metric points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trackdsl.store_format.call_tag import call_value
from trackdsl.store_format.tags import ID_TAG, PARENT_TAG, SUPERSEDED_TAG

#: The named values of runs, by their names in MLflow's filters.
KINDS = ("metrics", "params", "tags")


@dataclass(frozen=True)
class FoundExperiment:
    """An MLflow experiment.

    Attributes:
        id: MLflow's id.
        name: its name.
    """

    id: str
    name: str


@dataclass(frozen=True)
class FoundRun:
    """A run as MLflow has it.

    Attributes:
        run_id: MLflow's id.
        name: its name.
        experiment_id: MLflow's id of its experiment.
        status: `FINISHED`, `FAILED`, `KILLED`, `RUNNING` or `SCHEDULED`.
        start, end: in milliseconds since 1970; None if it has not begun or ended.
        params: as text, as MLflow keeps them.
        metrics: the latest value of each.
        tags: all tags, including those of MLflow and trackdsl.
    """

    run_id: str
    name: str
    experiment_id: str
    status: str
    start: int | None
    end: int | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]

    @property
    def id(self) -> str | None:
        """trackdsl's id; None for a run of plain MLflow."""
        return self.tags.get(ID_TAG)

    @property
    def parent(self) -> str | None:
        """MLflow's id of its parent; None for a root run."""
        return self.tags.get(PARENT_TAG) or None

    @property
    def superseded(self) -> bool:
        """Whether a newer execution of its notebook cell supersedes it."""
        return bool(self.tags.get(SUPERSEDED_TAG))

    @property
    def duration(self) -> float | None:
        """The seconds from its start to its end; None if it has not ended."""
        return None if self.start is None or self.end is None else (self.end - self.start) / 1000

    def of_kind(self, kind: str) -> Mapping[str, str] | Mapping[str, float]:
        """The metrics, parameters or tags of the run, by name."""
        if kind == "metrics":
            return self.metrics
        return self.params if kind == "params" else self.tags

    def value(self, kind: str, name: str) -> str | float | None:
        """One of its metrics, params or tags; None where it has none of this name.

        A field of the tag `trackdsl.call` counts as a tag, by the names that `call_value` knows.
        """
        own = self.of_kind(kind).get(name)
        return call_value(self.tags, name) if own is None and kind == "tags" else own


@dataclass(frozen=True)
class Search:
    """A question for runs: which ones to read, and in which order. Deleted runs are never read.

    Attributes:
        experiments: MLflow's ids.
        where: a filter in MLflow's language.
        prefilter: a coarser filter for the store, which keeps every wanted run; the caller compares again.
        order_by: in MLflow's language; runs that are equal come newest first.
        limit: the largest number of runs, or None for all.
        roots: only runs without a parent (`True`), only runs with one (`False`), or both (`None`).
    """

    experiments: tuple[str, ...]
    where: str = ""
    prefilter: str = ""
    order_by: tuple[str, ...] = ()
    limit: int | None = None
    roots: bool | None = None

    @property
    def filter(self) -> str:
        """Both filters."""
        return " AND ".join(part for part in (self.where, self.prefilter) if part)


@dataclass(frozen=True)
class HistoryPoint:
    """One value of a metric.

    Attributes:
        step: its step.
        value: its value.
        time: in milliseconds since 1970.
    """

    step: int
    value: float
    time: int
