"""Plain MLflow's functions that open and end runs: what they do inside a scope."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlflow
from mlflow.entities import RunStatus

from trackdsl._core import context as _context
from trackdsl._runs.ending import choose_status
from trackdsl._runs.run import Run
from trackdsl.errors import format_error, report, reraise_from_signal
from trackdsl.mlflow_bridge import _children, _inputs, _models, _own_writes, _params, _private, _scopes, _user_runs
from trackdsl.mlflow_bridge._private import Moved, showing
from trackdsl.mlflow_bridge._replacing import Function, replace_everywhere, replacement
from trackdsl.mlflow_bridge._runs import ScopeRun, last_given
from trackdsl.mlflow_bridge._scopes import ActiveRuns, here
from trackdsl.mlflow_bridge._user_runs import ShownRuns, finish
from trackdsl.store_format.tags import PARENT_TAG

#: A loop may end runs until none is active. After so many calls that ended nothing, no run is active for it.
_MANY_ENDS = 2


def install() -> None:
    """Install the bridge, in a program that has imported MLflow.

    Raises:
        AttributeError, TypeError: this MLflow lacks a public function or argument. Nothing is changed then.
    """
    _check_public()
    missing = []
    try:
        _user_runs.set_stack(_private.take_active_stack(_scopes.shown))
    except Moved as error:
        missing.append(str(error))
        from trackdsl.mlflow_bridge import _public

        replacing = _public.wrappers()
    else:
        replacing = {"start_run": _start_run}
    replacing |= {"active_run": _active_run, "end_run": _end_run, "set_experiment": _set_experiment}
    replacing["last_active_run"] = _last_active_run
    _replace(replacing)
    _params.install()
    _inputs.install()
    _models.install()
    _children.install()
    missing += _take_private()
    setattr(mlflow.ActiveRun, "__exit__", _exit(mlflow.ActiveRun.__exit__))  # noqa: B010 - a plain assignment is refused
    _context.call_when_left_open(_user_runs.keep_open)
    if missing:
        report(
            "mlflow-bridge",
            f"trackdsl does not know this version of MLflow ({mlflow.__version__}): {', '.join(missing)}. The main "
            "calls of plain MLflow still go to the run of the scope around them; autologging and traces may not.",
        )


def _take_private() -> list[str]:
    """Let the bridge answer what MLflow asks of its private functions; returns what this MLflow does not have."""
    missing = []
    for take in (
        _private.check_traces,
        functools.partial(_private.take_tracking_uri, _scopes.uri),
        functools.partial(_private.take_store, _scopes.store),
        functools.partial(_private.take_sessions, _scopes.keys_here),
        functools.partial(_private.take_experiment_id, _scopes.active_experiment),
        functools.partial(_private.take_active_experiment, _scopes.active_experiment),
        _own_writes.install,  # After other replacements of the same functions, as it looks at the caller.
    ):
        try:
            take()
        except Moved as error:
            missing.append(str(error))
    return missing


def _check_public() -> None:
    for function, needed in (
        (mlflow.start_run, {"run_id", "experiment_id", "nested", "parent_run_id"}),
        (mlflow.end_run, {"status"}),
        (mlflow.set_experiment, set()),
        (mlflow.ActiveRun.__exit__, set()),
        (mlflow.MlflowClient.log_batch, {"run_id", "params", "synchronous"}),
        (mlflow.MlflowClient.log_param, {"run_id", "key", "value", "synchronous"}),
    ):
        missing = needed - set(inspect.signature(function).parameters)
        if missing:
            raise TypeError(f"{function.__qualname__} has no argument {', '.join(sorted(missing))}")


def _replace(wrappers: dict[str, Callable[[Function], Function]]) -> None:
    originals = {name: getattr(mlflow, name) for name in wrappers}
    replace_everywhere(
        {original: replacement(original, wrappers[name](original)) for name, original in originals.items()}
    )


def _active_run(original: Function) -> Function:
    def active_run() -> Any:
        active = here()
        if active is None:
            return original()
        entry = active.entry
        if entry is not None and not active.users and entry.unmatched_ends >= _MANY_ENDS:
            entry.unmatched_ends = 0
            return None
        return active.innermost

    return active_run


def _last_active_run(original: Function) -> Function:
    def last_active_run() -> Any:
        found = original()
        if here() is not None:
            return found
        try:
            given = last_given()
        except Exception as error:  # Its store does not answer now.
            reraise_from_signal(error)
            report("last active run", f"trackdsl cannot read the last run of a scope: {format_error(error)}")
            return found
        if found is None or given is None:
            return given or found
        inside = found.data.tags.get(PARENT_TAG) == given.info.run_id
        return given if inside or given.info.start_time > found.info.start_time else found

    return last_active_run


def _start_run(original: Function) -> Function:
    signature = inspect.signature(original)

    def start_run(*args: Any, **kwargs: Any) -> Any:
        active = here()
        if active is None:
            return original(*args, **kwargs)
        call = signature.bind(*args, **kwargs)
        stack = _stack_for(active, call.arguments)
        if stack is None:
            return original(*args, **kwargs)
        with showing(stack):
            return original(*call.args, **call.kwargs)

    return start_run


def _stack_for(active: ActiveRuns, given: dict[str, Any]) -> ShownRuns | None:
    """The active runs for `start_run`, whose arguments this changes; None to leave the call unchanged."""
    users, around = active.users, active.innermost
    assert around is not None
    if given.get("run_id") or os.environ.get("MLFLOW_RUN_ID"):
        return ShownRuns(users)
    if isinstance(around, ScopeRun) and not around.resolve():
        return None
    if given.get("experiment_id") is None:
        given["experiment_id"] = _scopes.chosen_experiment() or around.info.experiment_id
    if users or given.get("parent_run_id"):
        return ShownRuns(users)
    # Programs need not pass `nested=True` for a run that trackdsl has opened.
    given["nested"] = True
    return ShownRuns([around])


def _end_run(original: Function) -> Function:
    _user_runs.set_end_run(original)
    signature = inspect.signature(original)

    def end_run(*args: Any, **kwargs: Any) -> Any:
        active = here()
        if active is None:
            plain = _scopes.plain_run_here()
            if plain is not None:
                plain.ended = True
            return original(*args, **kwargs)
        status = signature.bind(*args, **kwargs).arguments.get("status", "FINISHED")
        RunStatus.from_string(status)  # For an unknown status, this raises what MLflow raises.
        if active.users:
            finish(active.users[-1], *args, **kwargs)
        elif active.entry is not None:
            active.entry.unmatched_ends += 1
            _keep_status(active.entry.run, status)
        return None

    return end_run


def _keep_status(run: Run, status: Any) -> None:
    """Keep a status that `end_run` got for the run of a scope, unless it is `FINISHED`. The run ends with its scope."""
    if status in ("FAILED", "KILLED"):
        choose_status(run, status)


def _set_experiment(original: Function) -> Function:
    def set_experiment(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        _private.wrap_active_experiment()
        _scopes.choose_experiment(found.experiment_id)
        return found

    return set_experiment


def _exit(original: Function) -> Function:
    def __exit__(self: mlflow.ActiveRun, *args: Any) -> Any:  # noqa: N807 - it replaces the method of this name
        with _outside():  # The run was opened outside of this scope.
            return original(self, *args)

    return replacement(original, __exit__)


@contextmanager
def _outside() -> Iterator[None]:
    before = _context.current()
    _context.enter(None)
    try:
        yield
    finally:
        _context.enter(before)
