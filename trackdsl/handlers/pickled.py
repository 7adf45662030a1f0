"""Values of all other types → a pickle by cloudpickle."""

from __future__ import annotations

from typing import Any

from trackdsl.handlers._handler import Scalar
from trackdsl.handlers._other_arrays import content_of_array, summary_of_array
from trackdsl.handlers._pickled import Pickled
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._types import class_name, is_array_like, offers
from trackdsl.handlers.functions import attributes_of


class _AnyObject(Pickled):
    def content(self, value: Any) -> Any:
        return content_of_array(value)

    def summary(self, value: Any) -> Scalar:
        kind = type(value)
        if is_array_like(kind):
            return summary_of_array(value)
        return _callable_summary(value) if offers(kind, "__call__") else class_name(value)


def _callable_summary(value: Any) -> str:
    """The class of a callable object, with its attributes or the function that it wraps (see `update_wrapper`)."""
    try:
        inner = object.__getattribute__(value, "__dict__").get("__wrapped__")
    except AttributeError:
        inner = None
    if not callable(inner) or type(inner) is type(value):
        return f"{class_name(value)}{attributes_of(value)}"
    return f"{class_name(value)}({handler_for(type(inner)).summary(inner)})"


handler = _AnyObject()
