"""The words behind "did you mean"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Suggestion(NamedTuple):
    """The nearest known name, or None, and the sentence that offers it (a full stop when there is none)."""

    name: str | None
    text: str


def suggestion_for(name: str, known: Iterable[str], nearly: float = 0.6) -> Suggestion:
    """Find the known name that was probably meant.

    Args:
        name: as it was given.
        known: the names that there are.
        nearly: how much alike the two have to be, from 0 to 1.

    >>> suggestion_for("nestd", ["nested", "params"]).text
    '; did you mean `nested`?'
    """
    import difflib

    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=nearly)
    return Suggestion(nearest[0], f"; did you mean `{nearest[0]}`?") if nearest else Suggestion(None, ".")
