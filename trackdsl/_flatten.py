"""Arguments → parameters: structures become one parameter per leaf, everything else one line.

The `repr` of an object of unknown type is never taken: it may be huge, slow, or raise.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import inspect
import os
from collections.abc import Mapping
from typing import Any

from trackdsl._events import Scalar
from trackdsl._secrets import MASK, is_secret_name, mask_text, remember

_MAX_DEPTH = 10
_MAX_LEAVES = 2000
_MAX_ITEMS = 100

_PLAIN = (bool, int, float, str, type(None))
_SECRET_TYPES = ("SecretStr", "SecretBytes", "Secret")


def flatten(out: dict[str, Scalar], key: str, value: Any, depth: int = 0) -> None:
    """Add the leaves of `value` to `out`, under `key` and below it.

    Args:
        out: parameters so far; added to in place.
        key: name of the parameter; leaves of structures are `key.leaf`.
        value: anything.
        depth: how many structures are around it already.

    >>> out = {}
    >>> flatten(out, "opt", {"lr": 0.1, "decay": {"rate": 2}})
    >>> out
    {'opt.lr': 0.1, 'opt.decay.rate': 2}
    """
    if is_secret_name(key.rpartition(".")[2]) and value is not None:
        out[key] = remember(value)
        return
    kind = type(value)
    if kind is str:
        out[key] = mask_text(value)
        return
    if kind in _PLAIN:
        out[key] = value
        return
    leaves = None
    try:
        leaves = _children(value)
    except Exception:  # A property or mapping of the user's that raises: its class name is recorded.
        out[key] = class_name(value)
        return
    if leaves is None or depth >= _MAX_DEPTH or len(out) >= _MAX_LEAVES:
        out[key] = one_line(value)
    elif not leaves:
        out[key] = "{}"
    else:
        for name, leaf in leaves.items():
            flatten(out, f"{key}.{name}", leaf, depth + 1)


def one_line(value: Any) -> Scalar:
    """A value that is no structure, in one line that cannot fail."""
    try:
        return _one_line(value)
    except Exception:
        return class_name(value)


def class_name(value: Any) -> str:
    """The full name of the value's class, without `builtins`."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _children(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=False))
    return None


def _one_line(value: Any) -> Scalar:
    if type(value).__name__ in _SECRET_TYPES:
        return MASK
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, str):
        return mask_text(str.__str__(value))
    if isinstance(value, (int, float)):  # np.float64 is a float, and an event takes the builtin types alone.
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, os.PathLike):
        return mask_text(os.fsdecode(value))
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (datetime.timedelta, decimal.Decimal)):
        return str(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return _sequence(value)
    if isinstance(value, type) or inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"
    return _scalar(value)


def _scalar(value: Any) -> Scalar:
    """The number in a NumPy scalar or a 0-d array or tensor, known by what they offer; else the class name."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        item = value.item()
        if type(item) in _PLAIN:
            return item  # type: ignore[no-any-return]
    return class_name(value)


def _sequence(value: Any) -> str:
    name = type(value).__name__
    if len(value) > _MAX_ITEMS or any(type(item) not in _PLAIN for item in value):
        return f"{name} of {len(value)}"
    items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
    return "[" + ", ".join(mask_text(item) if type(item) is str else str(item) for item in items) + "]"
