"""Arguments → parameters: a structure becomes one parameter per leaf, any other value one line.

The leaves of a structure are named `name.part.part`. A name may be ambiguous, because a part contains a dot or two
parts have the same text. Then the leaf gets a distinct name and its true path is recorded, so `nest` can rebuild the
structure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trackdsl._core.events import Scalar
from trackdsl._core.redaction import is_secret, mask_entry, mask_items, mask_name, mask_text, remember
from trackdsl._core.suppression import suppression
from trackdsl.errors import format_error, reraise_from_signal
from trackdsl.handlers._handler import Handler, Placeholder
from trackdsl.handlers._line import MAX_ITEMS
from trackdsl.handlers._plain import MAX_LIST, is_flat, summary_of
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._scalar_text import name_of_key
from trackdsl.handlers._types import class_name
from trackdsl.handlers.json import Survey, sequence
from trackdsl.handlers.references import loaded, used_model

MAX_DEPTH = 10
MAX_LEAVES = 2000
#: Longer lists are shown as a digest. In them, pairs such as `["password", "x"]` are not found.
_MAX_NAMED = 300
_SCALARS = frozenset([bool, int, float, str, type(None)])
#: A shorter name cannot hold a secret.
_SECRET_LENGTH = 8


class Flat:
    """Parameters, collected from values one by one.

    Args:
        values: parameters so far; new ones are added to this dict.

    Attributes:
        values: name → plain value, with secrets masked.
        whole: name → value that is too deep or too large for one parameter per leaf, and is kept as a file.
        paths: name → true path, where the name is ambiguous.
        models: references to the models at MLflow that are among the values.
        omitted: name → why only the class name of a value is recorded: reading it raised an exception.

    Example:
        >>> flat = Flat()
        >>> flat.add("opt", {"lr": 0.1, "decay": {"rate": 2}})
        >>> flat.values
        {'opt.lr': 0.1, 'opt.decay.rate': 2}
    """

    __slots__ = ("_full", "_over", "_survey", "models", "omitted", "paths", "values", "whole")

    def __init__(self, values: dict[str, Scalar] | None = None) -> None:
        self.values: dict[str, Scalar] = {} if values is None else values
        self.whole: dict[str, Any] = {}
        self.paths: dict[str, list[str]] = {}
        self.models: list[str] = []
        self.omitted: dict[str, str] = {}
        #: The number of values at which the value that is being added is full; and whether a value exceeded it.
        self._full = 0
        self._over = False
        self._survey: Survey | None = None

    def __bool__(self) -> bool:
        return bool(self.whole or self.paths or self.omitted or self.models)

    def add(self, key: str, value: Any) -> None:
        """Add a value under a name that the user chose.

        Args:
            key: name of the parameter; leaves of structures are `key.leaf`.
            value: any object.
        """
        if key in self.values:
            key = self._distinct(key, (key,))
        if is_secret(key.rpartition(".")[2], value):
            self.values[key] = remember(value)
            return
        self._full, self._over, self._survey = len(self.values) + MAX_LEAVES, False, None
        thread = suppression.begin()
        try:
            self._add(key, (key,), value)
        except Exception as error:  # Reading the user's objects may raise.
            self._omit(key, value, error)
        finally:
            suppression.end(thread)
        self._forget(key)
        if self._over:
            self.whole[key] = value

    def hide(self, key: str, value: Any) -> None:
        """Add a secret value: only whether it is None is recorded."""
        if key in self.values:
            key = self._distinct(key, (key,))
        self.values[key] = None if value is None else remember(value)

    def _add(self, key: str, path: tuple[str, ...], value: Any) -> None:
        values = self.values
        kind = type(value)
        if kind is bool or kind is int or kind is float or value is None:
            values[key] = value
            return
        try:
            handler = handler_for(kind)
            if handler.listed and len(value) <= MAX_LIST:
                value = handler.content(value)
                handler = handler_for(type(value))
            if handler is sequence:
                self._add_list(key, path, value)
                return
            parts = handler.children(value)
            if parts is None:
                self._add_one(key, handler, value)
                return
            parts = mask_entry(parts)
        except Exception as error:  # A property or mapping of the user raised: its class name is recorded.
            self._omit(key, value, error)
            if isinstance(error, TimeoutError):
                values[key] = summary_of(value)
            return
        if not parts:
            values[key] = "{}"
        elif len(path) > MAX_DEPTH or len(values) >= self._full:
            self._cut(key, value, len(parts))
        else:
            self._add_parts(key, path, parts)

    def _add_one(self, key: str, handler: Handler, value: Any) -> None:
        found = handler.summary(value)
        if type(found) not in _SCALARS:
            if type(found) is Placeholder:
                self._state(key, found)
            found = _plain(found)
        self.values[key] = found
        if type(value) is Placeholder:
            self._state(key, value)
        if handler.refers or loaded:
            self._add_model(value)

    def _add_model(self, value: Any) -> None:
        model = used_model(value)
        if model is not None and model not in self.models:
            self.models.append(model)

    def _add_list(self, key: str, path: tuple[str, ...], value: Any) -> None:
        parts, data = None, len(value) > MAX_LIST
        if not data and not is_flat(value):
            if len(value) <= _MAX_NAMED:
                self._inspect_items(key, value)
                value = mask_items(value)
            self._survey = self._survey or Survey()
            parts, data = sequence.parts(value, self._survey), self._survey.data
            if parts is not None and len(value) > _MAX_NAMED:
                parts = dict(enumerate(mask_items(value)))
            if self._survey.left < 0:  # Some lists were not inspected.
                self._over = True
        if parts is None:
            line, complete = sequence.line(value)
            self.values[key] = line
            # A long list is data if it is an argument itself, and configuration if it is inside an argument.
            if not complete and not data and (len(path) > 1 or len(value) <= MAX_ITEMS):
                self._over = True
        elif len(path) > MAX_DEPTH or len(self.values) >= self._full:
            self._cut(key, value, len(parts))
        else:
            self._add_parts(key, path, parts)

    def _inspect_items(self, key: str, items: Any) -> None:
        for item in items:
            if type(item) is Placeholder:
                self._state(key, item)
            elif loaded or handler_for(type(item)).refers:
                self._add_model(item)

    def _cut(self, key: str, value: Any, count: int) -> None:
        self.values[key] = f"{type(value).__name__} of {count}"
        self._over = True

    def _state(self, key: str, text: Placeholder) -> None:
        if text.missing:
            self.omitted[key] = f"recorded as {text}: {mask_text(text.why)}"[:500]

    def _omit(self, key: str, value: Any, error: Exception) -> None:
        reraise_from_signal(error)
        self.values[key] = class_name(value)
        self.omitted[key] = f"described in one line: {mask_text(format_error(error))}"[:500]

    def _add_parts(self, key: str, path: tuple[str, ...], parts: Mapping[Any, Any]) -> None:
        values, full = self.values, self._full
        odd = key in self.paths
        for part, leaf in parts.items():
            name = part if type(part) is str else name_of_key(part)
            if len(name) >= _SECRET_LENGTH:
                name = mask_name(name)
            leaf_name = f"{key}.{name}"
            if odd or "." in name or leaf_name in values:
                leaf_name = self._distinct(leaf_name, (*path, name))
            if leaf is None:
                values[leaf_name] = None
            elif is_secret(name, leaf):
                values[leaf_name] = remember(leaf)
            else:
                kind = type(leaf)
                if kind is float or kind is int or kind is bool:
                    values[leaf_name] = leaf
                elif kind is str:
                    values[leaf_name] = mask_text(leaf)
                elif len(values) >= full:
                    self._over = True
                    return
                else:
                    self._add(leaf_name, (*path, name), leaf)
                    self._forget(leaf_name)
                    continue
            if len(values) >= full:
                self._over = True
                return

    def _forget(self, leaf_name: str) -> None:
        """Remove the path of a structure, which its leaves no longer need: another leaf may get its name."""
        if leaf_name in self.paths and leaf_name not in self.values:
            del self.paths[leaf_name]

    def _distinct(self, leaf_name: str, path: tuple[str, ...]) -> str:
        free, count = leaf_name, 1
        while free in self.values:
            count += 1
            free = f"{leaf_name}#{count}"
        self.paths[free] = list(path)
        return free


def _plain(summary: Any) -> Scalar:
    """Convert a handler's summary to a type that an event can hold."""
    for kind in (str, bool, int, float):
        if isinstance(summary, kind):
            return str.__str__(summary) if kind is str else kind(summary)
    return class_name(summary)


def recorded_value(value: Any) -> Any:
    """The recorded form of a parameter's value, for queries; the value itself if it is not one parameter.

    >>> recorded_value([64, 32]), recorded_value(0.5), recorded_value({"a": 1})
    ('[64, 32]', 0.5, {'a': 1})
    """
    kind = type(value)
    if kind is str or (not isinstance(value, (list, tuple)) and handler_for(kind) is handler_for(object)):
        return value
    flat = Flat()
    flat.add("value", value)
    return flat.values["value"] if flat.values.keys() == {"value"} else value


def nest(values: Mapping[str, Any], paths: Mapping[str, list[str]] | None = None) -> dict[str, Any]:
    """Rebuild the structure that flat parameters came from.

    Args:
        values: parameters by name.
        paths: see `Flat`.

    Example:
        >>> nest({"opt.lr": 0.1, "opt.decay.rate": 2})
        {'opt': {'lr': 0.1, 'decay': {'rate': 2}}}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        *folders, last = (paths or {}).get(key) or key.split(".")
        parent = found
        for folder in folders:
            parent = parent.setdefault(folder, {})
        parent[last] = value
    return found
