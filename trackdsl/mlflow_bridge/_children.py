"""Runs that `MlflowClient.create_run` makes inside a scope are children of its run, as loggers of libraries need it."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import mlflow

from trackdsl.mlflow_bridge import _scopes
from trackdsl.mlflow_bridge._own_writes import OURS, is_of
from trackdsl.mlflow_bridge._replacing import replacement
from trackdsl.store_format.tags import PARENT_TAG


def install() -> None:
    """Replace the method with which all of MLflow creates runs."""
    name = "create_run"
    original = getattr(mlflow.MlflowClient, name)
    signature = inspect.signature(original)

    def create_run(*args: Any, **kwargs: Any) -> Any:
        if is_of(sys._getframe(1), OURS):  # Delivery in this process sets the parent itself.
            return original(*args, **kwargs)
        call = signature.bind(*args, **kwargs)
        given = call.arguments
        tags = given.get("tags") or {}
        # A given parent takes precedence, as a given experiment does.
        parent = None if PARENT_TAG in tags else _scopes.parent_for(given["self"].tracking_uri)
        if parent is not None:
            given["tags"] = {**tags, PARENT_TAG: parent}
        return original(*call.args, **call.kwargs)

    setattr(mlflow.MlflowClient, name, replacement(original, create_run))
