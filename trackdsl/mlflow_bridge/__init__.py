"""The bridge to plain MLflow: inside a scope, `mlflow.log_*`, autologging and traces record on the run of that scope.

This module does not import MLflow. The other modules of this package do; they are imported once the program itself has
imported MLflow.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from trackdsl._core.patching import before_first_scope, when_imported
from trackdsl.errors import TrackdslError, format_error, report, reraise_from_signal

_waiting = False


def install() -> None:
    """Install the bridge, now or as soon as the program imports MLflow. It stays. Calling this again costs nothing.

    Outside of any scope MLflow behaves as without the bridge.
    """
    global _waiting
    if not _waiting:
        _waiting = True
        when_imported("mlflow", _on_import)


def _on_import(mlflow: ModuleType) -> None:
    try:
        if getattr(mlflow.__spec__, "_initializing", False):
            # Another thread is importing it; this import waits for that.
            importlib.import_module("mlflow")
        if "mlflow.tracking.fluent" not in sys.modules:
            return  # A test has replaced MLflow.
        importlib.import_module("trackdsl.mlflow_bridge._run_functions").install()
    except TrackdslError:
        raise
    except Exception as error:
        reraise_from_signal(error)
        report(
            "mlflow-bridge",
            "trackdsl cannot send plain MLflow calls to the runs of its scopes "
            f"({format_error(error)}): they go where MLflow sends them by itself. "
            "Use trackdsl's own functions (log_metric, log_param, …) inside scopes.",
        )


before_first_scope(install)
