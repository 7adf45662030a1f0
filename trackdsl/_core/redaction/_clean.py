"""A cache of names and texts without secrets, so that the same ones are not searched again."""

from __future__ import annotations

_MOST = 10_000
#: Longer texts are not cached, because they are rarely repeated.
_LONGEST = 250

#: Names of metrics, parameters and tags, as they are recorded.
names: set[str] = set()
texts: set[str] = set()
#: How often the cache was cleared.
forgotten = 0


def forget() -> None:
    """Clear the cache, because other names or values have become secrets."""
    names.clear()
    forget_texts()


def forget_texts() -> None:
    """Forget the texts, because a value has become a secret. Names are not searched for values."""
    global forgotten
    forgotten += 1
    texts.clear()


def keep(text: str, among: set[str], seen: int) -> None:
    """Remember that a text contains no secret.

    Args:
        text: the text; a long one is not remembered.
        among: `names` or `texts`.
        seen: the value of `forgotten` from before the text was searched.
    """
    if len(text) > _LONGEST:
        return
    if len(among) >= _MOST:
        among.clear()
    among.add(text[:1] + text[1:])  # A copy: the program's own object is not kept alive.
    if seen != forgotten:  # Meanwhile another thread may have registered a secret that the text contains.
        among.discard(text)
