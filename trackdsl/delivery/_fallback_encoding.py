"""Fallback encodings for keys and texts that a store does not accept as they are.

MySQL and MariaDB compare keys without case, accents and trailing spaces, so that `lr` and `LR` are equal. PostgreSQL
accepts no NUL. A tag on the run says which keys were encoded; `limits.unescape_key` decodes them. Whole texts are kept
in files.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from trackdsl.delivery._sink import Batch
from trackdsl.store_format import limits as _limits

#: Begins the tag that holds the original key.
_RENAMED = "trackdsl.renamed."


class Keys:
    """The keys of a run at a store that may treat several keys as equal.

    Args:
        held: the run's keys, by kind: `params`, `tags` and `metrics`.
    """

    def __init__(self, held: dict[str, Iterable[str]] | dict[str, list[str]]) -> None:
        self._taken = {kind: {folded(key): key for key in held.get(kind, ())} for kind in ("params", "tags", "metrics")}

    def deduplicate_keys(self, batch: Batch) -> Batch:
        """Rename keys that the store would treat as equal to earlier ones; tags hold the original names."""
        renamed: dict[str, str] = {}
        params = {self._name("params", key, renamed): text for key, text in batch.params.items()}
        tags = {self._name("tags", key, renamed): text for key, text in batch.tags.items()}
        metrics = [(self._name("metrics", key, renamed), value, time, step) for key, value, time, step in batch.metrics]
        return Batch(params, tags | renamed, metrics)

    def _name(self, kind: str, key: str, renamed: dict[str, str]) -> str:
        if self._taken[kind].setdefault(folded(key), key) == key:
            return key
        name = _limits.spell_out(key)
        renamed[_limits.cut_key(_RENAMED + name)] = _limits.unescape_key(key)
        return name


def folded(key: str) -> str:
    """A form that is equal for all keys that such a store treats as equal.

    >>> folded("Ré ") == folded("re")
    True
    """
    if key.isascii():
        return key.lower().rstrip(" ")
    parts = unicodedata.normalize("NFKD", key)
    return "".join(part for part in parts if not unicodedata.combining(part)).casefold().rstrip(" ")


def ascii_fallbacks(text: str) -> list[str]:
    r"""Encodings of a text without NUL, and in ASCII; none if it needs neither.

    >>> ascii_fallbacks("naïve")
    ['na\\xefve']
    """
    without = text.replace("\0", "\\x00")
    found = [without, without.encode("ascii", "backslashreplace").decode()]
    return list(dict.fromkeys(plain for plain in found if plain != text))


def is_encoding_of(held: str, text: str) -> bool:
    """Whether the store's text is the given one, as it is or in a fallback encoding."""
    return held == text or held in ascii_fallbacks(text)


def plain_tags(tags: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The tags that every store accepts, and the others."""
    plain = {key: text for key, text in tags.items() if not ascii_fallbacks(key) + ascii_fallbacks(text)}
    return plain, {key: text for key, text in tags.items() if key not in plain}
