"""The global random generators of a program, which recording leaves as they were."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def unchanged_random_state() -> Iterator[None]:
    """Restore the global random generators afterwards: a recorded program must draw the same numbers."""
    before = [(kept, kept()) for kept in _generators()]
    try:
        yield
    finally:
        # An unchanged generator is left alone: another thread may be drawing.
        for kept, state in before:
            if not _same(state, kept()):
                kept.put_back(state)


class _Generator:
    """A global random generator: a call returns its state."""

    def __init__(self, get: Any, put_back: Any) -> None:
        self._get = get
        self.put_back = put_back

    def __call__(self) -> Any:
        return self._get()


def _generators() -> Iterator[_Generator]:
    yield _Generator(random.getstate, random.setstate)
    numpy, torch = sys.modules.get("numpy.random"), sys.modules.get("torch")
    if numpy is not None:
        yield _Generator(numpy.get_state, numpy.set_state)
    if torch is not None and hasattr(torch, "get_rng_state"):
        yield _Generator(torch.get_rng_state, torch.set_rng_state)
        if torch.cuda.is_initialized():
            yield _Generator(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool((one == other).all()) if hasattr(one, "shape") else bool(one == other)
