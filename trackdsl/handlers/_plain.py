"""Checks for plain values: numbers, texts and None, and lists and dicts of them, which JSON can hold."""

from __future__ import annotations

from typing import Any

from trackdsl._core.redaction import mask_text
from trackdsl.handlers._handler import Scalar
from trackdsl.handlers._line import MAX_ITEMS
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._scalar_text import SCALARS
from trackdsl.handlers._types import class_name
from trackdsl.handlers._value_digest import sample

#: A list with more items, including those of the lists in it, is data. Only its length is shown.
MAX_LIST = 10_000
#: How many items of a long list are inspected.
INSPECTED_ITEMS = 16
_MAX_DEPTH = 50
_MAX_REPEATED = 20_000


class Repeats:
    """Limits how often the same parts of a value are written.

    A few lists that contain each other many times could otherwise fill a disk.

    Args:
        most: how many repeated parts may be written.
    """

    __slots__ = ("_left", "_seen")

    def __init__(self, most: int = _MAX_REPEATED) -> None:
        #: The objects by id. They are kept, so that no other object can get the same id.
        self._seen: dict[int, Any] = {}
        self._left = most

    @property
    def exceeded(self) -> bool:
        """Whether the limit was exceeded."""
        return self._left < 0

    def over(self, part: Any, size: int) -> bool:
        """Count a structure with `size` parts, and return whether it exceeds the limit."""
        if id(part) not in self._seen:
            self._seen[id(part)] = part
            return False
        self._left -= size + 1
        return self._left < 0


def summary_of(value: Any) -> Scalar:
    """The summary of any value. It never raises."""
    kind = type(value)
    if kind is str:
        return mask_text(value)
    if kind in SCALARS:
        return value  # type: ignore[no-any-return]
    try:
        return handler_for(kind).summary(value)
    except Exception:
        return class_name(value)


def is_scalar(value: Any) -> bool:
    """Whether a value is a plain number, a text or None."""
    return type(value) in SCALARS


def is_flat(value: Any) -> bool:
    """Whether a list contains only plain numbers, texts and None. A long list is sampled."""
    return SCALARS.issuperset(map(type, value if len(value) <= MAX_ITEMS else sample(value, INSPECTED_ITEMS)))


def is_plain(value: Any, repeats: Repeats | None = None) -> bool:
    """Whether JSON can hold a value, including everything inside it.

    Args:
        value: any value.
        repeats: shared by all values that are written to the same file.
    """
    return _is_plain(value, 0, repeats or Repeats())


def _is_plain(value: Any, depth: int, repeats: Repeats) -> bool:
    kind = type(value)
    # `issubclass` of the type, because an object may claim another `__class__`.
    if value is None or issubclass(kind, (str, int, float)):
        return True
    if depth > _MAX_DEPTH or not issubclass(kind, (dict, list, tuple)) or repeats.over(value, len(value)):
        return False
    if issubclass(kind, dict):
        if not all(issubclass(type(key), str) for key in value):
            return False
        value = value.values()
    return SCALARS.issuperset(map(type, value)) or all(_is_plain(item, depth + 1, repeats) for item in value)
