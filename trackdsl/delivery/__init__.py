"""Delivery: what the program sees of the process that brings its journals to MLflow.

Nothing here imports MLflow.
"""

from __future__ import annotations

from trackdsl.delivery._client import ensure_running, find_run, flush, ids_at_mlflow, wait_at_exit
from trackdsl.journal._target import deliver_with

deliver_with(start=ensure_running, wait=wait_at_exit)

__all__ = ["ensure_running", "find_run", "flush", "ids_at_mlflow", "wait_at_exit"]
