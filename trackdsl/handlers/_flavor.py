"""What MLflow needs to load a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: What MLflow adds to a model's folder, see mlflow/models/model.py and mlflow/utils/environment.py.
ADDED_BY_MLFLOW = frozenset(
    ["MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "constraints.txt", "input_example.json",
     "serving_input_example.json", "registered_model_meta", "environment_variables.txt", "metadata"]
)  # fmt: skip


#: How estimators may be written.
FORMATS: dict[str, tuple[str, ...]] = {
    "serialization_format": ("cloudpickle", "pickle", "skops"),
    "skops_trusted_types": (),
}


@dataclass(frozen=True)
class Flavor:
    """How MLflow loads a model that a handler has written.

    Attributes:
        name: the flavour: `sklearn`, `xgboost`, …, or `python_function` for what is nothing else.
        options: the flavour's section in the `MLmodel` file.
        pyfunc: arguments of `mlflow.pyfunc.add_to_model`; None where the model cannot be loaded as one.
        packages: names of the packages, as they are imported, that loading it needs.
        note: what was written is not all of the model: what is missing, and why.
    """

    name: str
    options: dict[str, Any]
    pyfunc: dict[str, Any] | None
    packages: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Inputs:
    """The data that a fitted model takes, as far as it knows.

    Attributes:
        names: of the columns, in order.
        count: of the columns.
    """

    names: tuple[Any, ...] | None = None
    count: int | None = None
