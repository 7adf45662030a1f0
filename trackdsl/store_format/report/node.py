"""A run of a tree, as far as timelines and reports need it; `trackdsl.tree` returns such trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from trackdsl.store_format.run_facts import RunFacts
from trackdsl.store_format.tags import EXCEPTION_MESSAGE_TAG, EXCEPTION_TYPE_TAG


class RunNode(RunFacts, Protocol):
    """A run, with the runs below it."""

    @property
    def duration(self) -> float | None:
        """In seconds; None before the run has ended."""

    @property
    def start(self) -> str | None:
        """In ISO 8601; None if MLflow does not know it."""

    @property
    def children(self) -> Sequence[RunNode]:
        """Its child runs, in the order they began."""

    @property
    def failure(self) -> str | None:
        """The last line of the traceback; None if the run has not failed."""


@dataclass(frozen=True)
class Node:
    """A run that delivery has read from its store; see `RunNode`."""

    run_id: str
    name: str
    status: str
    duration: float | None
    start: str | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    children: list[Node] = field(default_factory=list)

    @property
    def failure(self) -> str | None:
        """See `RunNode`."""
        return failure_of(self.status, self.tags)


def walk(tree: RunNode) -> Iterator[RunNode]:
    """A run and all runs below it, each before its children."""
    waiting = [tree]
    while waiting:
        run = waiting.pop()
        yield run
        waiting += reversed(run.children)


def failure_of(status: str, tags: Mapping[str, str]) -> str | None:
    """The exception that ended a run, as in the last line of a traceback; None if the run has not failed."""
    kind = tags.get(EXCEPTION_TYPE_TAG)
    if kind is None or status == "FINISHED":
        return None
    message = tags.get(EXCEPTION_MESSAGE_TAG, "").partition("\n")[0]
    return f"{kind}: {message}" if message else kind
