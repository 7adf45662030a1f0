"""Datasets that two runs of one experiment log at the same time, as stages in threads with autologging do.

A database store of MLflow adds a dataset if it does not find it. If two calls add the same dataset, one of them fails,
and its run would have no dataset. A second attempt finds the dataset that the other call has added.
"""

from __future__ import annotations

from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from trackdsl.mlflow_bridge._params import is_watched
from trackdsl.mlflow_bridge._replacing import replacement

_ATTEMPTS = 3


def install() -> None:
    """Replace the method with which all of MLflow writes datasets."""
    name = "log_inputs"
    original = getattr(mlflow.MlflowClient, name)

    def log_inputs(self: Any, run_id: str, *args: Any, **kwargs: Any) -> Any:
        # MLflow itself repeats requests to a server.
        attempts = _ATTEMPTS if is_watched(run_id) and not self.tracking_uri.startswith("http") else 1
        for _ in range(attempts - 1):
            try:
                return original(self, run_id, *args, **kwargs)
            except MlflowException:
                continue
        return original(self, run_id, *args, **kwargs)

    setattr(mlflow.MlflowClient, name, replacement(original, log_inputs))
