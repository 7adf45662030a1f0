"""Find secrets inside a structure, which a pickle or a text of it would reveal."""

from __future__ import annotations

from collections import deque
from collections.abc import ItemsView, Iterable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

from trackdsl._core.redaction import MASK, is_likely, is_secret, mask_entry, mask_items, mask_text
from trackdsl.handlers._plain import is_scalar
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers.binary import masked
from trackdsl.handlers.scalars import secret
from trackdsl.handlers.structures import Structure

#: Searching more parts would take longer than writing the value.
_MAX_PARTS = 100_000
#: A longer list in an attribute counts as data.
_MAX_ITEMS = 1000
_BYTES = (bytes, bytearray, memoryview)
_CONTAINERS = (dict, list, tuple)
GROUPS = (set, frozenset, deque)


def holds_secret(value: Any) -> bool:
    """Whether a structure contains a secret, recognized by its name, its type, its annotation or its pattern.

    Any other object contains a secret if an attribute has the name of a secret and a text that is likely to be one.

    >>> holds_secret([{"user": "me", "password": "hunter2"}]), holds_secret([{"user": "me"}])
    (True, False)
    """
    left, seen = [value], {id(value)}
    while left:
        part = left.pop()
        if isinstance(part, (str, *_BYTES)):
            if _is_masked(part):
                return True
        elif not is_scalar(part):
            inner = None if handler_for(type(part)) is secret else _parts(part)
            if inner is None:
                return True
            new = [item for item in inner if is_scalar(item) or id(item) not in seen]
            seen.update(map(id, new))
            left += new
            if len(left) > _MAX_PARTS or len(seen) > _MAX_PARTS:
                return False
    return False


def _is_masked(value: Any) -> bool:
    return mask_text(value) != value if isinstance(value, str) else masked(value) is not value


def _parts(value: Any) -> Iterable[Any] | None:
    """The parts of a value; None if a name or an annotation shows that one of them is a secret."""
    if isinstance(value, partial):
        return [value.args, value.keywords]
    if isinstance(value, (list, tuple, *GROUPS, ItemsView)) and not hasattr(value, "_fields"):
        items = list(value) if isinstance(value, (*GROUPS, ItemsView)) else value
        return list(value) if mask_items(items) is items else None
    try:
        handler = handler_for(type(value))
        parts: Mapping[Any, Any] = handler.children(value) or {}
        if any(is_secret(str(key), part) for key, part in parts.items()) or mask_entry(parts) is not parts:
            return None
        if handler.executes and not parts:
            return None if _has_secret_attribute(value) else []
    except Exception:  # A user's object may raise anything.
        return []
    if isinstance(handler, Structure) and any(_is_concealed(value, key, part) for key, part in parts.items()):
        return None
    return [*(key for key in parts if isinstance(key, (str, tuple))), *parts.values()]


def _has_secret_attribute(value: Any) -> bool:
    """Whether an attribute of an object, such as `client._token`, or an item of a dict inside it is a secret.

    Other texts do not count: the texts that a model was trained on may be about passwords.
    """
    left, seen = [value], {id(value)}
    while left and len(seen) <= _MAX_PARTS:
        part = left.pop()
        parts = part if isinstance(part, dict) else getattr(part, "__dict__", None)
        if isinstance(part, (type, ModuleType)):
            continue
        if isinstance(part, (list, tuple)) and len(part) <= _MAX_ITEMS:
            inner = list(part)
        elif type(parts) is dict:
            if any(isinstance(name, str) and _is_secret_text(name, item) for name, item in parts.items()):
                return True
            inner = list(parts.values())
        else:
            continue
        new = [item for item in inner if not is_scalar(item) and id(item) not in seen]
        seen.update(map(id, new))
        left += new
    return False


def _is_secret_text(name: str, value: Any) -> bool:
    text = value.decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else value
    return isinstance(text, str) and is_secret(name.strip("_"), text) and is_likely(text)


def _is_concealed(value: Any, name: Any, part: Any) -> bool:
    """Whether the handler of a structure has masked a field, because the field is annotated `Secret`."""
    field = getattr(value, name, part) if isinstance(name, str) else part
    if field is part:
        return False
    return part == MASK if isinstance(part, str) else isinstance(part, (list, dict)) and isinstance(field, _CONTAINERS)
