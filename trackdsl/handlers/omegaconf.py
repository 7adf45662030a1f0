"""OmegaConf and Hydra configurations, with interpolations resolved. A missing value is shown as `???`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trackdsl.handlers._handler import Placeholder, Scalar
from trackdsl.handlers._pickled import Pickled
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._types import class_name
from trackdsl.handlers.json import sequence

_MISSING = "???"
#: A list that contains itself would be endless.
_MAX_DEPTH = 20


class _Config(Pickled):
    """A configuration with keys."""

    def children(self, value: Any) -> Mapping[Any, Any] | None:
        if _has_no_parts(value):
            return None
        return {_plain_key(key): _node(value, key, 0) for key in value}

    def content(self, value: Any) -> Any:
        return _stated(value) if _has_no_parts(value) else self.children(value)

    def summary(self, value: Any) -> Scalar:
        return _stated(value) if _has_no_parts(value) else f"{type(value).__name__} of {len(value)}"


class _List(_Config):
    """A list or tuple in a configuration."""

    listed = True

    def children(self, value: Any) -> Mapping[Any, Any] | None:
        return None if _has_no_parts(value) else sequence.children(_items(value, 0))

    def content(self, value: Any) -> Any:
        return _stated(value) if _has_no_parts(value) else _items(value, 0)

    def summary(self, value: Any) -> Scalar:
        return _stated(value) if _has_no_parts(value) else sequence.summary(_items(value, 0))


class _Node(Pickled):
    """A single value of a configuration."""

    def content(self, value: Any) -> Any:
        return _stated(value) if value._is_missing() else value._value()

    def summary(self, value: Any) -> Scalar:
        content = self.content(value)
        return handler_for(type(content)).summary(content)


def _node(config: Any, key: Any, depth: int) -> Any:
    """One value of a configuration, with interpolations resolved. A list becomes a Python list."""
    try:
        node = config[key]
    except Exception as error:  # The value is `???`, or an interpolation has no target.
        text = str(config._get_node(key)._value())
        why = "it is missing in the configuration" if text == _MISSING else f"it cannot be resolved: {error}"
        return Placeholder(text, " ".join(why.split()))
    if handler_for(type(node)) is not listing or _has_no_parts(node):
        return node
    return _items(node, depth + 1) if depth < _MAX_DEPTH else Placeholder(class_name(node), "it refers to itself")


def _items(config: Any, depth: int) -> list[Any]:
    return [_node(config, index, depth) for index in range(len(config))]


def _plain_key(key: Any) -> Any:
    return key if type(key) in (str, int, float, bool) else _name(key)


def _name(key: Any) -> str:
    # In a configuration file, enumeration members are written by name.
    return str(getattr(key, "name", key))


def _has_no_parts(value: Any) -> bool:
    return bool(value._is_none() or value._is_missing() or value._is_interpolation())


def _stated(value: Any) -> Any:
    if value._is_none():
        return None
    missing = value._is_missing()
    text = _MISSING if missing else str(value._value())
    return Placeholder(text, "it is missing in the configuration" if missing else "it cannot be resolved")


config = _Config()
listing = _List()
node = _Node()
