"""Which runs of a tree decided when it ended, and how long each of them ran itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trackdsl.store_format.report.timeline import Span


@dataclass(frozen=True)
class Step:
    """A run of a critical path.

    Attributes:
        span: the run.
        own: how long it was on the path without the runs below it, in milliseconds.
    """

    span: Span
    own: int


def critical_path(spans: Sequence[Span]) -> list[Step]:
    """The runs that decided when a tree ended: if one of them had been quicker, so had been the whole.

    From the end of a run backwards: the run below it that ended last, then the one that ended last before that one
    began, and so on; and the same inside each of them.

    Args:
        spans: the runs, from `timeline`.

    Returns:
        the runs, each before those below it.
    """
    by_id = {span.run.run_id: span for span in spans}
    found: list[Step] = []
    waiting = [(spans[0], spans[0].start, spans[0].end)] if spans else []
    while waiting:
        span, begin, end = waiting.pop()
        inside = _inside([by_id[run.run_id] for run in span.run.children if run.run_id in by_id], begin, end)
        found.append(Step(span, end - begin - sum(until - since for _, since, until in inside)))
        waiting += inside
    return found


def _inside(children: list[Span], begin: int, end: int) -> list[tuple[Span, int, int]]:
    """The children on the path between two times, the last first, each with the time when it was on the path."""
    found: list[tuple[Span, int, int]] = []
    for child in sorted(children, key=lambda child: (child.end, child.start), reverse=True):
        until = min(child.end, end)
        since = max(child.start, begin)
        # A child that ends later than the next one begins ran at the same time, and was not waited for.
        if (child.end <= end or not found) and until >= since:
            found.append((child, since, until))
            end = since
    return found
