"""Parameters: values by name → flat parameters, with secrets masked and texts that fit an event."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable
from typing import Any

from trackdsl._core.events import storable
from trackdsl._core.redaction import mask_name
from trackdsl._recording.flatten import Flat
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._scalar_text import name_of_key
from trackdsl.handlers._types import class_name, offers
from trackdsl.handlers._value_digest import digest_of

#: In an event of more bytes than this, texts are cut to `LONG_TEXT` characters, see `cut_texts`.
LARGE = 32 << 20
LONG_TEXT = 100_000


def named_parts(value: Any) -> dict[Any, Any]:
    """Convert parameters to a dict: a mapping, pairs, or a structure with named parts.

    Raises:
        TypeError: the value is none of these.
    """
    kind = type(value)
    if kind is dict:
        return value.copy()  # type: ignore[no-any-return]
    pairs = issubclass(kind, (list, tuple, ItemsView)) and not hasattr(kind, "_fields")
    by_name = offers(kind, "keys") and offers(kind, "__getitem__") and getattr(value, "ndim", 1) == 1
    parts = dict(value) if pairs else handler_for(kind).children(value)
    if parts is None and by_name:  # Such as a row of a frame.
        parts = {name: value[name] for name in value.keys()}  # noqa: SIM118 - it is not a dict
    if parts is None:
        raise TypeError(
            "log_params takes a mapping, a dataclass, or another structure with named parts, and not "
            f"{class_name(value)}; pass vars(...) of an object of your own"
        )
    return dict(parts)


def params_of(pairs: Iterable[tuple[Any, Any]]) -> Flat:
    """Pairs of name and value as flat parameters, with secrets masked."""
    flat = Flat()
    for key, value in pairs:
        flat.add(as_name(key), value)
    return flat


def as_name(key: Any) -> str:
    """Convert any object that is used as a name to text."""
    try:
        return mask_name(str(storable(name_of_key(key))))
    except Exception:
        return class_name(key)


def cut_texts(values: dict[str, Any]) -> dict[str, Any]:
    """Cut texts that would make an event too large for the journal, and add their digests."""
    return {
        key: f"{value[:LONG_TEXT]}…, digest {digest_of(value)}… [{len(value)} characters]"
        if isinstance(value, str) and len(value) > LONG_TEXT
        else value
        for key, value in values.items()
    }


def path_part(key: str) -> str:
    """Convert a name to a part of a path: only letters, digits and `-_.`."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in key)[:100] or "_"
