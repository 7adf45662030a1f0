"""`mlflow.pyfunc.PythonModel`, and any other object marked as a model → MLflow's `python_function` flavour.

An object that is not a `PythonModel` is pickled, with a small module next to it that loads it. `mlflow.pyfunc` imports
that module from the folder of the model. So MLflow is not imported here, and loading the model does not need trackdsl.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from trackdsl.handlers._flavor import Flavor
from trackdsl.handlers._model_files import dump, load_pickle
from trackdsl.handlers._model_handler import ModelHandler

_PYTHON_MODEL = "python_model.pkl"
_PICKLE = "model.pkl"
_CODE = "code"
_ARTIFACTS = "artifacts"
#: Names of artifacts that can be names of folders.
_PLAIN = re.compile(r"\w[\w.\- ]*")
_LOADER = "trackdsl_callable"
#: MLflow's loaders for the kinds of `PythonModel` that take chat messages, see mlflow/pyfunc/model.py.
_LOADERS = {"ChatModel": "chat_model", "ChatAgent": "chat_agent", "ResponsesAgent": "responses_agent"}
_SOURCE = '''\
"""Loads a callable, or an object with `predict`, as an MLflow model."""

import cloudpickle


class Loaded:
    def __init__(self, value):
        self._value = value

    def get_raw_model(self):
        return self._value

    def predict(self, model_input, params=None):
        call = getattr(self._value, "predict", self._value)
        return call(model_input, **params) if params else call(model_input)


def _load_pyfunc(path):
    with open(path, "rb") as file:
        return Loaded(cloudpickle.load(file))
'''


class _PythonModel(ModelHandler):
    callable_unasked = False
    save_options: ClassVar[Mapping[str, tuple[str, ...]]] = {"artifacts": (), "model_config": ()}

    def save_model(
        self,
        value: Any,
        folder: Path,
        artifacts: Mapping[str, str | os.PathLike[str]] | None = None,
        model_config: Mapping[str, Any] | None = None,
    ) -> Flavor:
        import cloudpickle

        packages = dump(value, folder / _PYTHON_MODEL)
        bases = type(value).__mro__
        loader = next(
            (f"mlflow.pyfunc.loaders.{_LOADERS[base.__name__]}"
             for base in bases if base.__name__ in _LOADERS and base.__module__.startswith("mlflow.")),
            "mlflow.pyfunc.model",
        )  # fmt: skip
        own = next(base for base in bases if base.__name__ == "PythonModel")
        streams = getattr(type(value), "predict_stream", None) is not getattr(own, "predict_stream", None)
        options: dict[str, Any] = {
            "loader_module": loader,
            "cloudpickle_version": cloudpickle.__version__,
            "python_model": _PYTHON_MODEL,
            "streamable": streams,
        }
        if artifacts:
            options["artifacts"] = {
                name: _copied(str(name) if _PLAIN.fullmatch(str(name)) else str(number), path, folder)
                for number, (name, path) in enumerate(artifacts.items())
            }
        if model_config is not None:
            options["model_config"] = dict(model_config)
        return Flavor("python_function", {}, options, ("cloudpickle", *packages))

    def predict(self, copied: Any, example: Any) -> Any:
        import inspect

        # MLflow accepts `predict` with and without a context, see mlflow/pyfunc/model.py.
        named = "context" in inspect.signature(copied.predict).parameters
        return copied.predict(None, example) if named else copied.predict(example)

    def read_folder(self, folder: Path) -> Any:
        return load_pickle(folder / _PYTHON_MODEL)


def _copied(name: str, path: str | os.PathLike[str], folder: Path) -> dict[str, str]:
    """Copy a file or folder that a model needs, and return the entry by which MLflow finds it.

    Raises:
        FileNotFoundError: there is no such file.
    """
    source = Path(unquote(urlsplit(str(path)).path) if str(path).startswith("file:") else path)
    if "://" in str(path).removeprefix("file:") or str(path).startswith(("runs:/", "models:/", "hf:/")):
        raise FileNotFoundError(2, "download it first with mlflow.artifacts.download_artifacts", str(path))
    copy = Path(_ARTIFACTS, name, source.name)
    (folder / copy).parent.mkdir(parents=True)
    if source.is_dir():
        shutil.copytree(source, folder / copy)
    else:
        shutil.copyfile(source, folder / copy)
    return {"path": copy.as_posix(), "uri": str(path)}


class _AnyModel(ModelHandler):
    callable_unasked = False

    def save_model(self, value: Any, folder: Path) -> Flavor:
        packages = dump(value, folder / _PICKLE)
        (folder / _CODE).mkdir()
        (folder / _CODE / f"{_LOADER}.py").write_text(_SOURCE)
        options = {"loader_module": _LOADER, "data": _PICKLE, "code": _CODE}
        return Flavor("python_function", {}, options, ("cloudpickle", *packages))

    def predict(self, copied: Any, example: Any) -> Any:
        return getattr(copied, "predict", copied)(example)

    def read_folder(self, folder: Path) -> Any:
        return load_pickle(folder / _PICKLE)


handler = _PythonModel()
anything = _AnyModel()
