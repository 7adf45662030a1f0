"""Asking what was recorded: `runs`, `best`, `tree`, `compare`, `history`.

Nothing here imports MLflow or pandas before it is asked something.
"""

from __future__ import annotations

from trackdsl.query._compare import Comparison, compare
from trackdsl.query._history import history
from trackdsl.query._runs import BestRun, best, runs
from trackdsl.query._tree import RunTree, tree

__all__ = ["BestRun", "Comparison", "RunTree", "best", "compare", "history", "runs", "tree"]
