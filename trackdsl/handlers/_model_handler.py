"""The base of handlers of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl.handlers._flavor import Inputs
from trackdsl.handlers._pickled import Pickled


class ModelHandler(Pickled):
    """The base of handlers of models: a model is a folder, and pickled where a single file is asked for."""

    model = True
    #: The model may be called to see what it answers, without being asked to by the user.
    callable_unasked = True

    def inputs(self, value: Any) -> Inputs:
        """The data that a fitted model takes."""
        return Inputs()

    def prepare(self, value: Any, example: Any) -> Any:
        """An example in the form in which MLflow hands data to the model."""
        return example

    def predict(self, copied: Any, example: Any) -> Any:
        """What the model answers; `copied` is a copy that may be changed. None where MLflow could not tell of it."""
        return copied.predict(example)

    def read(self, path: Path) -> Any:
        """See `Handler`: of a folder that `save_model` has written, or of a file."""
        return self.read_folder(path) if path.is_dir() else super().read(path)

    def read_folder(self, folder: Path) -> Any:
        """Read back what `save_model` has written."""
        raise NotImplementedError
