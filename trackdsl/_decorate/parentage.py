"""The parent of a new run, and the store that the run goes to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from trackdsl import mlflow_bridge
from trackdsl._config import resolve as settings
from trackdsl._config.state import state
from trackdsl._core import context as _context
from trackdsl._core.context import Scope
from trackdsl._runs.lifecycle import adopt_run
from trackdsl._runs.ranks import records_nothing
from trackdsl._runs.run import Run
from trackdsl.distributed._contexts import Context, inherited
from trackdsl.distributed._engines import current_task
from trackdsl.errors import TrackdslError, report
from trackdsl.errors._user_code import call_site
from trackdsl.journal._store_target import NOWHERE, Target
from trackdsl.journal._target import target_for

_scopes_of_sessions: list[Callable[[], Scope | None]] = []


def ask_for_session(scope_of_only: Callable[[], Scope | None]) -> None:
    """Register the function that returns the scope of the only open session. Its module imports this one."""
    _scopes_of_sessions[:] = [scope_of_only]


def scope_of_session() -> Scope | None:
    """The scope of the only open session of this process; None without one, or with several."""
    for scope_of_only in _scopes_of_sessions:
        return scope_of_only()
    return None


def destination(
    outer: Scope | None, tracking_uri: str | None, experiment: str | None, ranks: str | None = None
) -> tuple[Run | None, Target, str | None]:
    """The parent, the target and the MLflow experiment of a run that begins now.

    Args:
        outer: the current scope.
        tracking_uri: the option of the decorator.
        experiment: the experiment that the decorator names.
        ranks: the option of the decorator.

    Returns:
        the parent (None for a root), the target, and the name of the MLflow experiment (None if its id is set).
    """
    if outer is not None:
        parent: Run | None = outer.run
        if tracking_uri is None or target_for(tracking_uri) is outer.run.target:
            return parent, outer.run.target, outer.run.experiment
    elif records_nothing(ranks):
        return None, NOWHERE, experiment
    else:
        parent = None if tracking_uri else run_around()
        if parent is not None:
            return parent, parent.target, parent.experiment
    # A parent in another store is impossible, so the run is a root.
    if experiment is None and (tracking_uri is not None or settings.experiment_id() is None):
        experiment = settings.experiment_name()
    return None, target_for(tracking_uri), experiment


def run_of_mlflow() -> Run | None:
    """A handle on the active run of plain MLflow; None without one."""
    mlflow: Any = sys.modules.get("mlflow")
    active_run = getattr(mlflow, "active_run", None)
    if active_run is None:
        return None
    try:
        active = active_run()
        if active is None:
            return None
        # From now on, reads of plain MLflow wait until the values recorded here are delivered.
        mlflow_bridge.install()
        return adopt_run(active.info.run_id, active.info.experiment_id, target_for(mlflow.get_tracking_uri()))
    except TrackdslError:
        raise
    except Exception as error:  # A test may have replaced MLflow by anything.
        report("mlflow", f"trackdsl cannot find out which MLflow run is active: {type(error).__name__}: {error}")
        return None


def run_around() -> Run | None:
    """The run for code outside of any scope: that of plain MLflow, a cluster task, a session, or the whole program."""
    run = run_of_mlflow()
    if run is not None:
        return run
    task = current_task()
    if task is not None:
        # Only the run that submitted the task counts, not the one in which its worker was started.
        scope = task.context.scope()
    else:
        scope = scope_of_session()
        if scope is None:
            return inherited()
    return None if scope is None else scope.run


def task_tags() -> Mapping[str, str] | None:
    """The tags of a run that begins outside of any scope: those of the cluster task; None outside of one."""
    task = current_task()
    return None if task is None else task.tags


def capture() -> Context:
    """Capture the current run, to enter it with `attach` in another process, on another machine, or later.

    Threads, tasks, executors and processes that are started inside a run do this by themselves. Use it for everything
    else, such as a message queue.

    Returns:
        a small object that can be pickled. It is false if no run is current. Its `to_text()` is JSON.

    Example:
        >>> bool(capture())
        False
    """
    scope = _context.current()
    if scope is None and not state.disabled:
        run = run_around()
        scope = None if run is None else Scope(run, None, None, 0)
    return Context(scope)


def run_outside(doing: str) -> Run | None:
    """The run for a call outside of any scope; None if there is none, which is reported once per line of code."""
    if state.disabled:
        return None
    run = run_around()
    if run is None:
        where = call_site()
        report(
            "outside-run",
            f"{doing} at {where} is outside of any run, so nothing is recorded. "
            "Call it inside a function decorated with @stage, or in a `with stage(...)` block.",
            key=f"{doing}:{where}",
        )
    return run
