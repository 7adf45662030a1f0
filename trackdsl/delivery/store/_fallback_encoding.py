"""Fallback encodings for keys and texts that a store does not accept as they are.

MySQL and MariaDB compare keys without case, accents and trailing spaces, so that `lr` and `LR` are equal. PostgreSQL
accepts no NUL. A tag on the run says which keys were encoded; `limits.unescape_key` decodes them. Whole texts are kept
in files.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable

from trackdsl.delivery.store._sink import Batch
from trackdsl.store_format import limits as _limits

#: Begins the tag that holds the original key.
_RENAMED = "trackdsl.renamed."


class Keys:
    """The keys of a run at a store that may treat several keys as equal.

    Args:
        held: the run's keys, by kind: `params`, `tags` and `metrics`.
    """

    def __init__(self, held: dict[str, Iterable[str]] | dict[str, list[str]]) -> None:
        self._taken = {
            kind: {form: key for key in held.get(kind, ()) for form in folded(key)}
            for kind in ("params", "tags", "metrics")
        }

    def deduplicate_keys(self, batch: Batch) -> Batch:
        """Rename keys that the store would treat as equal to earlier ones; tags hold the original names."""
        renamed: dict[str, str] = {}
        params = {self._name("params", key, renamed): text for key, text in batch.params.items()}
        tags = {self._name("tags", key, renamed): text for key, text in batch.tags.items()}
        metrics = [(self._name("metrics", key, renamed), value, time, step) for key, value, time, step in batch.metrics]
        return Batch(params, tags | renamed, metrics)

    def _name(self, kind: str, key: str, renamed: dict[str, str]) -> str:
        taken, forms = self._taken[kind], folded(key)
        if all(taken.get(form, key) == key for form in forms):
            taken.update(dict.fromkeys(forms, key))
            return key
        name = _limits.spell_out(key)
        renamed[_limits.cut_key(_RENAMED + name)] = _limits.unescape_key(key)
        return name


@functools.lru_cache(20_000)  # Each point has a key.
def folded(key: str) -> tuple[str, ...]:
    """Forms of a key: of two keys that such a store treats as equal, one form is equal.

    Collations do not agree: to some, `ß` is `ss`, to others `s`; and to some, all characters beyond the first 65,536
    are one. (See "Unicode Character Sets" in MySQL's manual.)

    >>> folded("Ré ") == folded("re"), folded("ß")
    (True, ('ss', 'S'))
    """
    if key.isascii():
        key = key.rstrip(" ")
        return key.lower(), key.upper()
    parts = unicodedata.normalize("NFKD", key)
    plain = "".join(map(_base, "".join(part for part in parts if not unicodedata.combining(part)).casefold()))
    single = "".join("\ufffd" if part > "\uffff" else unicodedata.normalize("NFKD", part)[0].upper()[0] for part in key)
    return plain.rstrip(" "), single.rstrip(" ")


def _base(character: str) -> str:
    """The letter without a stroke or hook that is part of it, and the digit of any script as an ASCII one."""
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return str(digit)
    name, with_, _ = unicodedata.name(character, "").partition(" WITH ")
    try:
        return unicodedata.lookup(name) if with_ else character
    except KeyError:
        return character


def cased_name(experiments: Iterable[str]) -> str:
    """An experiment's name that shows whether a store ignores case: its letters are ASCII, and it has some.

    >>> cased_name(["2024", "churn"]), cased_name(["2024"])
    ('churn', 'Default')
    """
    return next((name for name in experiments if name.isascii() and name != name.swapcase()), "Default")


def ascii_fallbacks(text: str) -> list[str]:
    r"""Encodings of a text without NUL, and in ASCII; none if it needs neither.

    >>> ascii_fallbacks("naïve")
    ['na\\xefve']
    """
    if text.isascii() and "\0" not in text:
        return []
    without = text.replace("\0", "\\x00")
    encodings = [without, without.encode("ascii", "backslashreplace").decode()]
    return list(dict.fromkeys(plain for plain in encodings if plain != text))


def fitting_fallbacks(text: str, limit: int) -> list[str]:
    """The encodings of a text, each cut to a limit where it is longer, with a mark that is encoded too."""
    return [plain if len(plain) <= limit else _cut(plain, limit) for plain in ascii_fallbacks(text)]


def _cut(plain: str, limit: int) -> str:
    cut = _limits.fit_value(plain, limit - 2 * len("\\u2026"))
    return cut.encode("ascii", "backslashreplace").decode() if plain.isascii() else cut


def is_encoding_of(held: str, text: str, limit: int = _limits.MAX_PARAM) -> bool:
    """Whether the store's text is the given one, as it is or in a fallback encoding."""
    return held == text or held in fitting_fallbacks(text, limit)


def plain_tags(tags: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The tags that every store accepts, and the others."""
    plain = {key: text for key, text in tags.items() if not ascii_fallbacks(key) + ascii_fallbacks(text)}
    return plain, {key: text for key, text in tags.items() if key not in plain}
