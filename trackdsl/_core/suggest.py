"""The hint "did you mean …?" in error messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Suggestion(NamedTuple):
    """The most similar known name, or None, and the end of the error message: the hint, or a full stop."""

    name: str | None
    text: str


def suggestion_for(name: str, known: Iterable[str], nearly: float = 0.6) -> Suggestion:
    """Find the known name that the user probably meant.

    Args:
        name: the unknown name.
        known: the names that exist.
        nearly: the least similarity, from 0 to 1.

    >>> suggestion_for("nestd", ["nested", "params"]).text
    '; did you mean `nested`?'
    """
    import difflib

    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=nearly)
    return Suggestion(nearest[0], f"; did you mean `{nearest[0]}`?") if nearest else Suggestion(None, ".")
