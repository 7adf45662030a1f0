"""pydantic models (versions 1 and 2), with their extra fields. A root model is recorded as its root value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trackdsl import markers
from trackdsl._core.redaction import remember
from trackdsl.handlers._handler import Scalar
from trackdsl.handlers._plain import summary_of
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers.structures import Structure, part_of


class _Model(Structure):
    def names(self, value: Any) -> Iterable[str]:
        return dict.fromkeys([*_fields(type(value)), *(getattr(value, "__pydantic_extra__", None) or ())])

    def children(self, value: Any) -> Mapping[Any, Any] | None:
        if _is_root(type(value)):
            root = self._root(value)
            return handler_for(type(root)).children(root)
        return super().children(value)

    def content(self, value: Any) -> Any:
        return self._root(value) if _is_root(type(value)) else self.children(value)

    def summary(self, value: Any) -> Scalar:
        return summary_of(self._root(value)) if _is_root(type(value)) else super().summary(value)

    def _root(self, value: Any) -> Any:
        # The annotation is an argument of the class. pydantic keeps only its metadata.
        extras = getattr(_fields(type(value)).get("root"), "metadata", ())
        root = part_of(value, "root")
        return remember(root) if any(e is markers.Secret or type(e) is markers.Secret for e in extras) else root


def _fields(kind: type) -> Mapping[str, Any]:
    # pydantic 2 also has `__fields__`, but warns about it.
    fields: Mapping[str, Any] = kind.model_fields if hasattr(kind, "model_fields") else getattr(kind, "__fields__", {})
    return fields


def _is_root(kind: type) -> bool:
    return bool(getattr(kind, "__pydantic_root_model__", False))


model = _Model()
