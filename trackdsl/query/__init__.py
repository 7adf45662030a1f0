"""Queries of recorded runs: `runs`, `best`, `tree`, `compare`, `changes`, `history`.

Importing this package imports neither MLflow nor pandas. A query of a known database imports no MLflow either, and
pandas only for a frame. The functions are imported when they are used, because commands that only show what a journal
has need none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trackdsl.query._changes import RunChanges, changes
    from trackdsl.query._compare import compare
    from trackdsl.query._compared import ComparedStage, Difference
    from trackdsl.query._comparison import Comparison
    from trackdsl.query._frame_type import Frame
    from trackdsl.query._history import history
    from trackdsl.query._runs import BestRun, best, runs
    from trackdsl.query._tree import RunTree, tree

__all__ = [
    "BestRun",
    "ComparedStage",
    "Comparison",
    "Difference",
    "Frame",
    "RunChanges",
    "RunTree",
    "best",
    "changes",
    "compare",
    "history",
    "runs",
    "tree",
]

_MODULES = {
    "BestRun": "_runs",
    "ComparedStage": "_compared",
    "Comparison": "_comparison",
    "Difference": "_compared",
    "RunChanges": "_changes",
    "RunTree": "_tree",
    "best": "_runs",
    "changes": "_changes",
    "compare": "_compare",
    "history": "_history",
    "runs": "_runs",
    "tree": "_tree",
}


def __getattr__(name: str) -> Any:
    if name == "Frame":  # Only now, because pandas is slow to import.
        from pandas import DataFrame

        return DataFrame
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    value.__module__ = __name__  # Tracebacks, help and pickles name it by where users import it from.
    return value
