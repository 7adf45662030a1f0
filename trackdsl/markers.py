"""Markers for `typing.Annotated`, on parameters and on what a function returns.

def train(data: Frame, lr: Annotated[float, Param("learning_rate")], key: Annotated[str, Secret])
    -> tuple[Annotated[object, Model("classifier")], Annotated[float, Metric("accuracy")]]: ...
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Param:
    """Record a parameter under another name.

    Args:
        name: the name in MLflow.
    """

    name: str


@dataclass(frozen=True)
class Metric:
    """Record a returned number as this metric.

    Args:
        name: the name in MLflow.
    """

    name: str


@dataclass(frozen=True)
class Artifact:
    """Record a returned value as a file.

    Args:
        path: its path in the run, such as `frames/train.parquet`.
    """

    path: str


@dataclass(frozen=True)
class Model:
    """Record a returned value as a model.

    Args:
        name: the model's name in the run.
        registered_model_name: register it under this name too.
    """

    name: str
    registered_model_name: str | None = None


@dataclass(frozen=True)
class Dataset:
    """Record a value as a dataset.

    Args:
        name: the dataset's name.
        context: what it is used for, such as `training`.
    """

    name: str
    context: str | None = None


@dataclass(frozen=True)
class Secret:
    """Never record this parameter's value, only that it was given: `Annotated[str, Secret]`."""


@dataclass(frozen=True)
class Ignore:
    """Do not record this parameter at all: `Annotated[Frame, Ignore]`."""
