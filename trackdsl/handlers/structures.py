"""Structures of the standard library and of attrs: their fields become parameters and metrics of their own.

A field that is annotated `Annotated[..., Secret]` is masked, one annotated `Annotated[..., Ignore]` is left out.
"""

from __future__ import annotations

import dataclasses as _dataclasses
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from trackdsl import markers
from trackdsl._secrets import remember
from trackdsl.handlers._registry import Scalar, class_name
from trackdsl.handlers.pickled import Pickled

_marked: dict[type, tuple[frozenset[str], frozenset[str]]] = {}


class Structure(Pickled):
    """A value with named parts."""

    def names(self, value: Any) -> Iterable[str]:
        """The names of its parts, each of which is an attribute."""
        raise NotImplementedError

    def children(self, value: Any) -> Mapping[Any, Any]:
        """See `Handler`."""
        hidden, ignored = marked_fields(type(value))
        return {
            name: remember(part) if name in hidden and part is not None else part
            for name, part in ((name, part_of(value, name)) for name in self.names(value) if name not in ignored)
        }

    def summary(self, value: Any) -> Scalar:
        """See `Handler`."""
        return class_name(value)


class Unreadable:
    """Stands for a part that raised when it was asked for."""

    def __init__(self, error: Exception) -> None:
        self.error = type(error).__name__


def part_of(value: Any, name: str) -> Any:
    """One attribute of the user's object, which may raise anything."""
    try:
        return getattr(value, name)
    except Exception as error:
        return Unreadable(error)


def marked_fields(kind: type) -> tuple[frozenset[str], frozenset[str]]:
    """The fields of a class that are annotated `Secret`, and those annotated `Ignore`."""
    known = _marked.get(kind)
    if known is not None:
        return known
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # Annotations are the user's: they may name what is not there.
        hints = {}
    extras = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    if len(_marked) >= 1000:  # Of a program that makes classes all the time, none must be kept for ever.
        _marked.clear()
    _marked[kind] = known = (
        frozenset(name for name, found in extras.items() if _has(found, markers.Secret)),
        frozenset(name for name, found in extras.items() if _has(found, markers.Ignore)),
    )
    return known


def _has(found: tuple[Any, ...], marker: type) -> bool:
    return any(extra is marker or isinstance(extra, marker) for extra in found)


class _Dataclass(Structure):
    def names(self, value: Any) -> Iterable[str]:
        return [field.name for field in _dataclasses.fields(value)]


class _Attrs(Structure):
    def names(self, value: Any) -> Iterable[str]:
        return [attribute.name for attribute in type(value).__attrs_attrs__]


class _NamedTuple(Structure):
    def names(self, value: Any) -> Iterable[str]:
        return tuple(type(value)._fields)


class _Namespace(Structure):
    def names(self, value: Any) -> Iterable[str]:
        return list(vars(value))


dataclass = _Dataclass()
attrs = _Attrs()
named_tuple = _NamedTuple()
namespace = _Namespace()
