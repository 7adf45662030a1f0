"""Trees of several runs next to each other: which of their stages belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trackdsl.store_format.changes.compare import pairs_of
from trackdsl.store_format.changes.recorded import Stage

#: The stages that belong together, one of each tree; None where a tree has none.
Row = tuple[Stage | None, ...]


class _Row:
    """The stages that belong together, by the number of their tree, and the rows that come after them."""

    def __init__(self, trees: int) -> None:
        self.stages: list[Stage | None] = [None] * trees
        self.after: list[_Row] = []


def aligned(trees: Sequence[Sequence[Stage]]) -> list[Row]:
    """The stages of some trees, in the order of the first; those that it lacks come after what they follow.

    Stages belong together if they have the same path. If several have the same path, those with equal parameters and
    source are paired first, then the others in their order.

    Args:
        trees: the stages of each, in order, the runs themselves first.
    """
    top = _Row(len(trees))
    rows: dict[str, _Row] = {}
    previous = top
    for stage in trees[0]:
        row = _Row(len(trees))
        row.stages[0] = stage
        rows[stage.run_id] = row
        previous.after.append(row)
        previous = row
    extra: dict[tuple[str, int], _Row] = {}
    for number, tree in enumerate(trees[1:], 1):
        _add(tree, number, trees[0], rows, extra, top)
    return [tuple(row.stages) for row in _in_order(top)]


def _add(
    tree: Sequence[Stage],
    number: int,
    first: Sequence[Stage],
    rows: dict[str, _Row],
    extra: dict[tuple[str, int], _Row],
    top: _Row,
) -> None:
    """Put the stages of one tree into the rows of the first, or into new ones."""
    partners = {new.run_id: old.run_id for old, new in pairs_of(first, tree) if old is not None and new is not None}
    counts: dict[str, int] = {}
    previous = top
    for stage in tree:
        if stage.run_id in partners:
            row = rows[partners[stage.run_id]]
        else:
            counts[stage.path] = counts.get(stage.path, 0) + 1
            key = stage.path, counts[stage.path]
            if key not in extra:
                extra[key] = _Row(len(top.stages))
                previous.after.insert(0, extra[key])
            row = extra[key]
        row.stages[number] = stage
        previous = row


def _in_order(top: _Row) -> Iterator[_Row]:
    waiting = list(reversed(top.after))
    while waiting:
        row = waiting.pop()
        yield row
        waiting += reversed(row.after)
