"""What MLflow is told of a model's files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Flavor:
    """How MLflow loads a model that a handler has written.

    Attributes:
        name: the flavour: `sklearn`, `xgboost`, …, or `python_function` for what is nothing else.
        options: the flavour's section in the `MLmodel` file.
        pyfunc: the section `python_function`; None where the model cannot be loaded as one.
        packages: names of the packages, as they are imported, that loading it needs.
        executes: loading its files may run code that is in them.
    """

    name: str
    options: dict[str, Any]
    pyfunc: dict[str, Any] | None
    packages: tuple[str, ...] = ()
    executes: bool = True
