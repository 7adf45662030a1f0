"""Models of plain MLflow inside scopes: those that it logs, those that it loads, and the active model."""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import mlflow
import wrapt
from mlflow.models import Model

from trackdsl._core import context as _context
from trackdsl._core.events import ModelOutput, encode
from trackdsl._recording import emit as _record
from trackdsl.handlers.references import remember_loaded
from trackdsl.mlflow_bridge._params import watched_run
from trackdsl.mlflow_bridge._replacing import Function, replace_everywhere, replacement

#: The ids of the models whose descriptions MLflow has read in the current call of `load_model`.
_read: ContextVar[list[str] | None] = ContextVar("trackdsl_mlflow_models", default=None)


def install() -> None:
    """Replace the functions that log, load and activate models."""
    _take_outputs()
    _take_active()
    _take_loading()


def _take_outputs() -> None:
    """Record which models plain MLflow logs to a scope's run, as metrics of the run belong to them too."""
    name = "log_outputs"
    original = getattr(mlflow.MlflowClient, name)

    def log_outputs(self: Any, run_id: str, models: Any) -> Any:
        result = original(self, run_id, models)
        run = watched_run(run_id)
        if (
            run is not None and _context.current() is not None
        ):  # Delivery in a thread also calls this, outside of any scope.
            for model in models:
                run.target.append(encode(ModelOutput(run.key, str(model.model_id), int(model.step))), run)
        return result

    setattr(mlflow.MlflowClient, name, replacement(original, log_outputs))


def _take_active() -> None:
    """Let metrics belong to the active model, as those of plain MLflow do."""
    original, active = getattr(mlflow, "set_active_model", None), getattr(mlflow, "get_active_model_id", None)
    if original is None or active is None:  # Before MLflow 3.2.
        return

    def set_active_model(*args: Any, **kwargs: Any) -> Any:
        _record.follow_active_model(active)
        return original(*args, **kwargs)

    if _record.follows_active_model():  # The environment names a model, but the program may choose another one.
        _record.follow_active_model(active)
    replace_everywhere({original: replacement(original, set_active_model)})


def _take_loading() -> None:
    """Remember the objects that `load_model` returns, so that a stage that gets one has the model as an input."""
    original = Model.load.__func__  # type: ignore[attr-defined]

    def load(cls: Any, *args: Any, **kwargs: Any) -> Any:
        found, read = original(cls, *args, **kwargs), _read.get()
        if read is not None and found.model_id:
            read.append(found.model_id)
        return found

    setattr(Model, "load", classmethod(replacement(original, load)))  # noqa: B010 - a plain assignment is refused
    # MLflow imports a flavour when it is first used. Until then, the attribute is a placeholder for the module.
    for name, value in list(vars(mlflow).items()):
        if isinstance(value, ModuleType):
            wrapt.register_post_import_hook(_on_flavor, f"mlflow.{name}")


def _on_flavor(module: ModuleType) -> None:
    original = vars(module).get("load_model")
    if inspect.isfunction(original) and original.__module__ == module.__name__:
        setattr(module, "load_model", _noting(original))  # noqa: B010 - a plain assignment is refused
    for name in ("get_raw_model", "unwrap_python_model"):  # Of pyfunc.
        method = getattr(vars(module).get("PyFuncModel"), name, None)
        if method is not None:
            setattr(vars(module)["PyFuncModel"], name, _noting_inner(method))


def _noting(original: Function) -> Function:
    def load_model(*args: Any, **kwargs: Any) -> Any:
        token = _read.set([])
        try:
            loaded, found = original(*args, **kwargs), _read.get()
        finally:
            _read.reset(token)
        if found:
            remember_loaded(loaded, found[0])
        return loaded

    return replacement(original, load_model)


def _noting_inner(original: Function) -> Function:
    def inner(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = original(self, *args, **kwargs)
        model_id = getattr(self.metadata, "model_id", None)
        if model_id:
            remember_loaded(found, model_id)
        return found

    return replacement(original, inner)
