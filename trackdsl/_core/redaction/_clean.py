"""Names and texts that were found to hold no secret, so that the same ones are not looked through again and again."""

from __future__ import annotations

_MOST = 10_000
#: Longer texts seldom come again.
_LONGEST = 250

#: Names of metrics, parameters and tags, as they are recorded.
names: set[str] = set()
texts: set[str] = set()
#: How often all was forgotten.
forgotten = 0


def forget() -> None:
    """Forget all, because what counts as a secret has just changed."""
    names.clear()
    forget_texts()


def forget_texts() -> None:
    """Forget the texts, because a value has become a secret; names are not searched for values."""
    global forgotten
    forgotten += 1
    texts.clear()


def keep(text: str, among: set[str], seen: int) -> None:
    """Note that a text holds no secret.

    Args:
        text: the text; a long one is not noted.
        among: `names` or `texts`.
        seen: `forgotten`, from before the text was looked through.
    """
    if len(text) > _LONGEST:
        return
    if len(among) >= _MOST:
        among.clear()
    among.add(text[:1] + text[1:])  # A copy: the program's own object is not kept alive.
    if seen != forgotten:  # Another thread has just made a part of it a secret.
        among.discard(text)
