"""The original names of parameters and metrics whose names the store does not take: a tag of their run has each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from trackdsl.store_format.limits import cut_key
from trackdsl.store_format.run_facts import RunFacts
from trackdsl.store_format.tags import RENAMED

V = TypeVar("V")


def with_originals(values: Mapping[str, V], run: RunFacts) -> dict[str, V]:
    """Parameters or metrics of a run by their original names, in the order of these.

    Args:
        values: by the names that the store has.
        run: whose values they are.
    """
    originals = originals_of([run])
    return dict(sorted((originals.get(name, name), value) for name, value in values.items()))


def originals_of(runs: Iterable[RunFacts]) -> dict[str, str]:
    """The original names, by those that the store has; only of those that were rewritten.

    Args:
        runs: the runs whose parameters and metrics are shown.
    """
    found: dict[str, str] = {}
    for run in runs:
        if any(tag.startswith(RENAMED) for tag in run.tags):
            for name in (*run.params, *run.metrics):
                if (original := run.tags.get(cut_key(RENAMED + name))) is not None:
                    found[name] = original
    return found
