"""Dicts, lists and tuples: parameters by leaf, and JSON files where JSON can hold all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackdsl._secrets import is_secret_name, mask_text, remember
from trackdsl.handlers._registry import Handler, Scalar, class_name, full_name, handler_for

if TYPE_CHECKING:
    from trackdsl.handlers._dataset import DatasetProfile

_MAX_DEPTH = 50
#: A list of more plain items than this is told by its length.
MAX_ITEMS = 100
_SCALARS = frozenset([bool, int, float, str, type(None)])


class Json(Handler):
    """Whatever JSON, and so YAML, can hold."""

    suffix = ".json"
    suffixes = (".yaml", ".yml", ".txt")

    def accepts(self, value: Any) -> bool:
        """See `Handler`."""
        return is_plain(value)

    def write(self, value: Any, path: Path) -> None:
        """See `Handler`."""
        write_json(tree_of(value), path)

    def read(self, path: Path) -> Any:
        """See `Handler`."""
        if path.suffix in (".yaml", ".yml"):
            import yaml

            return yaml.safe_load(path.read_text(encoding="utf-8"))
        text = path.read_text(encoding="utf-8")
        return text if path.suffix == ".txt" else json.loads(text)


class _Mapping(Json):
    def children(self, value: Any) -> Mapping[Any, Any]:
        return value if type(value) is dict else dict(value.items())

    def summary(self, value: Any) -> Scalar:
        return f"{type(value).__name__} of {len(value)}"

    def dataset(self, value: Any) -> DatasetProfile | None:
        """Columns by name, or arrays by name."""
        from trackdsl.handlers._dataset import plain_profile

        if value and all(full_name(type(part)) == "numpy.ndarray" for part in value.values()):
            from trackdsl.handlers.numpy import arrays_profile

            return arrays_profile(value)
        return plain_profile(value)


class _Sequence(Json):
    """Lists and tuples: one line where all items are plain, else one parameter per item."""

    def children(self, value: Any) -> Mapping[Any, Any] | None:
        if all(type(item) in _SCALARS for item in value) or not any(_is_structure(item) for item in value):
            return None
        return dict(enumerate(value))

    def summary(self, value: Any) -> Scalar:
        if len(value) > MAX_ITEMS:
            return f"{type(value).__name__} of {len(value)}"
        return "[" + ", ".join(str(summary_of(item)) for item in value) + "]"

    def dataset(self, value: Any) -> DatasetProfile | None:
        """Records, or one column."""
        from trackdsl.handlers._dataset import plain_profile

        return plain_profile(value)


class _Number(Json):
    """Subclasses of numbers, such as `numpy.float64`: an event takes the builtin types alone."""

    def summary(self, value: Any) -> Scalar:
        if value is None:
            return None
        return int(value) if isinstance(value, int) else float(value)


def write_json(tree: Any, path: Path) -> None:
    """Write a tree of plain values as JSON, YAML or text, by the suffix."""
    with open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
        if path.suffix in (".yaml", ".yml"):
            import yaml

            yaml.safe_dump(tree, file, allow_unicode=True, sort_keys=False)
        elif path.suffix == ".txt" and isinstance(tree, (str, int, float)):
            file.write(str(tree))
        else:
            json.dump(tree, file, indent=2, ensure_ascii=False)


def tree_of(value: Any, around: tuple[int, ...] = ()) -> Any:
    """Any value as dicts, lists and plain values, with its secrets masked: by name, by type and by shape.

    What is no structure is told by its summary; what holds itself is cut there.
    """
    if type(value) is str:
        return mask_text(value)
    if type(value) in _SCALARS:
        return value
    if len(around) > _MAX_DEPTH or id(value) in around:
        return class_name(value)
    inside = (*around, id(value))
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return [tree_of(item, inside) for item in value]
    try:
        parts = handler_for(type(value)).children(value)
    except Exception:  # A property or mapping of the user's that raises.
        return class_name(value)
    if parts is None:
        return summary_of(value)
    return {
        str(key): remember(part) if part is not None and is_secret_name(str(key)) else tree_of(part, inside)
        for key, part in parts.items()
    }


def summary_of(value: Any) -> Scalar:
    """A value in one line, which cannot fail."""
    kind = type(value)
    if kind is str:
        return mask_text(value)
    if kind in _SCALARS:
        return value  # type: ignore[no-any-return]
    try:
        return handler_for(kind).summary(value)
    except Exception:
        return class_name(value)


def is_scalar(value: Any) -> bool:
    """Whether a value is a plain number, text, or None."""
    return type(value) in _SCALARS


def is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value is made of what JSON knows, down to the last leaf."""
    if value is None or isinstance(value, (str, int, float)):
        return True
    if depth > _MAX_DEPTH:
        return False
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item, depth + 1) for key, item in value.items())
    return isinstance(value, (list, tuple)) and all(is_plain(item, depth + 1) for item in value)


def _is_structure(value: Any) -> bool:
    if type(value) in _SCALARS:
        return False
    try:
        return handler_for(type(value)).children(value) is not None
    except Exception:
        return False


mapping = _Mapping()
sequence = _Sequence()
number = _Number()
