"""Parameters that two have given: the first value stands, and a tag tells the later one, as wherever we record.

MLflow refuses a whole batch for one parameter that it has with another value.
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
from trackdsl._recording.emit import append_tags, clean_tags
from trackdsl._runs.ending import choose_status
from trackdsl._runs.run import AdoptedRun, Run
from trackdsl.mlflow_bridge._stand_in import stand_in

#: Runs of ours that plain MLflow was given, by its ids.
_watched: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()
#: Between our look at what the store has and the writing, delivery may write one more.
_ATTEMPTS = 3
#: From this length on MLflow may have cut a value.
_CUT = 500


def watch_params(run_id: str, run: Run) -> None:
    """Let no parameter of a run be refused for another value that it has."""
    _watched[run_id] = run


def is_watched(run_id: str) -> bool:
    """Whether a run is one of ours that plain MLflow was given."""
    return run_id in _watched


def watched_run(run_id: str) -> Run | None:
    """Our run that plain MLflow was given by an id; None for any other."""
    return _watched.get(run_id)


def take_over() -> None:
    """Put ours in the place of the methods that all of MLflow writes parameters with, and of that which ends a run."""
    for name, make in (("log_batch", _log_batch), ("log_param", _log_param), ("set_terminated", _set_terminated)):
        original = getattr(mlflow.MlflowClient, name)
        setattr(mlflow.MlflowClient, name, stand_in(original, make(original)))


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
        if run is not None:  # It ends once more, with its scope: as it was told here.
            choose_status(run, given.get("status") or "FINISHED")
        return original(*args, **kwargs)

    return set_terminated


def _of_scope(run_id: str) -> Run | None:
    """Our run of a scope around here, by MLflow's id, as far as delivery has noted it."""
    from trackdsl.store_format.known_runs import find_noted, names_run

    scope = _context.current()
    while scope is not None:
        run: Run = scope.run
        writer = run.target.writer
        # Most ids belong to other runs, which one read of the file shows.
        noted = writer is not None and names_run(writer.directory, run_id)
        found = find_noted(writer.directory, run.key) if writer is not None and noted else None
        if found is not None and found.run_id == run_id and not isinstance(run, AdoptedRun):
            return run
        scope = scope.outer
    return None


def _write_first(run: Run, given: dict[str, Any], params: list[Param], write: Callable[[list[Param]], Any]) -> Any:
    """Write parameters, without those that the run has with another value."""
    synchronous = given.get("synchronous")
    if synchronous is None:
        synchronous = not MLFLOW_ENABLE_ASYNC_LOGGING.get()  # type: ignore[no-untyped-call]
    if not synchronous:  # Nobody would hear of a refusal.
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
        append_tags(run, clean_tags({f"trackdsl.param.later.{key}": value for key, value in later.items()}))
    return [each for each in params if each.key not in later]


def _differs(value: Any, stored: str) -> bool:
    text = str(value)
    return text != stored and not (len(stored) >= _CUT and text.startswith(stored))
