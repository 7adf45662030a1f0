"""Reads trees of runs from a store that can only be searched, with MLflow's filters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from trackdsl.delivery.store._sink import Times, TreeRun
from trackdsl.store_format.tags import PARENT_TAG

#: Clocks of machines differ, in milliseconds.
_TOLERANCE = 300_000
#: Runs that are read for one tree: other programs may have recorded at the same time.
_MOST_SEEN = 5000

T = TypeVar("T")
#: Searches an experiment with a filter, in an order.
Search = Callable[[str, str, str], Iterable[TreeRun]]


def newest(search: Search, experiment_id: str, tag: str, value: str | None, began: Times, most: int) -> list[TreeRun]:
    """See `Sink`."""
    where = f"{_began(began)} AND tags.`{tag}` {_equal(value)}"
    runs = search(experiment_id, where, "attributes.start_time DESC")
    matching = (run for run in runs if value is None or run.tags.get(tag) == value)
    return list(islice(matching, most))


def tree(search: Search, root: TreeRun, most: int) -> list[TreeRun]:
    """See `Sink`."""
    where = f"{_began(while_open(root.start, root.end))} AND tags.`{PARENT_TAG}` LIKE '%'"
    children: dict[str, list[TreeRun]] = {}
    for run in islice(search(root.experiment_id, where, "attributes.start_time ASC"), _MOST_SEEN):
        children.setdefault(run.tags.get(PARENT_TAG, ""), []).append(run)
    return list(islice(below(root, children, lambda run: run.run_id), most))


def while_open(start: int, end: int) -> Times:
    """The times at which runs may have begun while their root run was open, in milliseconds since 1970."""
    return max(0, start - _TOLERANCE), (end or start) + _TOLERANCE


def below(root: T, children: dict[str, list[T]], id_of: Callable[[T], str]) -> Iterator[T]:
    """A run and those below it, level by level.

    Args:
        root: the run.
        children: the runs that may be below it, by the ids of their parents.
        id_of: the id of a run.
    """
    level = [root]
    while level:
        yield from level
        level = [child for run in level for child in children.pop(id_of(run), [])]


def _began(times: Times) -> str:
    return f"attributes.start_time >= {times[0]} AND attributes.start_time <= {times[1]}"


def _equal(value: str | None) -> str:
    """The condition on a value; text that MLflow's filters cannot hold is compared here."""
    if value is None or not value.isprintable() or "\\" in value or ("'" in value and '"' in value):
        return "LIKE '%'"
    return f"= '{value}'" if "'" not in value else f'= "{value}"'


def digests_by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The digests of datasets by name; of several with one name, all of them.

    >>> digests_by_name([("train", "b"), ("train", "a"), ("test", "c")])
    {'test': 'c', 'train': 'a, b'}
    """
    digests: dict[str, str] = {}
    for name, digest in sorted(pairs):
        digests[name] = f"{digests[name]}, {digest}" if name in digests else digest
    return digests
