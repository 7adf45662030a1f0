"""Where a run goes when no run of ours is around it: the configured store, or a run that plain MLflow has open."""

from __future__ import annotations

import os
import sys
from typing import Any

from trackdsl import settings
from trackdsl._context import Scope
from trackdsl._lifecycle import adopt_run
from trackdsl._run import Run
from trackdsl._state import state
from trackdsl._target import Target, target_for
from trackdsl.errors import TrackdslError, report

#: Handles on runs that plain MLflow opened, by its ids; one handle each, so that indices count on.
_adopted: dict[str, Run] = {}
_MAX_ADOPTED = 1000
if hasattr(os, "register_at_fork"):
    # A child tells its own journal: nobody could find these by tag once the parent's is gone.
    os.register_at_fork(after_in_child=_adopted.clear)
_PACKAGE = os.path.dirname(__file__) + os.sep


def place(
    outer: Scope | None, tracking_uri: str | None, experiment: str | None
) -> tuple[Run | None, Target, str | None]:
    """Parent, target and MLflow experiment of a run that begins now.

    Args:
        outer: the current scope.
        tracking_uri: as named by the word itself.
        experiment: as named by the word itself.

    Returns:
        the parent (None for a root), the target, and the name of the MLflow experiment.
    """
    if outer is not None:
        parent: Run | None = outer.run
        if tracking_uri is None or target_for(tracking_uri) is outer.run._target:
            return parent, outer.run._target, outer.run.experiment
    else:
        parent = None if tracking_uri else run_of_mlflow()
        if parent is not None:
            return parent, parent._target, None
    # Another store cannot hold a child of a run that it does not know: a root there.
    return None, target_for(tracking_uri), experiment or settings.experiment_name()


def run_of_mlflow() -> Run | None:
    """A handle on the run that the program opened with plain MLflow, if it has one."""
    mlflow: Any = sys.modules.get("mlflow")
    active_run = getattr(mlflow, "active_run", None)
    if active_run is None:
        return None
    try:
        active = active_run()
        return None if active is None else _adopt(active.info, mlflow.get_tracking_uri())
    except TrackdslError:
        raise
    except Exception as error:  # Whatever stands in for MLflow in a test: user code must not notice.
        report("mlflow", f"trackdsl cannot tell which MLflow run is active: {type(error).__name__}: {error}")
        return None


def _adopt(info: Any, uri: str) -> Run:
    known = _adopted.get(info.run_id)
    if known is None:
        if len(_adopted) >= _MAX_ADOPTED:
            _adopted.clear()
        known = _adopted[info.run_id] = adopt_run(info.run_id, info.experiment_id, target_for(uri))
    return known


def run_outside(doing: str) -> Run | None:
    """The run for something logged outside of any scope: plain MLflow's, or none, which is reported once per place."""
    if state.disabled:
        return None
    run = run_of_mlflow()
    if run is None:
        where = _caller()
        report(
            "outside-run",
            f"{doing} at {where} is outside of any run, so nothing is recorded. "
            "Call it inside a function decorated with @stage, or in a `with stage(...)` block.",
            key=f"{doing}:{where}",
        )
    return run


def _caller() -> str:
    """The place in user code that called into trackdsl."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
