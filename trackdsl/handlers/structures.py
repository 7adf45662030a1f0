"""Structures of the standard library and of attrs: each field becomes a parameter or metric.

A field with the annotation `Annotated[..., Secret]` is masked, and one with `Annotated[..., Ignore]` is left out.
"""

from __future__ import annotations

import dataclasses as _dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from trackdsl._core.redaction import remember
from trackdsl.handlers._handler import Placeholder, Scalar
from trackdsl.handlers._marked_fields import fields_of
from trackdsl.handlers._pickled import Pickled
from trackdsl.handlers._types import class_name


class Structure(Pickled):
    """The base class of handlers for values with named fields."""

    def names(self, value: Any) -> Iterable[str]:
        """The names of the fields, each of which is an attribute."""
        raise NotImplementedError

    def children(self, value: Any) -> Mapping[Any, Any] | None:
        """See `Handler`."""
        marked = fields_of(type(value))
        parts: dict[Any, Any] = {}
        for name in self.names(value):
            if name not in marked.ignored:
                part = part_of(value, name)
                if name in marked.hidden and part is not None:
                    part = remember(part)
                elif name in marked.typed:
                    part = marked.typed[name].conceal(part)
                parts[name] = part
        return parts

    def summary(self, value: Any) -> Scalar:
        """See `Handler`."""
        return class_name(value)


class _WithContent(Structure):
    """A structure that may also be a dict or a list. Its items come after its fields."""

    def children(self, value: Any) -> Mapping[Any, Any] | None:
        parts = dict(super().children(value) or {})
        kind = type(value)
        if issubclass(kind, (dict, list)):
            ignored = fields_of(kind).ignored
            content = dict.copy(value) if issubclass(kind, dict) else dict(enumerate(list.copy(value)))
            # In some of these, each field is an item too. The field is already there, masked if necessary.
            parts.update((name, part) for name, part in content.items() if name not in parts and name not in ignored)
        return parts


def part_of(value: Any, name: str) -> Any:
    """One attribute of a user's object; a `Placeholder` if reading it raises an error."""
    try:
        return getattr(value, name)
    except Exception as error:
        return Placeholder(
            f"<unreadable: {type(error).__name__}>", f"it cannot be read: {type(error).__name__}: {error}"
        )


class _Dataclass(_WithContent):
    def names(self, value: Any) -> Iterable[str]:
        return [field.name for field in _dataclasses.fields(value)]


class _Attrs(_WithContent):
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
