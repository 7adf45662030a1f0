"""Plain values, enumeration members and keys as text."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from typing import Any

from trackdsl._core.redaction import mask_text
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._types import class_name

SCALARS = frozenset([bool, int, float, str, type(None)])
#: A text as JSON writes it, with its quotes.
quoted = json.encoder.encode_basestring
_SPECIAL_FLOATS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
#: The default `repr` contains a memory address, which differs in each process.
_ADDRESS = " at 0x"


def _integer(value: int) -> str:
    try:
        return repr(value)
    except ValueError:  # The integer has more digits than Python converts.
        return f"<an integer of {value.bit_length()} bits>"


def _float(value: float) -> str:
    text = repr(value)
    return _SPECIAL_FLOATS.get(text, text)


#: How JSON writes plain values; secrets in text are masked.
JSON_TEXT: dict[type, Callable[[Any], str]] = {
    bool: lambda value: "true" if value else "false",
    int: _integer,
    float: _float,
    str: lambda value: quoted(mask_text(value)),
    type(None): lambda _: "null",
}


def name_of_key(key: Any) -> str:
    """The key of a dict as text; the name of its class if it has no text of its own."""
    if type(key) in SCALARS:
        return str(key)
    try:
        if isinstance(key, enum.Enum):
            return str(summary_of_member(key))
        handler = handler_for(type(key))
        text = str(handler.summary(key) if handler.named else key)
        return class_name(key) if _ADDRESS in text else text
    except Exception:
        return class_name(key)


def summary_of_member(member: enum.Enum) -> bool | int | float | str:
    """A member of an enumeration: its value if the member is itself a text or number, else its name.

    >>> summary_of_member(enum.IntEnum("Level", "LOW HIGH").HIGH), summary_of_member(enum.Enum("Color", "RED").RED)
    (2, 'Color.RED')
    """
    value = member._value_
    if isinstance(member, str):
        return mask_text(str.__str__(member))
    if isinstance(member, (int, float)) and type(value) in SCALARS:
        return value  # type: ignore[no-any-return]
    name: str | None = member._name_
    # A combination of flags may have no name.
    return f"{type(member).__name__}({value})" if name is None else f"{type(member).__name__}.{name}"
