"""Queries of recorded runs: `runs`, `best`, `tree`, `compare`, `history`.

Importing this package imports neither MLflow nor pandas; a query does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trackdsl.query._compare import Comparison, compare
from trackdsl.query._history import history
from trackdsl.query._runs import BestRun, best, runs
from trackdsl.query._tree import RunTree, tree

if TYPE_CHECKING:
    from trackdsl.query._frame_type import Frame

__all__ = ["BestRun", "Comparison", "Frame", "RunTree", "best", "compare", "history", "runs", "tree"]


def __getattr__(name: str) -> Any:
    if name == "Frame":  # Only now, because pandas is slow to import.
        from pandas import DataFrame

        return DataFrame
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
