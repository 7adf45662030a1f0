"""Objects that refer to a model at MLflow: handles, MLflow's own objects, and objects that were loaded from a model.

A model is named by MLflow's id (`m-…`). Before MLflow has given it an id, its name is `key:` and the key under which it
was recorded. A loaded object is recognized by its identity; it is not changed, and only a weak reference to it is kept.
"""

from __future__ import annotations

import re
import weakref
from typing import Any

from trackdsl._core.events import KEY
from trackdsl.handlers._handler import Handler, Scalar
from trackdsl.handlers._types import class_name

_MODEL_ID = re.compile(r"(?:models:/)?(m-[0-9a-f]{32})/?")

#: Objects that were loaded from a model, by identity, with the name of the model.
loaded: dict[int, tuple[weakref.ref[Any], str]] = {}
#: Objects that were recorded as a model, by identity, with the name of the model.
_recorded: dict[int, tuple[weakref.ref[Any], str]] = {}


class Handle:
    """The base class of handles: they refer to a model that this program or its parent process has recorded.

    Attributes:
        name: the model's name.
        key: the key under which it was recorded; empty if it was not recorded.
    """

    __slots__ = ("__weakref__", "key", "name")

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self.key = key


def remember_loaded(value: Any, model: str) -> None:
    """Remember an object that was loaded from a model, with MLflow's id of the model."""
    _remember(loaded, value, model)


def remember_recorded(value: Any, key: str) -> None:
    """Remember an object that was recorded as a model."""
    _remember(_recorded, value, KEY + key)


def used_model(value: Any) -> str | None:
    """The model that a value was loaded from, or that a handle refers to; None for any other value."""
    if isinstance(value, Handle):
        return KEY + value.key if value.key else None
    return _known(loaded, value) or _id_from_mlflow(value)


def named_model(value: Any) -> str | None:
    """The model that a value names by an id or URI, that `used_model` gives, or that the object was recorded as."""
    if isinstance(value, str):
        match = _MODEL_ID.fullmatch(value)
        return match[1] if match else None
    return used_model(value) or _known(_recorded, value)


def _remember(known: dict[int, tuple[weakref.ref[Any], str]], value: Any, model: str) -> None:
    identity = id(value)
    try:
        known[identity] = weakref.ref(value, lambda _: known.pop(identity, None)), model
    except TypeError:  # Dicts and lists have no weak references, so they are not remembered.
        return


def _known(known: dict[int, tuple[weakref.ref[Any], str]], value: Any) -> str | None:
    entry = known.get(id(value))
    return entry[1] if entry is not None and entry[0]() is value else None


def _id_from_mlflow(value: Any) -> str | None:
    if not any(base.__module__.partition(".")[0] == "mlflow" for base in type(value).__mro__):
        return None
    for holder in (value, getattr(value, "metadata", None)):
        model_id = getattr(holder, "model_id", None)
        if isinstance(model_id, str) and _MODEL_ID.fullmatch(model_id):
            return model_id
    return None


class _Reference(Handler):
    """A model as an argument: the parameter has its name, and the run has it as an input."""

    refers = True

    def summary(self, value: Any) -> Scalar:
        if isinstance(value, Handle):
            return f"{type(value).__name__}({value.name})"
        model_id = used_model(value)
        return class_name(value) if model_id is None else f"models:/{model_id}"


handler = _Reference()
