"""The tree of a root run as a trace, as delivery gives it to a store. Nothing here knows MLflow's classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: In characters.
_LONGEST_PREVIEW = 1000


@dataclass(frozen=True)
class Failure:
    """The exception that ended a run.

    Attributes:
        type, message, traceback: of the exception, as text.
    """

    type: str
    message: str
    traceback: str


@dataclass(frozen=True)
class StageSpan:
    """A run as a span.

    Attributes:
        id: 1 to 2**64 - 1; the same run always has the same.
        parent: the id of the span around it; None for the root.
        name: the run's name.
        start, end: in nanoseconds since 1970.
        status: the run's status.
        inputs: its parameters.
        outputs: the latest values of its metrics; text for what is not a number.
        attributes: what else is known of the run.
        failure: the exception that ended it; None if it has not failed.
    """

    id: int
    parent: int | None
    name: str
    start: int
    end: int
    status: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, float | str]
    attributes: Mapping[str, str]
    failure: Failure | None


@dataclass(frozen=True)
class RunTrace:
    """The tree of a root run as a trace.

    Attributes:
        id: 32 hex digits; the same root run always has the same.
        run_id: the store's id of the root run.
        experiment_id: the store's id of its experiment.
        spans: parents come before their children.
        span_of: the ids of the spans by the store's ids of their runs.
        metadata: what MLflow keeps of where a trace comes from.
        left_out: which runs of the tree have no span; empty if all have one.
    """

    id: str
    run_id: str
    experiment_id: str
    spans: Sequence[StageSpan]
    span_of: Mapping[str, int]
    metadata: Mapping[str, str] = field(default_factory=dict)
    left_out: str = ""

    @property
    def root(self) -> StageSpan:
        """The span of the root run."""
        return self.spans[0]


def preview(values: Mapping[str, float | str]) -> str:
    """Values in one line.

    >>> preview({"lr": "0.1", "accuracy": 0.5})
    'lr=0.1, accuracy=0.5'
    """
    text = ", ".join(f"{name}={value}" for name, value in values.items())
    return text if len(text) <= _LONGEST_PREVIEW else f"{text[: _LONGEST_PREVIEW - 1]}…"
