"""Fewer points of a curve that looks the same."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[int, float, int]


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most this many points: the first, the last, and between them the lowest and highest of each part.

    So a single spike stays.

    >>> thinned([(0, 0.0, 0), (1, 9.0, 1), (2, 0.0, 2), (3, 0.0, 3), (4, 1.0, 4), (5, 0.0, 5)], 4)
    [(0, 0.0, 0), (1, 9.0, 1), (2, 0.0, 2), (5, 0.0, 5)]
    """
    if len(points) <= most:
        return list(points)
    parts = max(1, (most - 2) // 2)
    inner = points[1:-1]
    kept = [points[0]]
    for number in range(parts):
        part = inner[number * len(inner) // parts : (number + 1) * len(inner) // parts]
        if part:
            kept += sorted({_extreme(part, lowest=True), _extreme(part, lowest=False)})
    return [*kept, points[-1]]


def _extreme(part: Sequence[Point], *, lowest: bool) -> Point:
    """The lowest or the highest point of a part; NaN counts as neither unless there is nothing else."""
    numbers = [point for point in part if point[1] == point[1]] or part
    return min(numbers, key=lambda point: point[1]) if lowest else max(numbers, key=lambda point: point[1])
