"""Functions and classes: by their name as parameters, pickled as return values."""

from __future__ import annotations

import functools
from typing import Any

from trackdsl.handlers._registry import Scalar
from trackdsl.handlers.pickled import Pickled


class _Function(Pickled):
    named = True

    def content(self, value: Any) -> Any:
        return self.summary(value)

    def summary(self, value: Any) -> Scalar:
        if isinstance(value, functools.partial):
            return f"partial({self.summary(value.func)})"
        return f"{value.__module__}.{value.__qualname__}"


handler = _Function()
