"""The options of `log_model` beside the signature, as the `save_model` of MLflow's flavors has them."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from trackdsl._core.suggest import suggestion_for
from trackdsl.errors import OptionError
from trackdsl.handlers._handler import Handler
from trackdsl.handlers._types import class_name

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


def check_save_options(model: Any, handler: Handler, options: Mapping[str, Any]) -> None:
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
