"""The arguments of `log_model`, and the checks of them. Its options are those of `save_model` of MLflow's flavors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from trackdsl._core.suggest import suggestion_for
from trackdsl.errors import OptionError
from trackdsl.handlers._handler import Handler
from trackdsl.handlers._registry import handler_named, handler_of
from trackdsl.handlers._types import class_name
from trackdsl.markers import check_code_paths

#: The name of the handler for objects that the user calls a model and whose type is unknown.
UNKNOWN_MODEL = "<model>"
#: The options of every flavor.
GENERAL = ("extra_pip_requirements", "metadata", "model_type", "params", "tags")
#: MLflow's options that have another name here, or none.
_INSTEAD = {
    "artifact_path": "pass it as `name`",
    "await_registration_for": "`register()` of what log_model returns waits by itself",
    "conda_env": "pass the requirements as `pip_requirements`",
    "python_model": "pass it as the model itself",
    "loader_module": "pass the object itself, and its modules as `code_paths`",
    "data_path": "pass files as `artifacts` of a PythonModel",
    "export_model": "trackdsl writes PyTorch models by pickle",
    "run_id": "use `log_model` of that run",
}
_KINDS: dict[str, tuple[type, str]] = {
    "artifacts": (Mapping, "a dict of names and paths"),
    "metadata": (Mapping, "a dict"),
    "params": (Mapping, "a dict"),
    "tags": (Mapping, "a dict"),
    "model_config": (Mapping, "a dict"),
    "save_model_kwargs": (Mapping, "a dict"),
    "model_type": (str, "text"),
    "pickle_module": (ModuleType, "a module that pickles, such as `pickle` or `cloudpickle`"),
    "pyfunc_predict_fn": (str, "the name of a method"),
    "extra_pip_requirements": (list, "a list of requirements"),
    "skops_trusted_types": (list, "a list of names of types"),
}


@dataclass(frozen=True)
class ModelRequest:
    """What the user gave to record a model; see `record_model`."""

    arguments: Mapping[str, Any]
    signature: Any
    input_example: Any
    pip_requirements: Sequence[str] | str | os.PathLike[str] | None
    code_paths: Sequence[str | os.PathLike[str]] | None
    options: Mapping[str, Any]


def check_model_options(
    model: Any, signature: Any, pip_requirements: Any, code_paths: Any, options: Mapping[str, Any]
) -> None:
    """Check the user's arguments of `log_model`, before anything is written.

    Raises:
        OptionError: an argument has the wrong type, or names a file that does not exist.
    """
    if signature is not None and not isinstance(signature, Mapping) and not hasattr(type(signature), "to_dict"):
        raise OptionError(
            f"log_model(signature=...) takes an mlflow.models.ModelSignature, as mlflow.models.infer_signature returns "
            f"it, not {type(signature).__name__}.",
            option="signature",
        )
    if options:
        found = handler_of(model)
        anything = handler_named(UNKNOWN_MODEL)
        assert anything is not None
        _check_save_options(model, found if found.model else anything, options)
    check_code_paths(code_paths)
    for path in code_paths or ():
        if not os.path.exists(path):
            raise OptionError(f"log_model(code_paths=...): there is no {os.fspath(path)!r}.", option="code_paths")
    if isinstance(pip_requirements, (str, os.PathLike)):
        if not os.path.isfile(pip_requirements):
            raise OptionError(
                f"log_model(pip_requirements=...) takes a list, such as ['scikit-learn==1.5.0'], or the path of a file "
                f"of them: there is no file {os.fspath(pip_requirements)!r}.",
                option="pip_requirements",
            )
    elif pip_requirements is not None and not all(isinstance(line, str) for line in pip_requirements):
        raise OptionError("log_model(pip_requirements=...) takes requirements as strings.", option="pip_requirements")


def _check_save_options(model: Any, handler: Handler, options: Mapping[str, Any]) -> None:
    """Check the options for writing a model.

    Raises:
        OptionError: the model's flavor has no such option, or refuses this value.
    """
    known = [*GENERAL, *handler.save_options]
    for name, value in options.items():
        if name not in known:
            hint = suggestion_for(name, known)
            instead = f": {_INSTEAD[name]}." if name in _INSTEAD else hint.text
            raise OptionError(
                f"log_model() takes no {name!r} for {class_name(model)}{instead} It takes {', '.join(sorted(known))}.",
                option=name,
                suggestion=hint.name,
            )
        kind, what = _KINDS.get(name, (object, ""))
        if value is not None and not isinstance(value, kind):
            raise OptionError(f"log_model({name}={value!r}): it takes {what}.", option=name)
        choices = handler.save_options.get(name, ())
        if choices and value not in choices:
            raise OptionError(
                f"log_model({name}={value!r}) of {class_name(model)}: there are {', '.join(map(repr, choices))}.",
                option=name,
            )
