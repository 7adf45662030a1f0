"""What MLflow must know about a model: how to load it, and which data it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Files that MLflow adds to a model's folder, see mlflow/models/model.py and mlflow/utils/environment.py.
ADDED_BY_MLFLOW = frozenset(
    ["MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "constraints.txt", "input_example.json",
     "serving_input_example.json", "registered_model_meta", "environment_variables.txt", "metadata"]
)  # fmt: skip


#: The options for the file format of estimators.
FORMATS: dict[str, tuple[str, ...]] = {
    "serialization_format": ("cloudpickle", "pickle", "skops"),
    "skops_trusted_types": (),
}


@dataclass(frozen=True)
class Flavor:
    """How MLflow loads a model that a handler has written.

    Attributes:
        name: the flavour: `sklearn`, `xgboost`, …, or `python_function` if there is no other.
        options: the flavour's section in the `MLmodel` file.
        pyfunc: arguments of `mlflow.pyfunc.add_to_model`; None if the model cannot be loaded as a function.
        packages: import names of the packages that loading the model needs.
        note: if only part of the model was written: which part is missing, and why.
    """

    name: str
    options: dict[str, Any]
    pyfunc: dict[str, Any] | None
    packages: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Inputs:
    """The data that a fitted model takes, as far as the model knows.

    Attributes:
        names: the names of the columns, in order.
        count: the number of columns.
    """

    names: tuple[Any, ...] | None = None
    count: int | None = None
