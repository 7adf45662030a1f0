"""Other ways to write what a store does not take as it is.

MySQL and MariaDB compare keys without case, accents and trailing spaces, so that `lr` and `LR` are one; PostgreSQL
takes no NUL. What is written otherwise is told on the run, keys can be read back with `_limits.unescape_key`, and whole
texts are in files.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from trackdsl.delivery._sink import Batch
from trackdsl.store_format import limits as _limits

#: Begins the tag that tells what a key was meant to be.
_RENAMED = "trackdsl.renamed."


class Keys:
    """The keys of a run at a store that may take several for one.

    Args:
        held: those that it has, by kind: `params`, `tags` and `metrics`.
    """

    def __init__(self, held: dict[str, Iterable[str]] | dict[str, list[str]]) -> None:
        self._taken = {kind: {folded(key): key for key in held.get(kind, ())} for kind in ("params", "tags", "metrics")}

    def tell_apart(self, batch: Batch) -> Batch:
        """The batch with other names for keys that the store would take for earlier ones; tags tell of those."""
        told: dict[str, str] = {}
        params = {self._name("params", key, told): text for key, text in batch.params.items()}
        tags = {self._name("tags", key, told): text for key, text in batch.tags.items()}
        metrics = [(self._name("metrics", key, told), value, time, step) for key, value, time, step in batch.metrics]
        return Batch(params, tags | told, metrics)

    def _name(self, kind: str, key: str, told: dict[str, str]) -> str:
        if self._taken[kind].setdefault(folded(key), key) == key:
            return key
        name = _limits.spell_out(key)
        told[_limits.cut_key(_RENAMED + name)] = _limits.unescape_key(key)
        return name


def folded(key: str) -> str:
    """What keys have in common that such a store takes for one.

    >>> folded("Ré ") == folded("re")
    True
    """
    if key.isascii():
        return key.lower().rstrip(" ")
    parts = unicodedata.normalize("NFKD", key)
    return "".join(part for part in parts if not unicodedata.combining(part)).casefold().rstrip(" ")


def plainer(text: str) -> list[str]:
    r"""The text without NUL, and in ASCII, as far as it is not so already.

    >>> plainer("naïve")
    ['na\\xefve']
    """
    without = text.replace("\0", "\\x00")
    found = [without, without.encode("ascii", "backslashreplace").decode()]
    return list(dict.fromkeys(plain for plain in found if plain != text))


def is_told_by(held: str, text: str) -> bool:
    """Whether what the store has is the text, as it is or written otherwise."""
    return held == text or held in plainer(text)


def plain_tags(tags: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Tags that every store takes, and the others."""
    plain = {key: text for key, text in tags.items() if not plainer(key) + plainer(text)}
    return plain, {key: text for key, text in tags.items() if key not in plain}
