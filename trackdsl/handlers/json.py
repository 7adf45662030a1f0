"""Dicts, lists and tuples → one parameter for each leaf, and JSON files if JSON can hold the whole value."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from trackdsl._core import runtime
from trackdsl._core.redaction import mask_items
from trackdsl._core.runtime import Phase
from trackdsl.handlers._content import content_of
from trackdsl.handlers._dataset import DatasetProfile, plain_profile
from trackdsl.handlers._handler import Handler, Placeholder, Scalar
from trackdsl.handlers._line import MAX_ITEMS, MAX_LINE, flat_line, line_of, long_list
from trackdsl.handlers._plain import INSPECTED_ITEMS, MAX_LIST, is_flat, is_plain
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._scalar_text import SCALARS
from trackdsl.handlers._value_digest import digest_of, sample

#: How many items of the lists in one value are inspected in the search for a structure.
_MAX_INSPECTED = 50_000
#: A mapping with more items than this, which may even be endless, is not recorded.
_MAX_MAPPING = 100_000
#: How long reading the items of one mapping may take. A type that takes longer this often is not read any more.
_MAX_SECONDS = 0.1
_MAX_SLOW = 3
_TOO_SLOW = f"reading its items takes longer than {_MAX_SECONDS * 1000:g} ms"
_MAX_TYPES = 1000
#: How often reading the items of a mapping took too long, by type.
_slow: dict[type, int] = runtime.forgets_at_exit({})
runtime.register("types that are slow to read", Phase.MEMORY, reset=_slow.clear)


class Json(Handler):
    """The base class of handlers whose values JSON and YAML can hold."""

    suffix = ".json"
    suffixes = (".yaml", ".yml", ".txt")

    def accepts(self, value: Any) -> bool:
        """See `Handler`."""
        return is_plain(value)

    def write(self, value: Any, path: Path) -> None:
        """See `Handler`."""
        write_json(content_of(value, native_keys=path.suffix != ".json"), path)

    def read(self, path: Path) -> Any:
        """See `Handler`."""
        if path.suffix in (".yaml", ".yml"):
            import yaml

            return yaml.safe_load(path.read_text(encoding="utf-8"))
        text = path.read_text(encoding="utf-8")
        return text if path.suffix == ".txt" else json.loads(text)


class _Mapping(Json):
    def children(self, value: Any) -> Mapping[Any, Any]:
        # A copy, because another thread may change the user's dict. Copying a plain dict is one atomic step.
        kind = type(value)
        if kind is dict:
            return value.copy()  # type: ignore[no-any-return]
        if issubclass(kind, dict) and kind.items is dict.items:
            return dict.copy(value) if kind.__iter__ is dict.__iter__ else dict(dict.items(value))
        return _items_of(value)

    def content(self, value: Any) -> Any:
        try:
            return self.children(value)
        except TimeoutError as error:
            return Placeholder(str(self.summary(value)), str(error))

    def summary(self, value: Any) -> Scalar:
        return f"{type(value).__name__} of {len(value)}"

    def dataset(self, value: Any) -> DatasetProfile | None:
        """Columns by name, or arrays by name."""
        of_parts = {handler_for(type(part)) for part in value.values()}
        tensors = of_parts.pop().dataset_of_parts(value) if len(of_parts) == 1 else None
        return plain_profile(value) if tensors is None else tensors


class Survey:
    """Searches the lists of one value for structures. Each list is searched once; a long list is sampled.

    Attributes:
        left: how many more items may be inspected.
        data: whether the last list had so many items that it counts as data.
    """

    __slots__ = ("_plain", "data", "left")

    def __init__(self) -> None:
        self.left = _MAX_INSPECTED
        self.data = False
        #: Lists without structures by id. They are kept, so that no other object can get the same id.
        self._plain: dict[int, Any] = {}

    def holds_structure(self, value: Any) -> bool:
        """Whether a list, or a list inside it, contains a structure."""
        self.data = False
        budget: float = MAX_LIST
        seen = {id(value): value}
        #: Lists to search, each with the number of lists that it represents in the sample.
        waiting: list[tuple[Any, float]] = [(value, 1.0)]
        while waiting:
            items, represented = waiting.pop()
            inspected = items if len(items) <= MAX_ITEMS else sample(items, INSPECTED_ITEMS)
            budget -= len(items) * represented
            represented *= len(items) / max(1, len(inspected))
            self.left -= len(inspected)
            self.data = budget < 0
            if self.data or self.left < 0:
                return False
            if SCALARS.issuperset(map(type, inspected)):
                continue
            for item in inspected:
                if type(item) in SCALARS:
                    continue
                if handler_for(type(item)) is not sequence:
                    if _is_structure(item):
                        return True
                elif id(item) not in seen and id(item) not in self._plain:
                    seen[id(item)] = item
                    waiting.append((item, represented))
        self._plain.update(seen)
        return False


class _Sequence(Json):
    """Lists and tuples: one line if all items are plain, else one parameter for each item."""

    def children(self, value: Any) -> Mapping[Any, Any] | None:
        return self.parts(value, None)

    def parts(self, value: Any, survey: Survey | None) -> Mapping[Any, Any] | None:
        """The children of one of several lists in a value, which share a `Survey`."""
        if len(value) > MAX_LIST or is_flat(value):
            return None
        return dict(enumerate(value)) if (survey or Survey()).holds_structure(value) else None

    def content(self, value: Any) -> Any:
        return value

    def summary(self, value: Any) -> Scalar:
        return self.line(value)[0]

    def line(self, value: Any) -> tuple[str, bool]:
        """The items in one line, and whether the line shows all of them."""
        if len(value) > MAX_ITEMS:
            return long_list(value), False
        value = mask_items(value)
        if is_flat(value):
            text = flat_line(value)
            if len(text) <= MAX_LINE:
                return text, True
        return line_of(value)

    def dataset(self, value: Any) -> DatasetProfile | None:
        """Records, or one column."""
        return plain_profile(value)


class _Listing(Json):
    """Other types of lists, such as `deque` and `array`. They are read back as lists."""

    listed = True

    def accepts(self, value: Any) -> bool:
        return is_plain(self.content(value))

    def content(self, value: Any) -> Any:
        return list(value)

    def children(self, value: Any) -> Mapping[Any, Any] | None:
        return sequence.children(self.content(value)) if len(value) <= MAX_LIST else None

    def summary(self, value: Any) -> Scalar:
        if len(value) <= MAX_LIST:
            return sequence.summary(self.content(value))
        ends = [*islice(value, MAX_LIST // 20), *islice(reversed(value), MAX_LIST // 20)]
        return f"{type(value).__name__} of {len(value)}, digest {digest_of(ends)}"


class _Number(Json):
    """Subclasses of numbers, such as `numpy.float64`. Events contain only the built-in types."""

    def content(self, value: Any) -> Any:
        return self.summary(value)

    def summary(self, value: Any) -> Scalar:
        if value is None:
            return None
        return int(value) if isinstance(value, int) else float(value)


def _items_of(value: Any) -> dict[Any, Any]:
    """The items of a mapping that may read or compute each item: all items, or an error if that takes too long.

    Raises:
        TimeoutError: reading takes too long. After `_MAX_SLOW` times, mappings of this type are not read any more.
        ValueError: there are too many items.
    """
    kind = type(value)
    if _slow.get(kind, 0) >= _MAX_SLOW:
        raise TimeoutError(_TOO_SLOW)
    parts: dict[Any, Any] = {}
    began = time.monotonic()
    for key, part in value.items():
        if len(parts) >= _MAX_MAPPING:
            raise ValueError(f"it has more than {_MAX_MAPPING} items")
        parts[key] = part
        spent = time.monotonic() - began
        if spent > _MAX_SECONDS and len(parts) < len(value):  # The next item may take as long.
            if len(_slow) >= _MAX_TYPES:
                _slow.clear()
            _slow[kind] = _slow.get(kind, 0) + min(int(spent / _MAX_SECONDS), _MAX_SLOW - 1)
            raise TimeoutError(_TOO_SLOW)
    return parts


def write_json(tree: Any, path: Path) -> None:
    """Write a tree of plain values as JSON, YAML or text, according to the suffix."""
    with open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
        if path.suffix.lower() in (".yaml", ".yml"):
            import yaml

            yaml.safe_dump(tree, file, allow_unicode=True, sort_keys=False)
        elif path.suffix == ".txt" and isinstance(tree, (str, int, float)):
            file.write(str(tree))
        else:
            json.dump(tree, file, indent=2, ensure_ascii=False)


def _is_structure(value: Any) -> bool:
    if type(value) in SCALARS:
        return False
    try:
        return handler_for(type(value)).children(value) is not None
    except Exception:
        return False


mapping = _Mapping()
sequence = _Sequence()
listing = _Listing()
number = _Number()
