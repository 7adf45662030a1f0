"""A list with different items in each scope: scopes that are not nested do not see each other's items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableSequence
from typing import Any, SupportsIndex


class ScopedList(MutableSequence[Any], list[Any]):  # type: ignore[misc, metaclass]
    """Replaces a list that the whole process shares. All methods of a list work, on the visible items.

    Items that were added in the current scope, in the scopes around it, or outside of any scope are visible. Outside of
    any scope, all items are visible. It only inherits from `list` for `isinstance`; that list stays empty.

    Args:
        items: the items of the list so far.
        keys: returns the keys of the current scope and those around it, the innermost first; empty outside of any.
    """

    def __init__(self, items: Iterable[Any], keys: Callable[[], list[object]]) -> None:
        self._entries: list[tuple[object, Any]] = [(None, item) for item in items]
        self._keys = keys

    def _here(self) -> object:
        return next(iter(self._keys()), None)

    def _visible(self) -> list[Any]:
        keys = self._keys()
        return [item for key, item in list(self._entries) if not keys or key is None or any(key is k for k in keys)]

    def _show(self, shown: list[Any]) -> None:
        """Replace the visible items. The others keep their positions."""
        visible = {id(item) for item in self._visible()}
        keys = {id(item): key for key, item in self._entries}
        here, left = self._here(), iter(shown)
        entries = []
        for entry in self._entries:
            if id(entry[1]) not in visible:
                entries.append(entry)
            else:
                entries += [(keys.get(id(item), here), item) for item in _next(left)]
        self._entries = entries + [(keys.get(id(item), here), item) for item in left]

    def append(self, item: Any) -> None:
        """See `list`."""
        self._entries.append((self._here(), item))

    def pop(self, index: SupportsIndex = -1) -> Any:
        """See `list`. Without an index, this removes the last item of the current scope, if the scope has added one."""
        here = self._here()
        own = [entry for entry in self._entries if entry[0] is here]
        if index != -1 or not own:
            item = self[index]
            del self[index]
            return item
        self._entries.remove(own[-1])
        return own[-1][1]

    def insert(self, index: SupportsIndex, item: Any) -> None:
        """See `list`."""
        shown = self._visible()
        shown.insert(index, item)
        self._show(shown)

    def sort(self, **kwargs: Any) -> None:
        """See `list`."""
        self._show(sorted(self._visible(), **kwargs))

    def copy(self) -> list[Any]:
        """The visible items, as a list."""
        return self._visible()

    def __len__(self) -> int:
        return len(self._visible())

    def __getitem__(self, index: Any) -> Any:
        return self._visible()[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        shown = self._visible()
        shown[index] = value
        self._show(shown)

    def __delitem__(self, index: Any) -> None:
        shown = self._visible()
        del shown[index]
        self._show(shown)

    def __imul__(self, times: SupportsIndex) -> ScopedList:
        self._show(self._visible() * times)
        return self

    def __radd__(self, other: list[Any]) -> list[Any]:
        return other + self._visible()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._visible())

    def __reduce_ex__(self, _protocol: SupportsIndex) -> tuple[Any, ...]:
        return list, (self._visible(),)


def _next(items: Iterator[Any]) -> list[Any]:
    """The next item, or an empty list."""
    for item in items:
        return [item]
    return []


def _on_visible(name: str) -> Callable[..., Any]:
    def operate(self: ScopedList, *others: Any) -> Any:
        plain = [list(other) if isinstance(other, ScopedList) else other for other in others]
        return getattr(list, name)(self._visible(), *plain)

    operate.__name__ = name
    return operate


for _name in ("__add__", "__mul__", "__rmul__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__repr__"):
    setattr(ScopedList, _name, _on_visible(_name))
