"""Objects that stand for a model which MLflow holds: handles, MLflow's own objects, and what was loaded from one.

A model is named by MLflow's id (`m-…`), or by `key:` and the key that it was recorded with, until MLflow has given it
an id. Objects that were loaded are known again by their identity; they are not changed, and not kept alive.
"""

from __future__ import annotations

import re
import weakref
from typing import Any

from trackdsl._core.events import KEY
from trackdsl.handlers._handler import Handler, Scalar
from trackdsl.handlers._types import class_name

_MODEL_ID = re.compile(r"(?:models:/)?(m-[0-9a-f]{32})/?")

#: Objects that were loaded from a model, by identity: with what names the model.
loaded: dict[int, tuple[weakref.ref[Any], str]] = {}
#: Objects that were recorded as a model, likewise.
_recorded: dict[int, tuple[weakref.ref[Any], str]] = {}


class Handle:
    """The base of what stands for a model that this program, or the one that started it, has recorded.

    Attributes:
        name: the model's name.
        key: the key that it was recorded with; empty where it was not recorded.
    """

    __slots__ = ("__weakref__", "key", "name")

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self.key = key


def note_loaded(value: Any, model: str) -> None:
    """Take note of an object that was loaded from a model, by MLflow's id."""
    _note(loaded, value, model)


def note_recorded(value: Any, key: str) -> None:
    """Take note of an object that was recorded as a model."""
    _note(_recorded, value, KEY + key)


def used_model(value: Any) -> str | None:
    """The model that a value was loaded from, or is a handle of; None for anything else."""
    if isinstance(value, Handle):
        return KEY + value.key if value.key else None
    return _known(loaded, value) or _told_by_mlflow(value)


def named_model(value: Any) -> str | None:
    """The model that a value names: also by its id or URI, and an object that was recorded as one."""
    if isinstance(value, str):
        found = _MODEL_ID.fullmatch(value)
        return found[1] if found else None
    return used_model(value) or _known(_recorded, value)


def _note(known: dict[int, tuple[weakref.ref[Any], str]], value: Any, model: str) -> None:
    place = id(value)
    try:
        known[place] = weakref.ref(value, lambda _: known.pop(place, None)), model
    except TypeError:  # A dict or a list cannot be known again without being kept alive.
        return


def _known(known: dict[int, tuple[weakref.ref[Any], str]], value: Any) -> str | None:
    found = known.get(id(value))
    return found[1] if found is not None and found[0]() is value else None


def _told_by_mlflow(value: Any) -> str | None:
    if not any(base.__module__.partition(".")[0] == "mlflow" for base in type(value).__mro__):
        return None
    for holder in (value, getattr(value, "metadata", None)):
        found = getattr(holder, "model_id", None)
        if isinstance(found, str) and _MODEL_ID.fullmatch(found):
            return found
    return None


class _Reference(Handler):
    """A model as an argument: the parameter names it, and the run uses it."""

    refers = True

    def summary(self, value: Any) -> Scalar:
        if isinstance(value, Handle):
            return f"{type(value).__name__}({value.name})"
        found = used_model(value)
        return class_name(value) if found is None else f"models:/{found}"


handler = _Reference()
