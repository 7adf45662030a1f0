"""Markers for `typing.Annotated`, on parameters and on what a function returns.

def train(data: Frame, lr: Annotated[float, Param("learning_rate")], key: Annotated[str, Secret])
    -> tuple[Annotated[object, Model("classifier")], Annotated[float, Metric("accuracy")]]: ...
"""

from __future__ import annotations

from dataclasses import dataclass

from trackdsl.errors import OptionError

_REFUSED = frozenset("/:")


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

    def __post_init__(self) -> None:
        check_registered_name(self.registered_model_name)


def check_registered_name(name: str | None) -> None:
    """Check the name of a registered model, see `_validate_model_name` in mlflow/utils/validation.py.

    Raises:
        OptionError: it is empty, or holds what MLflow does not take.
    """
    if name is not None and (not name.strip() or not _REFUSED.isdisjoint(name)):
        raise OptionError(
            f"registered_model_name={name!r}: MLflow takes a name without '/' and ':' there, such as "
            f"{name.translate({ord(sign): '-' for sign in _REFUSED}).strip() or 'churn'!r}.",
            option="registered_model_name",
        )


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
