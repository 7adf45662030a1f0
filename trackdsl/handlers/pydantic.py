"""pydantic models (versions 1 and 2), with what they allow beyond their fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trackdsl.handlers.structures import Structure


class _Model(Structure):
    def names(self, value: Any) -> Iterable[str]:
        kind = type(value)
        fields = getattr(kind, "model_fields", None) or getattr(kind, "__fields__", {})
        return dict.fromkeys([*fields, *(getattr(value, "__pydantic_extra__", None) or ())])


model = _Model()
