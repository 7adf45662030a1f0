"""Secrets in lists and mappings in which the name is a value next to the secret instead of its key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trackdsl._core.redaction._memory import remember
from trackdsl._core.redaction._names import is_name_of_token, is_secret, is_secret_name, looks_random
from trackdsl._core.redaction._shapes import MASK

#: The key of the name in a mapping of one name and its value.
NAMES = frozenset(
    name
    for small in ("name", "key", "header", "field", "param", "parameter", "variable", "var", "option", "id", "k")
    for name in (small, small.capitalize(), small.upper())
) | {"ParameterKey", "parameter_key"}
#: The key of the value in such a mapping.
VALUES = frozenset(
    name
    for small in ("value", "val", "content", "default", "v")
    for name in (small, small.capitalize(), small.upper())
) | {"ParameterValue", "parameter_value"}  # fmt: skip

#: What the names of arguments and settings do not contain: signs, and a letter after a digit, as in `0007Zq0PW`.
_NOT_IN_NAMES = re.compile(r"[^\w\-. ]|\d[^\W\d_]|^\d")

_BYTES = (bytes, bytearray)
_LISTS = (list, tuple)
_PLAIN = frozenset([bool, int, float, type(None)])
#: A mapping with more keys is more than one name and its value.
_MAX_PARTS = 8


def mask_items(items: Any) -> Any:
    """Mask the items of a list that another item names as secrets: in pairs, and among the words of a command line.

    Args:
        items: a list or a tuple.

    Returns:
        the same list if there is no secret.

    >>> mask_items(["--token", "hunter2"]), mask_items([("password", "hunter2"), ("lr", 1)])
    (['--token', '***'], [['password', '***'], ('lr', 1)])
    """
    if _PLAIN.issuperset(map(type, items)):
        return items
    hidden: dict[int, Any] = {}
    options = False
    for index, item in enumerate(items):
        kind = type(item)
        if kind is str:
            options = options or item[:1] == "-"
        elif (kind is tuple or kind is list) and len(item) == 2 and _is_pair(item, among_pairs=True):
            hidden[index] = [item[0], remember(item[1])]
    if options and len(items) > 1:
        from trackdsl._core.redaction._commands import (
            secrets_among,
        )  # Imported late, because most programs never need it.

        words = secrets_among([item if type(item) is str else "" for item in items])
        for index, word in words.items():
            hidden[index] = word
            if word == MASK:
                remember(items[index])
    if len(items) == 2 and not hidden and _is_pair(items, among_pairs=False):
        hidden[1] = remember(items[1])
    return [hidden.get(index, item) for index, item in enumerate(items)] if hidden else items


def _is_pair(pair: Any, *, among_pairs: bool) -> bool:
    name, value = pair
    if isinstance(name, _BYTES):
        name = name.decode("utf-8", "replace")
    if not isinstance(name, str) or isinstance(value, (dict, *_LISTS)):
        return False
    if isinstance(value, _BYTES):
        value = value.decode("utf-8", "replace")
    return is_pair(name, value, among_pairs=among_pairs, named=type(pair) is tuple)


def is_pair(name: str, value: object, *, among_pairs: bool, named: bool) -> bool:
    """Whether two values are the name of a secret and the secret.

    Args:
        name: the first value.
        value: the second value.
        among_pairs: whether they are one of several pairs, and so no list of names.
        named: whether they are in a tuple, which is more likely a pair than a list.
    """
    if not is_secret(name, value) or value == MASK or (isinstance(value, str) and _is_name(value)):
        return False
    if among_pairs or not isinstance(value, str):
        return True
    if is_name_of_token(name):
        return looks_random(value)
    return named or not value.isidentifier() or any(map(str.isdigit, value))


def _is_name(value: str) -> bool:
    """Whether the second value is the name of a secret too, as in a list of names.

    A password may end like a name, as `0007Zq0PW` does, but names are rarely written like a password.
    """
    return is_secret_name(value) and _NOT_IN_NAMES.search(value) is None


def mask_entry(parts: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Mask the value in a mapping of one name and its value, if the name is that of a secret; else the same mapping.

    >>> mask_entry({"name": "password", "value": "hunter2"})
    {'name': 'password', 'value': '***'}
    """
    if not 1 < len(parts) <= _MAX_PARTS:
        return parts
    values = VALUES.intersection(parts)
    if not values:
        return parts
    names = [_text(parts[key]) for key in NAMES.intersection(parts)]
    hidden = {
        key: remember(parts[key])
        for key in values
        if any(name is not None and is_secret(name, parts[key]) for name in names)
    }
    return {**parts, **hidden} if hidden else parts


def _text(name: Any) -> str | None:
    if isinstance(name, _BYTES):
        return name.decode("utf-8", "replace")
    return name if isinstance(name, str) else None
