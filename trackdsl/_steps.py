"""`steps(...)`: a progress bar, and the default step of metrics inside the loop."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from trackdsl import _context
from trackdsl._context import Scope

T = TypeVar("T")


def steps(iterable: Iterable[T], name: str = "step", total: int | None = None) -> Iterator[T]:
    """Loop with a progress bar; metrics logged inside get the index of the round, from 0, as their step.

    Args:
        iterable: what to loop over.
        name: what the bar calls a round.
        total: how many rounds there are, where the iterable does not tell.

    Yields:
        the items, unchanged.

    Example:
        >>> for epoch in steps(range(3), "epoch"):  # doctest: +SKIP
        ...     log_metric("loss", 1 / (epoch + 1))
    """
    bar = _bar(iterable, name, total)
    outer = _context.current()
    scope = None if outer is None else Scope(outer.run, outer, None, 0)
    if scope is not None:
        _context.enter(scope)
    try:
        for index, item in enumerate(bar):
            if scope is not None:
                scope.step = index
            yield item
    finally:
        bar.close()
        if scope is not None:
            _context.leave(scope)


def _bar(iterable: Iterable[T], name: str, total: int | None) -> Any:
    if "ipykernel" in sys.modules:
        from tqdm.auto import tqdm as notebook_bar

        return notebook_bar(iterable, desc=name, total=total)
    from tqdm import tqdm

    # No bar where nobody looks: `disable=None` asks whether the output is a terminal.
    return tqdm(iterable, desc=name, total=total, disable=None)
