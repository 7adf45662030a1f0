"""Convert values to the content of a JSON or YAML file: dicts, lists, texts and numbers."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from itertools import islice
from typing import Any

from trackdsl._core.redaction import is_secret, mask_entry, mask_items, mask_name, mask_text, remember
from trackdsl.handlers._handler import NEEDS_OWN_FILE, Handler, Placeholder, Scalar
from trackdsl.handlers._plain import Repeats, summary_of
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._scalar_text import SCALARS, name_of_key
from trackdsl.handlers._types import class_name

_MAX_DEPTH = 50
#: This many parts that are nested more deeply get files of their own. A graph of objects may have any number of them.
_MAX_DEEP = 5
#: This many items of a long list decide whether only a pickle can hold it.
_MAX_INSPECTED = 100
_NUMBERS = SCALARS - {str}
#: Types of keys that YAML keeps.
_NATIVE_KEYS = frozenset([bool, int, float])

Path = tuple[str, ...]


def summarized(_: Path, value: Any) -> Scalar:
    """The summary of a value that JSON cannot hold."""
    return summary_of(value)


def ignored(_: Path, __: str) -> None:
    """Do not report a value that could not be read."""


def content_of(
    value: Any,
    apart: Callable[[Path, Any], Scalar] = summarized,
    note: Callable[[Path, str], None] = ignored,
    *,
    native_keys: bool = False,
) -> Any:
    """A value as dicts, lists and plain values. Secrets are masked: by name, by type and by pattern.

    Args:
        value: any value.
        apart: called with the path and the value if JSON cannot hold it; returns what replaces the value.
        note: called with the path and the reason if a value could not be read.
        native_keys: whether keys that are numbers stay numbers, as YAML allows.

    >>> content_of({"moments": {1, 2}, "password": "hunter2", "pair": (1, 1 + 2j)})
    {'moments': [1, 2], 'password': '***', 'pair': [1, '(1+2j)']}
    """
    return _Walk(apart, note, native_keys).tree(value, (), ())


def has_content(value: Any) -> bool:
    """Whether a JSON file can hold a value, perhaps with some of its parts in other files."""
    handler = handler_for(type(value))
    try:
        return not handler.named and handler.content(value) is not NEEDS_OWN_FILE
    except Exception:
        return False


def is_opaque(value: Any) -> bool:
    """Whether only a pickle can hold a value, according to its type; of a list, each of its items."""
    if issubclass(type(value), (list, tuple)):
        return bool(value) and all(map(is_opaque, islice(value, _MAX_INSPECTED)))
    return handler_for(type(value)).executes and not has_content(value)


class _Walk:
    """Converts one value and notes what it leaves out."""

    def __init__(self, apart: Callable[[Path, Any], Scalar], note: Callable[[Path, str], None], native: bool) -> None:
        self._apart = apart
        self._note = note
        self._native = native
        self._repeats = Repeats()
        self._deep = 0

    def tree(self, value: Any, path: Path, around: tuple[int, ...]) -> Any:
        kind = type(value)
        if kind is str:
            return mask_text(value)
        if kind in SCALARS:
            return value
        if id(value) in around:
            self._note(path, "it holds itself")
            return class_name(value)
        if len(around) > _MAX_DEPTH:
            self._deep += 1
            if self._deep <= _MAX_DEEP:
                return self._apart(path, value)
            self._note(path, "it is nested too deeply")
            return class_name(value)
        handler = handler_for(kind)
        try:
            content = handler.content(value)
        except Exception as error:  # A property or mapping of the user raised an error.
            self._note(path, f"it cannot be read: {type(error).__name__}: {error}")
            return class_name(value)
        return self._converted(handler, value, content, path, (*around, id(value)))

    def _converted(self, handler: Handler, value: Any, content: Any, path: Path, inside: tuple[int, ...]) -> Any:
        kind = type(content)
        if content is NEEDS_OWN_FILE:
            return self._apart(path, value)
        if isinstance(content, Placeholder):
            self._note(path, content.why)
            return mask_text(str(content))
        if kind is str:
            return mask_text(content)
        if kind in SCALARS:
            return content
        is_list = issubclass(kind, (list, tuple)) and not hasattr(kind, "_fields")
        if not is_list and not isinstance(content, Mapping):
            return self.tree(content, path, inside)
        if self._repeats.over(value, len(content)):
            self._note(path, "it holds the same parts over and over")
            return class_name(value)
        return self._items(content, path, inside) if is_list else self._parts(content, path, inside)

    def _items(self, items: Any, path: Path, inside: tuple[int, ...]) -> list[Any]:
        if _NUMBERS.issuperset(map(type, items)):
            return list(items)
        return [self.tree(item, (*path, str(index)), inside) for index, item in enumerate(mask_items(items))]

    def _parts(self, parts: Mapping[Any, Any], path: Path, inside: tuple[int, ...]) -> dict[Any, Any]:
        converted: dict[Any, Any] = {}
        for key, part in mask_entry(parts).items():
            text = text_of_key(key)
            hidden = is_secret(text, part)
            name: Any = key if self._native and type(key) in _NATIVE_KEYS else mask_name(text)
            count = 1
            while name in converted:
                count += 1
                name = f"{mask_name(text)}#{count}"
            converted[name] = remember(part) if hidden else self.tree(part, (*path, mask_name(text)), inside)
        return converted


def free_name(name: str, taken: Container[str]) -> str:
    """The name itself, or with a number at the end if it is taken."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}#{count}"
    return free


def text_of_key(key: Any) -> str:
    """A key as text: a date in ISO format, a tuple by its items.

    >>> text_of_key((1, "a"))
    '(1, a)'
    """
    if type(key) is str:
        return key
    if isinstance(key, tuple) and not hasattr(type(key), "_fields"):
        return f"({', '.join(map(text_of_key, mask_items(key)))})"
    try:
        content = handler_for(type(key)).content(key)
    except Exception:
        content = NEEDS_OWN_FILE
    return name_of_key(content if type(content) in SCALARS else key)
