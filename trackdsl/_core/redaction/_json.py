"""JSON whose secrets were masked stays JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from trackdsl._core.redaction._items import mask_entry, mask_items
from trackdsl._core.redaction._names import is_secret
from trackdsl._core.redaction._shapes import MASK

#: Longer texts are data, and parsing them would take long.
_MAX_LENGTH = 500_000


def keep_valid(text: str, masked: str, mask: Callable[[str], str]) -> str:
    """A masked text, which is valid JSON if the original was.

    Args:
        text: the original text.
        masked: the masked text.
        mask: masks a text inside the JSON.
    """
    if len(text) > _MAX_LENGTH:
        return masked
    whole = _parsed(text)
    if whole is None or _are_alike(whole, _parsed(masked)):
        return masked
    try:
        return json.dumps(_without(whole, mask), ensure_ascii=False)
    except RecursionError:
        return masked


def _are_alike(whole: Any, masked: Any) -> bool:
    """Whether two values have the same parts, except for masked ones."""
    if masked == MASK:
        return True
    if isinstance(whole, dict):
        same = isinstance(masked, dict) and len(whole) == len(masked)
        return same and all(map(_are_alike, whole.values(), masked.values()))
    if isinstance(whole, list):
        return isinstance(masked, list) and len(whole) == len(masked) and all(map(_are_alike, whole, masked))
    return masked is whole or type(masked) is type(whole)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _without(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, list):
        return [_without(item, mask) for item in mask_items(value)]
    if isinstance(value, dict):
        parts = mask_entry(value).items()
        return {mask(name): MASK if is_secret(name, part) else _without(part, mask) for name, part in parts}
    return value
