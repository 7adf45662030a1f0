"""Markers for `typing.Annotated`, on parameters and on what a function returns.

def train(data: Frame, lr: Annotated[float, Param("learning_rate")], key: Annotated[str, Secret])
    -> tuple[Annotated[object, Model("classifier")], Annotated[float, Metric("accuracy")]]: ...

Markers also work on the fields of a returned dataclass, NamedTuple, TypedDict, or model of pydantic or attrs, and
inside of `Optional`, nested tuples, `list[...]` and `dict[str, ...]`. A value may have several markers.

A marker without a name (`Annotated[float, Metric]`, or `Metric` alone) records the value under its own name: that of
the field, of the parameter, of the function, or the one given to `track_returns`.

`Metric`, `Artifact` and `Model` decide what becomes of a returned value. On a parameter they are an error.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trackdsl._core.missing_call import explained_class
from trackdsl.errors import OptionError

_REFUSED = frozenset("/:")
_RELATIVE_PATHS = (".", "..")
#: See `SqlRegisteredModel` in mlflow/store/model_registry/dbmodels/models.py. Only SQLite takes longer names.
_MAX_REGISTERED = 256


def _check_text(marker: object, option: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise OptionError(
            f"{type(marker).__name__}({value!r}): the {option} is a string, such as {type(marker).__name__}('train').",
            option=option,
        )


@explained_class
@dataclass(frozen=True)
class Param:
    """Record a parameter under another name, or a returned value as a parameter.

    Args:
        name: the name in MLflow.
    """

    name: str

    def __post_init__(self) -> None:
        _check_text(self, "name", self.name)


@explained_class
@dataclass(frozen=True)
class Metric:
    """Record a returned number as a metric, or a list of numbers as the metric's points by step.

    Args:
        name: the name in MLflow.
    """

    name: str

    def __post_init__(self) -> None:
        _check_text(self, "name", self.name)


@explained_class
@dataclass(frozen=True)
class Artifact:
    """Record a returned value as a file.

    Args:
        path: its path in the run, such as `frames/train.parquet`.
    """

    path: str

    def __post_init__(self) -> None:
        if isinstance(self.path, os.PathLike):
            object.__setattr__(self, "path", os.fspath(self.path))
        _check_text(self, "path", self.path)


@explained_class
@dataclass(frozen=True)
class Model:
    """Record a returned value as a model.

    Args:
        name: the model's name in the run.
        registered_model_name: also register the model under this name.
        code_paths: files and folders of the modules that are needed to load the model; by default the project's own
            modules that its pickle refers to.
    """

    name: str
    registered_model_name: str | None = None
    code_paths: Sequence[str | os.PathLike[str]] | None = None

    def __post_init__(self) -> None:
        _check_text(self, "name", self.name)
        check_registered_name(self.registered_model_name)
        check_code_paths(self.code_paths)
        if self.code_paths is not None:
            object.__setattr__(self, "code_paths", tuple(self.code_paths))


def check_code_paths(paths: Any) -> None:
    """Check the option `code_paths`.

    Raises:
        OptionError: it is not a list of paths.
    """
    listed = isinstance(paths, Sequence) and not isinstance(paths, (str, bytes))
    if paths is not None and not (listed and all(isinstance(path, (str, os.PathLike)) for path in paths)):
        raise OptionError(
            f"code_paths={paths!r}: it takes a list of files and folders, such as ['features.py', 'src/shop'].",
            option="code_paths",
        )


def check_registered_name(name: str | None, option: str = "registered_model_name") -> None:
    """Check the name of a registered model, see `_validate_model_name` in mlflow/utils/validation.py.

    Args:
        name: the name; None for no name.
        option: the option that it was given as.

    Raises:
        OptionError: it is empty, too long, or has characters that MLflow does not accept.
    """
    if name is None:
        return
    if not isinstance(name, str):
        raise OptionError(f"{option}={name!r}: MLflow only takes strings.", option=option)
    if len(name) > _MAX_REGISTERED:
        raise OptionError(
            f"{option}={name[:40]!r}…: it has {len(name)} characters, and MLflow takes {_MAX_REGISTERED}.",
            option=option,
        )
    if not name.strip() or name in _RELATIVE_PATHS or not _REFUSED.isdisjoint(name):
        signs = {ord(sign): "-" for sign in _REFUSED}
        better = name.translate(signs).strip() if name not in _RELATIVE_PATHS else ""
        raise OptionError(
            f"{option}={name!r}: MLflow takes a name without '/' and ':', such as {better or 'churn'!r}.",
            option=option,
        )


@explained_class
@dataclass(frozen=True)
class Dataset:
    """Record a value as a dataset.

    Args:
        name: the dataset's name.
        context: its purpose, such as `training`.
    """

    name: str
    context: str | None = None

    def __post_init__(self) -> None:
        _check_text(self, "name", self.name)


@dataclass(frozen=True)
class Secret:
    """Never record the value of this parameter, only that it has one: `Annotated[str, Secret]`."""


@dataclass(frozen=True)
class Ignore:
    """Do not record this parameter at all: `Annotated[Frame, Ignore]`."""
