"""Faults of a store in memory, drawn at random."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import strategies as st

from trackdsl.delivery.store._errors import Unavailable

from .memory_store import Crash

FAULT = st.tuples(st.sampled_from([Unavailable, Unavailable, Crash]), st.booleans())


def faults(most: int) -> st.SearchStrategy[dict[int, Any]]:
    """Faults by the number of the call to the store: each is a few calls after the one before, where calls are."""

    def numbered(found: list[tuple[int, Any]]) -> dict[int, Any]:
        calls = itertools.accumulate(gap for gap, _ in found)
        return {call: fault for call, (_, fault) in zip(calls, found, strict=True)}

    return st.lists(st.tuples(st.integers(1, 9), FAULT), min_size=2, max_size=most).map(numbered)
