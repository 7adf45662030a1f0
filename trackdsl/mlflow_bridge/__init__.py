"""Beside plain MLflow: inside a scope, `mlflow.log_*`, autologging and traces land on the run of that scope.

Nothing here imports MLflow: what does is imported once the program itself has imported it.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from trackdsl.distributed._patching import before_first_scope, when_imported
from trackdsl.errors import TrackdslError, format_error, report, reraise_from_signal

_waiting = False


def install() -> None:
    """Put the bridge in place, now or as soon as the program imports MLflow. It stays; calling this again is cheap.

    Outside of any scope MLflow behaves as if nobody had touched it.
    """
    global _waiting
    if not _waiting:
        _waiting = True
        when_imported("mlflow", _on_import)


def _on_import(mlflow: ModuleType) -> None:
    try:
        if getattr(mlflow.__spec__, "_initializing", False):
            # Another thread is importing it: this waits until it is done.
            importlib.import_module("mlflow")
        if "mlflow.tracking.fluent" not in sys.modules:
            return  # Something that stands in for MLflow in a test.
        importlib.import_module("trackdsl.mlflow_bridge._words").take_over()
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
