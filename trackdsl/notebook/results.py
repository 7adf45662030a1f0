"""The values of earlier cells under the names that IPython gives them: `_`, `_3`, `Out[3]`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_NAME = re.compile(r"_{1,3}|_[0-9]+|Out|_oh")
_ALL = ("Out", "_oh")
_ITEM = re.compile(r"\b(?:Out|_oh)\b(?:\[(\d+)\])?")


def results_in(code: str, read: Collection[str], counts: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The execution counts of the cells whose values code uses, by the name that it uses for them.

    Args:
        code: the code.
        read: the names that it reads.
        counts: the execution counts of the cells before that have a value, in order.

    >>> results_in("_ + Out[2]", ["_", "Out"], [1, 2, 5])
    {'_': (5,), 'Out': (2,)}
    """
    found = {}
    for name in read:
        if not _NAME.fullmatch(name):
            continue
        if name in _ALL:
            items = [item[1] for item in _ITEM.finditer(code)]
            wanted = [int(item) for item in items if item] if all(items) else list(counts)
        elif name.strip("_"):
            wanted = [int(name[1:])]
        else:
            wanted = [counts[-len(name)]] if len(counts) >= len(name) else []
        if known := tuple(one for one in wanted if one in counts):
            found[name] = known
    return found


def assigned(results: dict[str, tuple[int, ...]]) -> str:
    """The statements of a program that give these values their names; all values are in `Out`."""
    lines = [f"{name} = Out[{counts[0]}]" for name, counts in results.items() if name not in _ALL]
    return "\n".join([*lines, *(["_oh = Out"] if "_oh" in results else [])])
