"""Runs made with `MlflowClient.create_run` inside a scope, as loggers of other libraries do: children of its run."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import mlflow

from trackdsl.mlflow_bridge import _scopes
from trackdsl.mlflow_bridge._own_writes import OURS, is_of
from trackdsl.mlflow_bridge._stand_in import stand_in

_PARENT = "mlflow.parentRunId"


def take_over() -> None:
    """Put ours in the place of the method that all of MLflow makes runs with."""
    name = "create_run"
    original = getattr(mlflow.MlflowClient, name)
    signature = inspect.signature(original)

    def create_run(*args: Any, **kwargs: Any) -> Any:
        if is_of(sys._getframe(1), OURS):  # Delivery in this process knows itself whose child a run is.
            return original(*args, **kwargs)
        call = signature.bind(*args, **kwargs)
        given = call.arguments
        tags = given.get("tags") or {}
        # A parent that is given counts, as the experiment does.
        parent = None if _PARENT in tags else _scopes.parent_for(given["self"].tracking_uri)
        if parent is not None:
            given["tags"] = {**tags, _PARENT: parent}
        return original(*call.args, **call.kwargs)

    setattr(mlflow.MlflowClient, name, stand_in(original, create_run))
