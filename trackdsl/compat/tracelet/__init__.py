"""The functions of tracelet with its MLflow backend. A program that uses them only has to change its import.

import trackdsl.compat.tracelet as tracelet

exp = tracelet.start_logging(exp_name="baseline", project="vision", backend="mlflow")
exp.log_metric("loss", 0.25, iteration=3)
tracelet.stop_logging()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trackdsl._api.log import current_run as get_active_experiment
from trackdsl._api.sessions import start_logging, stop_logging

if TYPE_CHECKING:
    from trackdsl.compat.tracelet.settings import TraceletSettings

__all__ = ["TraceletSettings", "get_active_experiment", "start_logging", "stop_logging"]


def __getattr__(name: str) -> Any:
    if name == "TraceletSettings":  # It imports pydantic.
        from trackdsl.compat.tracelet.settings import TraceletSettings

        return TraceletSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
