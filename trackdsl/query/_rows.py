"""What is read of a run at MLflow, and of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trackdsl.store_format.call_tag import call_value

PARENT_TAG = "mlflow.parentRunId"
ID_TAG = "trackdsl.id"
PATH_TAG = "trackdsl.path"

#: The kinds of what runs hold by name, as MLflow calls them in filters.
KINDS = ("metrics", "params", "tags")


@dataclass(frozen=True)
class FoundExperiment:
    """An experiment of MLflow's.

    Attributes:
        id: MLflow's id of it.
        name: its name.
    """

    id: str
    name: str


@dataclass(frozen=True)
class FoundRun:
    """A run as MLflow holds it.

    Attributes:
        run_id: MLflow's id of it.
        name: its name.
        experiment_id: MLflow's id of its experiment.
        status: `FINISHED`, `FAILED`, `KILLED`, `RUNNING` or `SCHEDULED`.
        start, end: in milliseconds since 1970; None where it has not begun, or ended.
        params: as text, as MLflow keeps them.
        metrics: the latest value of each.
        tags: all of them, MLflow's and trackdsl's own too.
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
        """trackdsl's id of it; None where plain MLflow made it."""
        return self.tags.get(ID_TAG)

    @property
    def parent(self) -> str | None:
        """MLflow's id of its parent."""
        return self.tags.get(PARENT_TAG) or None

    @property
    def duration(self) -> float | None:
        """Seconds from its start to its end; None while it has none."""
        return None if self.start is None or self.end is None else (self.end - self.start) / 1000

    def of_kind(self, kind: str) -> Mapping[str, str] | Mapping[str, float]:
        """Its metrics, params or tags."""
        if kind == "metrics":
            return self.metrics
        return self.params if kind == "params" else self.tags

    def value(self, kind: str, name: str) -> str | float | None:
        """One of its metrics, params or tags; None where it has none of this name.

        A field of the tag `trackdsl.call` counts as a tag, by the names that `call_value` knows.
        """
        found = self.of_kind(kind).get(name)
        return call_value(self.tags, name) if found is None and kind == "tags" else found


@dataclass(frozen=True)
class Search:
    """Which runs to read, and in which order; what is deleted is never read.

    Attributes:
        experiments: MLflow's ids.
        where: a filter in MLflow's words.
        order_by: in MLflow's words; then the newest first.
        limit: how many will be asked for, None for all.
        roots: only runs without a parent (`True`), only runs with one (`False`), or both (`None`).
    """

    experiments: tuple[str, ...]
    where: str = ""
    order_by: tuple[str, ...] = ()
    limit: int | None = None
    roots: bool | None = None


@dataclass(frozen=True)
class Point:
    """One value of a metric.

    Attributes:
        step: its place on the x-axis.
        value: the number.
        time: in milliseconds since 1970.
    """

    step: int
    value: float
    time: int
