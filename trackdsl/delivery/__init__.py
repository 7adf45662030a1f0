"""Delivery: what brings journals to MLflow, and what programs see of it.

Programs use the names here. Of the modules, only these are for others: for commands `dropped_runs`, `environment`,
`environment_pipe`, `journal_requests` and `service`, and for queries `known_tables`. Importing this package imports no
MLflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trackdsl.delivery._client import ensure_running, find_run, flush, ids_at_mlflow, known_run_id, wait_at_exit
from trackdsl.journal._delivery_hooks import deliver_with

if TYPE_CHECKING:
    from trackdsl.delivery._reads import wait_for_delivery

__all__ = ["ensure_running", "find_run", "flush", "ids_at_mlflow", "known_run_id", "wait_at_exit", "wait_for_delivery"]

deliver_with(start=ensure_running, wait=wait_at_exit)


def __getattr__(name: str) -> Any:
    if name == "wait_for_delivery":  # Few programs read a store: the others do not import what reads need.
        from trackdsl.delivery._reads import wait_for_delivery

        return wait_for_delivery
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
