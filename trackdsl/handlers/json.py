"""Dicts, lists and tuples: parameters by leaf, and JSON files where JSON can hold all of them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackdsl._core.redaction import mask_items, mask_text
from trackdsl.handlers._line import MAX_ITEMS, MAX_LINE, digest_of, flat_line, line_of, long_list, sample
from trackdsl.handlers._registry import Handler, Scalar, Stated, class_name, full_name, handler_for

if TYPE_CHECKING:
    from trackdsl.handlers._dataset import DatasetProfile

_MAX_DEPTH = 50
#: A list of more items than this, with those of the lists in it, is data: its length is all that is told of it.
MAX_LIST = 10_000
#: How many items of lists are looked at, in one value, for a structure among them; and in one long list.
_MAX_LOOKED_AT = 50_000
_LOOKED_AT = 16
#: How much of what stands in a value more than once is told each time.
_MAX_REPEATED = 20_000
#: A mapping of more items than this, which need not have an end, is not told.
_MAX_MAPPING = 100_000
#: How long reading the items of one mapping may take, and how often, for one type, it may take longer.
_MAX_SECONDS = 0.1
_MAX_SLOW = 3
_TOO_SLOW = f"reading its items takes longer than {_MAX_SECONDS * 1000:g} ms"
_MAX_TYPES = 1000
#: How often reading the items of a mapping took too long, by type.
_slow: dict[type, int] = {}
_SCALARS = frozenset([bool, int, float, str, type(None)])
_NUMBERS = _SCALARS - {str}


class Json(Handler):
    """Whatever JSON, and so YAML, can hold."""

    suffix = ".json"
    suffixes = (".yaml", ".yml", ".txt")

    def accepts(self, value: Any) -> bool:
        """See `Handler`."""
        return is_plain(value)

    def write(self, value: Any, path: Path) -> None:
        """See `Handler`."""
        from trackdsl.handlers._content import content_of  # It looks into values by what is defined here.

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
        # Copies, in one step where that can be, because another thread may change the user's dict meanwhile.
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
            return Stated(str(self.summary(value)), str(error))

    def summary(self, value: Any) -> Scalar:
        return f"{type(value).__name__} of {len(value)}"

    def dataset(self, value: Any) -> DatasetProfile | None:
        """Columns by name, or arrays by name."""
        from trackdsl.handlers._dataset import plain_profile

        if value and all(full_name(type(part)) == "numpy.ndarray" for part in value.values()):
            from trackdsl.handlers.numpy import arrays_profile

            return arrays_profile(value)
        return plain_profile(value)


class Survey:
    """Looks for structures in the lists of one value: in each list once, of long ones at a sample of their items.

    Attributes:
        left: how many items may still be looked at.
        data: whether the last list had too many items to be anything but data.
    """

    __slots__ = ("_plain", "data", "left")

    def __init__(self) -> None:
        self.left = _MAX_LOOKED_AT
        self.data = False
        #: Lists without structures: themselves, so that no other can come to have the same `id`.
        self._plain: dict[int, Any] = {}

    def holds_structure(self, value: Any) -> bool:
        """Whether there is a structure among the items of a list, or of the lists in it."""
        self.data = False
        budget: float = MAX_LIST
        seen = {id(value): value}
        #: Lists, and how many others each of them stands for.
        waiting: list[tuple[Any, float]] = [(value, 1.0)]
        while waiting:
            items, alike = waiting.pop()
            looked_at = items if len(items) <= MAX_ITEMS else sample(items, _LOOKED_AT)
            budget -= len(items) * alike
            alike *= len(items) / max(1, len(looked_at))
            self.left -= len(looked_at)
            self.data = budget < 0
            if self.data or self.left < 0:
                return False
            if _SCALARS.issuperset(map(type, looked_at)):
                continue
            for item in looked_at:
                if type(item) in _SCALARS:
                    continue
                if handler_for(type(item)) is not sequence:
                    if _is_structure(item):
                        return True
                elif id(item) not in seen and id(item) not in self._plain:
                    seen[id(item)] = item
                    waiting.append((item, alike))
        self._plain.update(seen)
        return False


class _Sequence(Json):
    """Lists and tuples: one line where all items are plain, else one parameter per item."""

    def children(self, value: Any) -> Mapping[Any, Any] | None:
        return self.parts(value, None)

    def parts(self, value: Any, survey: Survey | None) -> Mapping[Any, Any] | None:
        """The same, for one of several lists in a value."""
        if len(value) > MAX_LIST or is_flat(value):
            return None
        return dict(enumerate(value)) if (survey or Survey()).holds_structure(value) else None

    def content(self, value: Any) -> Any:
        return value

    def summary(self, value: Any) -> Scalar:
        return self.line(value)[0]

    def line(self, value: Any) -> tuple[str, bool]:
        """The items in one line, and whether that tells them all."""
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
        from trackdsl.handlers._dataset import plain_profile

        return plain_profile(value)


class _Listing(Json):
    """What is a list by another name: read back it is one."""

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
    """Subclasses of numbers, such as `numpy.float64`: an event takes the builtin types alone."""

    def content(self, value: Any) -> Any:
        return self.summary(value)

    def summary(self, value: Any) -> Scalar:
        if value is None:
            return None
        return int(value) if isinstance(value, int) else float(value)


def _items_of(value: Any) -> dict[Any, Any]:
    """The items of a mapping that may read or compute each of them: all, or none where that takes long.

    Raises:
        TimeoutError: it does; after some times, values of the type are not asked any more.
        ValueError: there are too many.
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
    """Write a tree of plain values as JSON, YAML or text, by the suffix."""
    with open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
        if path.suffix.lower() in (".yaml", ".yml"):
            import yaml

            yaml.safe_dump(tree, file, allow_unicode=True, sort_keys=False)
        elif path.suffix == ".txt" and isinstance(tree, (str, int, float)):
            file.write(str(tree))
        else:
            json.dump(tree, file, indent=2, ensure_ascii=False)


class Repeats:
    """Notices what stands in a value more than once: told each time, a few lists can be more than a disk holds.

    Args:
        most: how many parts of such may be told again.
    """

    __slots__ = ("_left", "_seen")

    def __init__(self, most: int = _MAX_REPEATED) -> None:
        #: Themselves, so that no other can come to have the same `id`.
        self._seen: dict[int, Any] = {}
        self._left = most

    @property
    def exceeded(self) -> bool:
        """Whether there was one too many."""
        return self._left < 0

    def over(self, part: Any, size: int) -> bool:
        """Whether a structure of so many parts is one too many."""
        if id(part) not in self._seen:
            self._seen[id(part)] = part
            return False
        self._left -= size + 1
        return self._left < 0


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


def is_flat(value: Any) -> bool:
    """Whether a list holds plain numbers, texts and None alone, by a sample of it where it is too long to be shown."""
    return _SCALARS.issuperset(map(type, value if len(value) <= MAX_ITEMS else sample(value, _LOOKED_AT)))


def is_plain(value: Any, repeats: Repeats | None = None) -> bool:
    """Whether a value is made of what JSON knows, down to the last leaf.

    Args:
        value: anything.
        repeats: those of the values that go into the same file.
    """
    return _is_plain(value, 0, repeats or Repeats())


def _is_plain(value: Any, depth: int, repeats: Repeats) -> bool:
    kind = type(value)
    # By the type: what an object answers for its `__class__` is its own affair.
    if value is None or issubclass(kind, (str, int, float)):
        return True
    if depth > _MAX_DEPTH or not issubclass(kind, (dict, list, tuple)) or repeats.over(value, len(value)):
        return False
    if issubclass(kind, dict):
        if not all(issubclass(type(key), str) for key in value):
            return False
        value = value.values()
    return _SCALARS.issuperset(map(type, value)) or all(_is_plain(item, depth + 1, repeats) for item in value)


def _is_structure(value: Any) -> bool:
    if type(value) in _SCALARS:
        return False
    try:
        return handler_for(type(value)).children(value) is not None
    except Exception:
        return False


mapping = _Mapping()
sequence = _Sequence()
listing = _Listing()
number = _Number()
