"""Which variables may have objects in common, so that a change by one name is seen by another."""

from __future__ import annotations

from collections.abc import Iterable


class Objects:
    """The possible aliases in a namespace: for each name, the names whose objects it may hold, including its own."""

    def __init__(self) -> None:
        self._held: dict[str, frozenset[str]] = {}

    def written(self, names: Iterable[str], surely: frozenset[str], shares: list[tuple[str, str]]) -> None:
        """Note that names have new values.

        Args:
            names: these names.
            surely: those that no longer hold what they held before.
            shares: pairs of names of which the first may now hold what the second holds.
        """
        before = {other: self._held.get(other, frozenset()) for _, other in shares}
        for name in names:
            kept = frozenset() if name in surely else self._held.get(name, frozenset())
            self._held[name] = kept | {name}
        for _ in range(2):  # One of them may be written and read here: `a = b = []`, `c = a`.
            for name, other in shares:
                self._hold(name, self._held.get(other, frozenset()) | before[other])

    def _hold(self, name: str, more: frozenset[str]) -> None:
        """A name, and all that hold an object of its, may now hold more objects."""
        held = self._held.get(name)
        if held is None or more <= held:
            return
        for each, theirs in self._held.items():
            if not held.isdisjoint(theirs):
                self._held[each] = theirs | more

    def shared_with(self, names: Iterable[str]) -> set[str]:
        """These names, and all that may hold an object of theirs."""
        found = {*names}
        held = frozenset().union(*(self._held.get(name, frozenset()) for name in found))
        return found | {name for name, theirs in self._held.items() if not held.isdisjoint(theirs)}

    def held(self, name: str) -> frozenset[str]:
        """The names whose objects a name may hold."""
        return self._held.get(name, frozenset())
