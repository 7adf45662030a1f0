"""Where a run goes when no run of ours is around it: the configured store, or a run that plain MLflow has open."""

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
from trackdsl.errors._user_code import place_of_call
from trackdsl.journal._target import NOWHERE, Target, target_for

_scopes_of_sessions: list[Callable[[], Scope | None]] = []


def ask_for_session(scope_of_only: Callable[[], Scope | None]) -> None:
    """Register what gives the scope of the only session of this process. The module of sessions imports this one."""
    _scopes_of_sessions[:] = [scope_of_only]


def scope_of_session() -> Scope | None:
    """The scope of the session that this process has open, where it is the only one."""
    for scope_of_only in _scopes_of_sessions:
        return scope_of_only()
    return None


def place(
    outer: Scope | None, tracking_uri: str | None, experiment: str | None, ranks: str | None = None
) -> tuple[Run | None, Target, str | None]:
    """Parent, target and MLflow experiment of a run that begins now.

    Args:
        outer: the current scope.
        tracking_uri: as named by the word itself.
        experiment: as named by the word itself.
        ranks: what the word itself says of the ranks of a launch.

    Returns:
        the parent (None for a root), the target, and the name of the MLflow experiment; None where its id counts.
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
    # Another store cannot hold a child of a run that it does not know: a root there.
    if experiment is None and (tracking_uri is not None or settings.experiment_id() is None):
        experiment = settings.experiment_name()
    return None, target_for(tracking_uri), experiment


def run_of_mlflow() -> Run | None:
    """A handle on the run that the program opened with plain MLflow, if it has one."""
    mlflow: Any = sys.modules.get("mlflow")
    active_run = getattr(mlflow, "active_run", None)
    if active_run is None:
        return None
    try:
        active = active_run()
        if active is None:
            return None
        # What is recorded on it is to be there when the program reads it back.
        mlflow_bridge.install()
        return adopt_run(active.info.run_id, active.info.experiment_id, target_for(mlflow.get_tracking_uri()))
    except TrackdslError:
        raise
    except Exception as error:  # Whatever stands in for MLflow in a test: user code must not notice.
        report("mlflow", f"trackdsl cannot tell which MLflow run is active: {type(error).__name__}: {error}")
        return None


def run_around() -> Run | None:
    """The run around this place where no scope is: plain MLflow's, a cluster's task's, a session's, this program's."""
    run = run_of_mlflow()
    if run is not None:
        return run
    task = current_task()
    if task is not None:
        # It was submitted to whatever started the worker: its submitter alone counts.
        scope = task.context.scope()
    else:
        scope = scope_of_session()
        if scope is None:
            return inherited()
    return None if scope is None else scope.run


def task_tags() -> Mapping[str, str] | None:
    """The tags of a run that begins where no scope is: those of the task of a cluster, if this is one."""
    task = current_task()
    return None if task is None else task.tags


def capture() -> Context:
    """The run that is current here, to be entered elsewhere with `attach`: another process, machine, or later.

    Threads, tasks, executors and processes that are started inside a run need no help; this is for everything else,
    such as a message queue.

    Returns:
        a small object that pickles; false where no run is current. Its `to_text()` is JSON.

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
    """The run for something logged outside of any scope: plain MLflow's, or none, which is reported once per place."""
    if state.disabled:
        return None
    run = run_around()
    if run is None:
        where = place_of_call()
        report(
            "outside-run",
            f"{doing} at {where} is outside of any run, so nothing is recorded. "
            "Call it inside a function decorated with @stage, or in a `with stage(...)` block.",
            key=f"{doing}:{where}",
        )
    return run
