"""Recognize numbers that a metric can hold, and split structures into named parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from trackdsl._core import runtime
from trackdsl._core.redaction import is_secret_name, mask_entry
from trackdsl.handlers._content import free_name
from trackdsl.handlers._marked_fields import Fields, fields_of
from trackdsl.handlers._plain import Repeats
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._scalar_text import name_of_key
from trackdsl.handlers._types import is_array_like, is_mock, offers

_MAX_DEPTH = 20
#: A part that a value contains several times is repeated up to this many leaves.
_MAX_REPEATED = 2000
_MAX_TYPES = 1000
#: The class names of missing values other than None: two of pandas, one of NumPy.
_MISSING = ("NAType", "NaTType", "MaskedConstant")


class _Kind(NamedTuple):
    """Facts about the values of a type.

    Attributes:
        number: whether they are numbers; None if it differs between values.
        array: whether they have a shape.
        scalar: whether they have a shape and are still numbers, such as NumPy scalars.
        typed: whether they have a dtype, which may be complex.
        item: the method that returns the only item of an array, or empty.
        refused: why no value is a number, or empty.
    """

    number: bool | None
    array: bool
    scalar: bool
    typed: bool
    item: str
    refused: str


_kinds: dict[type, _Kind] = runtime.forgets_at_exit({})


def _kind_of(kind: type) -> _Kind:
    """Inspect the attributes of a type, never of a value: a value may load or compute data when it is read."""
    found = _kinds.get(kind)
    if found is None:
        array, ratio = is_array_like(kind), offers(kind, "as_integer_ratio")
        refused = _refusal(kind)
        number = True if issubclass(kind, (int, float)) else None if (array or ratio) and not is_mock(kind) else False
        # `item()` of a masked array returns the hidden value.
        ways = ("tolist",) if offers(kind, "mask") else ("item", "tolist")
        item = next((way for way in ways if offers(kind, way)), "")
        found = _Kind(number, array, array and ratio, offers(kind, "dtype"), item, refused)
        if len(_kinds) >= _MAX_TYPES:  # Each mock has a class of its own.
            _kinds.clear()
        _kinds[kind] = found
    return found


def _refusal(kind: type) -> str:
    if issubclass(kind, (bytes, bytearray)):
        return "bytes are not a metric"
    if issubclass(kind, complex):
        return "a complex value is not a metric"
    if kind is type(None) or kind.__name__ in _MISSING:
        return "the value is missing"
    return "a mock is not a metric" if is_mock(kind) else ""


def to_number(value: Any) -> float:
    """Convert a number, an array of one item, or a number as text to a number that MLflow can hold.

    Raises:
        TypeError, ValueError, OverflowError: it is none of these.
    """
    kind = _kind_of(type(value))
    if kind.refused:
        raise TypeError(kind.refused)
    if kind.typed and getattr(value.dtype, "kind", "") == "c":
        raise TypeError("a complex value is not a metric")
    if kind.array and not kind.scalar and _is_one_item(value):
        item = _only_item(value)
        if item is not value:
            return to_number(item)
    return float(value)


def is_missing(value: Any) -> bool:
    """Whether a value means a missing value: `None`, and the missing values of pandas that are not floats."""
    return value is None or type(value).__name__ in _MISSING


def is_single(value: Any) -> bool:
    """Whether a value is a number, or an array, series or tensor of one number."""
    if is_number(value):
        return True
    kind = type(value)
    try:
        # Not a frame of one cell, which has a name.
        return (
            is_array_like(kind) and not offers(kind, "columns") and _is_one_item(value) and is_single(_only_item(value))
        )
    except Exception:
        return False


def _is_one_item(value: Any) -> bool:
    return all(length == 1 for length in value.shape)


def _only_item(value: Any) -> Any:
    way = _kind_of(type(value)).item
    if way == "item":
        return value.item()
    found = value.tolist() if way else value
    for _ in value.shape:
        found = found[0]
    return found


def is_number(value: Any) -> bool:
    """Whether a metric can hold a value: numbers, NumPy scalars, 0-d arrays and tensors, decimals."""
    kind = type(value)
    if kind is float or kind is int or kind is bool:
        return True
    numeric = _kind_of(kind).number
    if numeric is not None:
        return numeric
    try:
        return number_of(value) is not None
    except Exception:
        return False


def number_of(value: Any) -> float | None:
    """Convert a number to a Python number; None for other values.

    Raises:
        Exception: the value has a type of numbers, but a metric cannot hold it.
    """
    kind = _kind_of(type(value))
    numeric = kind.number
    if numeric is None:
        numeric = kind.scalar or not kind.array or value.shape == ()
    return to_number(value) if numeric else None


def is_mapping(value: Any) -> bool:
    """Whether a value has named parts, which are recorded separately."""
    kind = type(value)
    if kind is dict:
        return True
    if kind is list or kind is tuple:
        return False
    try:
        handler = handler_for(kind)
        return not handler.listed and handler.children(value) is not None
    except Exception:  # It is recorded as a whole.
        return False


def leaves(value: Any, prefix: str, whole: Callable[[str, Any], bool] | None = None) -> Iterator[tuple[str, Any]]:
    """The leaves of a structure, with their names joined by `/`. Every name is unique.

    Args:
        value: the structure.
        prefix: comes before every name.
        whole: takes the name and value of a part, and says whether it is a leaf although it has parts.
    """
    for name, leaf, _ in parts_of(value, prefix, whole=whole):
        yield name, leaf


def parts_of(
    value: Any,
    prefix: str,
    cut: Callable[[], None] | None = None,
    whole: Callable[[str, Any], bool] | None = None,
    fields: Fields | None = None,
) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """The leaves of a structure, each with the markers of its field. A part with markers is a leaf.

    Args:
        value: the structure.
        prefix: comes before every name.
        cut: called if repeated parts are left out.
        whole: see `leaves`.
        fields: the fields of a `TypedDict`, which the value itself does not have.
    """
    names: set[str] = set()
    repeats = Repeats(_MAX_REPEATED)
    for name, leaf, marked in _parts_of(value, prefix, (), repeats, whole or _never, fields):
        free = free_name(name, names)
        names.add(free)
        yield free, leaf, marked
    if repeats.exceeded and cut is not None:
        cut()


def _parts_of(
    value: Any,
    prefix: str,
    around: tuple[int, ...],
    repeats: Repeats,
    whole: Callable[[str, Any], bool],
    fields: Fields | None,
) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    kind = type(value)
    parts = handler_for(kind).children(value) or {}
    if fields is not None:
        parts = fields.conceal(dict(parts))
    elif kind is not dict:
        fields = fields_of(kind)
    parts = mask_entry(parts)
    if repeats.over(value, len(parts)):
        return
    inside = (*around, id(value))
    for key, leaf in parts.items():
        key = name_of_key(key)
        name = f"{prefix}{key}"
        marked = () if fields is None else fields.marked.get(key, ())
        apart = not marked and not is_secret_name(key) and len(around) < _MAX_DEPTH and is_mapping(leaf)
        if not apart or whole(name, leaf):
            yield name, leaf, marked
        elif id(leaf) not in inside:  # A structure that contains itself is recorded once.
            within = None if fields is None else fields.parts.get(key)
            yield from _parts_of(leaf, f"{name}/", inside, repeats, whole, within)


def _never(_: str, __: Any) -> bool:
    return False
