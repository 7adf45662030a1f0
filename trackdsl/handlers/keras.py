"""Keras 3 models → MLflow's `keras` flavour, in Keras's own `.keras` format.

Loading needs `trusted=True`: the format contains names of classes to import, and its safe mode has been bypassed
(CVE-2025-1550).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from trackdsl.handlers._flavor import Flavor, Inputs
from trackdsl.handlers._handler import Scalar
from trackdsl.handlers._model_handler import ModelHandler
from trackdsl.handlers._plain import is_plain
from trackdsl.handlers._types import class_name
from trackdsl.handlers.json import Json, write_json

_FOLDER = "data"
_FILE = "model.keras"


class _Keras(ModelHandler):
    suffix = ".keras"
    save_options: ClassVar[Mapping[str, tuple[str, ...]]] = {"save_model_kwargs": ()}

    def summary(self, value: Any) -> Scalar:
        name = type(value).__name__
        return f"{name}: {value.count_params()} parameters" if value.built else f"{name}: not built"

    def write(self, value: Any, path: Path) -> None:
        value.save(path)

    def read(self, path: Path) -> Any:
        import keras

        return keras.saving.load_model(path / _FOLDER / _FILE if path.is_dir() else path)

    def save_model(self, value: Any, folder: Path, save_model_kwargs: Mapping[str, Any] | None = None) -> Flavor:
        import keras

        inner = folder / _FOLDER
        inner.mkdir()
        value.save(inner / _FILE, **(save_model_kwargs or {}))
        backend = keras.backend.backend()
        return Flavor(
            "keras",
            {
                "data": _FOLDER,
                "keras_version": keras.__version__,
                "keras_backend": backend,
                "save_exported_model": False,
            },
            {"loader_module": "mlflow.keras"},
            # Layers of the user are imported by name.
            ("keras", backend, *{type(layer).__module__.partition(".")[0] for layer in value._flatten_layers()}),
        )

    def inputs(self, value: Any) -> Inputs:
        shape = getattr(value, "input_shape", None)
        plain = type(shape) is tuple and len(shape) == 2 and type(shape[1]) is int
        return Inputs(None, shape[1] if plain and shape is not None else None)

    def prepare(self, value: Any, example: Any) -> Any:
        import numpy as np

        return example.to_numpy() if hasattr(example, "to_numpy") else np.asarray(example)

    def predict(self, copied: Any, example: Any) -> Any:
        import keras

        answer = copied(example, training=False)
        return keras.ops.convert_to_numpy(answer) if keras.ops.is_tensor(answer) else None


handler = _Keras()


class _History(Json):
    """The result of `fit`: the metrics of each epoch, as JSON."""

    def accepts(self, value: Any) -> bool:
        return is_plain(value.history)

    def summary(self, value: Any) -> Scalar:
        return class_name(value)

    def write(self, value: Any, path: Path) -> None:
        write_json({"epoch": list(value.epoch), "history": value.history}, path)


history = _History()
