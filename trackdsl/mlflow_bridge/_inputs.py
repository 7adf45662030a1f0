"""Datasets that two runs of one experiment use at the same time, as stages in threads with autologging do.

A database store of MLflow's looks whether it has a dataset, and adds it where it has not; of two that find nothing one
is refused, and would be without its dataset. The second time it finds the other's.
"""

from __future__ import annotations

from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from trackdsl.mlflow_bridge._params import is_watched
from trackdsl.mlflow_bridge._stand_in import stand_in

_ATTEMPTS = 3


def take_over() -> None:
    """Put ours in the place of the method that all of MLflow writes datasets with."""
    name = "log_inputs"
    original = getattr(mlflow.MlflowClient, name)

    def log_inputs(self: Any, run_id: str, *args: Any, **kwargs: Any) -> Any:
        # A server is asked again by MLflow itself.
        attempts = _ATTEMPTS if is_watched(run_id) and not self.tracking_uri.startswith("http") else 1
        for _ in range(attempts - 1):
            try:
                return original(self, run_id, *args, **kwargs)
            except MlflowException:
                continue
        return original(self, run_id, *args, **kwargs)

    setattr(mlflow.MlflowClient, name, stand_in(original, log_inputs))
