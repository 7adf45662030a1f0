"""The bridge without MLflow's private names: its public functions get the id of the scope's run.

This is used if MLflow keeps its active runs in an unknown way. Calls that MLflow itself makes are not reached.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import mlflow
from mlflow.entities import RunTag

from trackdsl.mlflow_bridge._replacing import Function
from trackdsl.mlflow_bridge._runs import ScopeRun
from trackdsl.mlflow_bridge._scopes import chosen_experiment, here
from trackdsl.mlflow_bridge._user_runs import opened_by_user


def wrappers() -> dict[str, Callable[[Function], Function]]:
    """The wrappers of the public functions, by name."""
    found: dict[str, Callable[[Function], Function]] = {
        "start_run": _start_run,
        "set_tags": _set_tags,
    }
    for name in dir(mlflow):
        if name.startswith("log_") or name in ("set_tag", "delete_tag"):
            if "run_id" in _parameters(getattr(mlflow, name)):
                found[name] = _with_run_id
            elif _parameters(getattr(mlflow.MlflowClient, name, None))[1:2] == ["run_id"]:
                found[name] = _through_client
    return found


def _parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters) if inspect.isfunction(function) else []


def _run_id() -> str | None:
    """MLflow's id of the run of the current scope."""
    active = here()
    if active is None:
        return None
    around = active.innermost
    if around is None or (isinstance(around, ScopeRun) and not around.resolve()):
        return None
    return str(around.info.run_id)


def _start_run(original: Function) -> Function:
    signature = inspect.signature(original)

    def start_run(*args: Any, **kwargs: Any) -> Any:
        active, parent = here(), _run_id()
        if active is None or parent is None:
            return original(*args, **kwargs)
        call = signature.bind(*args, **kwargs)
        given = call.arguments
        if not (given.get("run_id") or os.environ.get("MLFLOW_RUN_ID") or given.get("parent_run_id")):
            around = active.innermost
            assert around is not None
            given.setdefault("experiment_id", chosen_experiment() or around.info.experiment_id)
            # MLflow does not accept both an active run of its own and another parent.
            if not given.get("nested") or active.users:
                given["parent_run_id"] = parent
        return opened_by_user(original(*call.args, **call.kwargs))

    return start_run


def _with_run_id(original: Function) -> Function:
    signature = inspect.signature(original)

    def log(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        if call.arguments.get("run_id") is None:
            call.arguments["run_id"] = _run_id()
        return original(*call.args, **call.kwargs)

    return log


def _through_client(original: Function) -> Function:
    def log(*args: Any, **kwargs: Any) -> Any:
        run_id = _run_id()
        if run_id is None:
            return original(*args, **kwargs)
        return getattr(mlflow.MlflowClient(), original.__name__)(run_id, *args, **kwargs)

    return log


def _set_tags(original: Function) -> Function:
    def set_tags(tags: dict[str, Any], synchronous: bool | None = None) -> Any:
        run_id = _run_id()
        if run_id is None:
            return original(tags, synchronous)
        entities = [RunTag(key, str(value)) for key, value in tags.items()]
        return mlflow.MlflowClient().log_batch(run_id, tags=entities, synchronous=synchronous)

    return set_tags
