"""pydantic models (versions 1 and 2), with what they allow beyond their fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trackdsl.handlers.structures import Structure


class _Model(Structure):
    def names(self, value: Any) -> Iterable[str]:
        kind = type(value)
        # Version 2 has `__fields__` too, and warns of it.
        fields = kind.model_fields if hasattr(kind, "model_fields") else getattr(kind, "__fields__", {})
        return dict.fromkeys([*fields, *(getattr(value, "__pydantic_extra__", None) or ())])


model = _Model()
