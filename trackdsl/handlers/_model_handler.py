"""`ModelHandler`, the base class of the handlers for models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl.handlers._flavor import Inputs
from trackdsl.handlers._pickled import Pickled


class ModelHandler(Pickled):
    """The base class of the handlers for models. A model is a folder; if the user wants a single file, it is pickled.

    Attributes:
        callable_unasked: whether trackdsl may call the model with an example, to see what it returns.
    """

    model = True
    callable_unasked = True

    def inputs(self, value: Any) -> Inputs:
        """The data that a fitted model takes."""
        return Inputs()

    def prepare(self, value: Any, example: Any) -> Any:
        """An example in the form in which MLflow passes data to the model."""
        return example

    def predict(self, copied: Any, example: Any) -> Any:
        """The output of a copy of the model for an example; None if MLflow has no schema for it."""
        return copied.predict(example)

    def read(self, path: Path) -> Any:
        """See `Handler`. `path` is a folder that `save_model` has written, or a pickle."""
        return self.read_folder(path) if path.is_dir() else super().read(path)

    def read_folder(self, folder: Path) -> Any:
        """Read a model that `save_model` has written."""
        raise NotImplementedError
