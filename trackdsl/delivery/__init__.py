"""Delivery: what brings journals to MLflow, and what programs see of it.

Programs use the names here. Other packages may import only these modules: commands `dropped_runs`, `environment`,
`environment_pipe`, `journal_requests` and `service`, and queries `known_tables`. Importing this package imports no
MLflow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trackdsl.delivery.program._client import (
        ensure_running,
        find_run,
        flush,
        ids_at_mlflow,
        known_run_id,
        wait_at_exit,
    )
    from trackdsl.delivery.program._reads import wait_for_delivery

__all__ = ["ensure_running", "find_run", "flush", "ids_at_mlflow", "known_run_id", "wait_at_exit", "wait_for_delivery"]


def __getattr__(name: str) -> Any:
    """Import what programs use when they do: the delivery process and commands do without what recording needs.

    Few programs read a store, so the others do not import what reads need.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "_reads" if name == "wait_for_delivery" else "_client"
    globals()[name] = found = getattr(importlib.import_module(f"{__name__}.program.{module}"), name)
    return found
