"""Models of plain MLflow inside scopes: those that it logs, those that it loads, and its active one."""

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
from trackdsl.handlers.references import note_loaded
from trackdsl.mlflow_bridge._params import watched_run
from trackdsl.mlflow_bridge._stand_in import Function, replace_everywhere, stand_in

#: The ids of the models whose descriptions MLflow has read since a call of `load_model` began.
_read: ContextVar[list[str] | None] = ContextVar("trackdsl_mlflow_models", default=None)


def take_over() -> None:
    """Put ours in the place of what logs, loads and activates models."""
    _take_outputs()
    _take_active()
    _take_loading()


def _take_outputs() -> None:
    """Let delivery know of models that plain MLflow logs to a scope's run: metrics of the run belong to them too."""
    name = "log_outputs"
    original = getattr(mlflow.MlflowClient, name)

    def log_outputs(self: Any, run_id: str, models: Any) -> Any:
        result = original(self, run_id, models)
        run = watched_run(run_id)
        if run is not None and _context.current() is not None:  # Not where delivery does it, in a thread.
            for model in models:
                run.target.append(encode(ModelOutput(run.key, str(model.model_id), int(model.step))), run)
        return result

    setattr(mlflow.MlflowClient, name, stand_in(original, log_outputs))


def _take_active() -> None:
    """Once a model is active, metrics belong to it, as those of plain MLflow do."""
    original, active = getattr(mlflow, "set_active_model", None), getattr(mlflow, "get_active_model_id", None)
    if original is None or active is None:  # Before MLflow 3.2.
        return

    def set_active_model(*args: Any, **kwargs: Any) -> Any:
        _record.follow_active_model(active)
        return original(*args, **kwargs)

    if _record.follows_active_model():  # The environment names one, and the program may override it now.
        _record.follow_active_model(active)
    replace_everywhere({original: stand_in(original, set_active_model)})


def _take_loading() -> None:
    """Take note of what `load_model` of any flavour gives, so that a stage that is given it has it as an input."""
    original = Model.load.__func__  # type: ignore[attr-defined]

    def load(cls: Any, *args: Any, **kwargs: Any) -> Any:
        found, read = original(cls, *args, **kwargs), _read.get()
        if read is not None and found.model_id:
            read.append(found.model_id)
        return found

    setattr(Model, "load", classmethod(stand_in(original, load)))  # noqa: B010 - a plain assignment is refused
    # MLflow imports a flavour where it is first used; until then something stands in for the module.
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
            note_loaded(loaded, found[0])
        return loaded

    return stand_in(original, load_model)


def _noting_inner(original: Function) -> Function:
    def inner(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = original(self, *args, **kwargs)
        model_id = getattr(self.metadata, "model_id", None)
        if model_id:
            note_loaded(found, model_id)
        return found

    return stand_in(original, inner)
