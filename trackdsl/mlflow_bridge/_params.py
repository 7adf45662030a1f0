"""Parameters that are logged twice: the first value stays, and a tag has the later one, as everywhere in trackdsl.

MLflow itself refuses a whole batch if one of its parameters already has another value.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any

import mlflow
from mlflow.entities import Param
from mlflow.environment_variables import MLFLOW_ENABLE_ASYNC_LOGGING
from mlflow.exceptions import MlflowException

from trackdsl._core import context as _context
from trackdsl._core import runtime
from trackdsl._core.runtime import Phase
from trackdsl._recording.emit import append_tags, clean_tags
from trackdsl._runs.ending import choose_status
from trackdsl._runs.run import AdoptedRun, Run
from trackdsl.mlflow_bridge._replacing import replacement
from trackdsl.store_format.tags import LATER_PARAM

#: The runs of scopes that plain MLflow has received, by MLflow's ids.
_watched: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()
runtime.register("runs whose parameters are watched", Phase.RUNS, reset=_watched.clear)
#: Between our read and our write, delivery may write another parameter.
_ATTEMPTS = 3
#: MLflow may cut a value that is longer.
_CUT = 500


def watch_params(run_id: str, run: Run) -> None:
    """Make MLflow accept parameters of a run that already have another value."""
    _watched[run_id] = run


def is_watched(run_id: str) -> bool:
    """Whether a run is that of a scope, and plain MLflow has received it."""
    return run_id in _watched


def watched_run(run_id: str) -> Run | None:
    """The run of a scope that plain MLflow has received, by MLflow's id; None for any other run."""
    return _watched.get(run_id)


def install() -> None:
    """Replace the methods with which all of MLflow writes parameters and ends runs."""
    for name, make in (("log_batch", _log_batch), ("log_param", _log_param), ("set_terminated", _set_terminated)):
        original = getattr(mlflow.MlflowClient, name)
        setattr(mlflow.MlflowClient, name, replacement(original, make(original)))


def _log_batch(original: Callable[..., Any]) -> Callable[..., Any]:
    bind = inspect.signature(original).bind

    def log_batch(*args: Any, **kwargs: Any) -> Any:
        if not _watched:
            return original(*args, **kwargs)
        call = bind(*args, **kwargs)
        given = call.arguments
        run = _watched.get(given["run_id"])
        if run is None or not given.get("params"):
            return original(*args, **kwargs)

        def write(params: list[Param]) -> Any:
            given["params"] = params
            return original(*call.args, **call.kwargs)

        return _write_first(run, given, list(given["params"]), write)

    return log_batch


def _log_param(original: Callable[..., Any]) -> Callable[..., Any]:
    bind = inspect.signature(original).bind

    def log_param(*args: Any, **kwargs: Any) -> Any:
        if not _watched:
            return original(*args, **kwargs)
        given = bind(*args, **kwargs).arguments
        run = _watched.get(given["run_id"])
        if run is None:
            return original(*args, **kwargs)

        def write(params: list[Param]) -> Any:
            return original(*args, **kwargs) if params else given["value"]

        return _write_first(run, given, [Param(given["key"], str(given["value"]))], write)

    return log_param


def _set_terminated(original: Callable[..., Any]) -> Callable[..., Any]:
    bind = inspect.signature(original).bind

    def set_terminated(*args: Any, **kwargs: Any) -> Any:
        given = bind(*args, **kwargs).arguments
        run = _watched.get(given["run_id"]) or _of_scope(given["run_id"])
        if run is not None:  # The run ends again with its scope, and should then have the status that was set here.
            choose_status(run, given.get("status") or "FINISHED")
        return original(*args, **kwargs)

    return set_terminated


def _of_scope(run_id: str) -> Run | None:
    """The run of a scope around this call, by MLflow's id, if delivery has written that id down."""
    from trackdsl.store_format.known_runs import find_delivered, names_run

    scope = _context.current()
    while scope is not None:
        run: Run = scope.run
        writer = run.target.writer
        # Most ids belong to other runs. Reading the file once is enough to see that.
        known = writer is not None and names_run(writer.directory, run_id)
        found = find_delivered(writer.directory, run.key) if writer is not None and known else None
        if found is not None and found.run_id == run_id and not isinstance(run, AdoptedRun):
            return run
        scope = scope.outer
    return None


def _write_first(run: Run, given: dict[str, Any], params: list[Param], write: Callable[[list[Param]], Any]) -> Any:
    """Write parameters, without those that the run has with another value."""
    synchronous = given.get("synchronous")
    if synchronous is None:
        synchronous = not MLFLOW_ENABLE_ASYNC_LOGGING.get()  # type: ignore[no-untyped-call]
    if not synchronous:  # An error of the background thread would be lost.
        params = _without_later(run, given, params)
    for _ in range(_ATTEMPTS):
        try:
            return write(params)
        except MlflowException:
            fresh = _without_later(run, given, params)
            if len(fresh) == len(params):
                raise
            params = fresh
    return write(params)


def _without_later(run: Run, given: dict[str, Any], params: list[Param]) -> list[Param]:
    stored = given["self"].get_run(given["run_id"]).data.params
    later = {each.key: each.value for each in params if each.key in stored and _differs(each.value, stored[each.key])}
    if later:
        append_tags(run, clean_tags({LATER_PARAM + key: value for key, value in later.items()}))
    return [each for each in params if each.key not in later]


def _differs(value: Any, stored: str) -> bool:
    text = str(value)
    return text != stored and not (len(stored) >= _CUT and text.startswith(stored))
