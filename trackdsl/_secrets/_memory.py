"""Secret values that this process has masked, and so takes out of whatever else it records."""

from __future__ import annotations

from collections.abc import Iterable

from trackdsl import errors
from trackdsl._secrets import _clean
from trackdsl._secrets._shapes import MASK

#: A shorter one is taken out of error messages alone: elsewhere it might be a word like any other.
LONG = 8
SHORT = 4
#: Bounded: a sweep over a million generated passwords must not grow the program.
_MAX_REMEMBERED = 10_000
#: So many are looked for one by one.
_FEW = 30


class _Remembered:
    """Secret values, to be taken out of texts. Looking for thousands takes hardly longer than for a few."""

    __slots__ = ("_all", "_starts")

    def __init__(self) -> None:
        self._all: set[str] = set()
        #: The first characters of all, as many as the shortest has, and what begins so.
        self._starts: dict[str, tuple[str, ...]] = {}

    def add(self, text: str) -> None:
        """Add one."""
        global _long_remembered
        if text in self._all:
            return
        if len(self._all) >= _MAX_REMEMBERED:
            errors.report(
                "secrets",
                f"trackdsl has masked {_MAX_REMEMBERED} different secrets; further ones are masked under their names, "
                "and no longer looked for in other texts.",
            )
            return
        self._all.add(text)
        self._starts[text[:SHORT]] = (*self._starts.get(text[:SHORT], ()), text)
        if len(text) >= LONG and len(_long_remembered) <= _FEW:
            _long_remembered = longest_first([*_long_remembered, text])
        _clean.forget()  # Last: what is found to be clean from here on does without this one.

    def clear(self) -> None:
        """Forget all."""
        global _long_remembered
        self._all.clear()
        self._starts.clear()
        _long_remembered = ()

    def within(self, text: str, shortest: int) -> set[str]:
        """Those of at least so many characters that are in a text."""
        starts = self._starts
        # Finding one is two hundred times quicker than making a key of every place, and more of them are not.
        if len(starts) < min(200, len(text) // 2):
            begun = {start for start in tuple(starts) if start in text}
        else:
            begun = {start for at in range(len(text)) if (start := text[at : at + SHORT]) in starts}
        return {secret for start in begun for secret in starts[start] if len(secret) >= shortest and secret in text}


remembered = _Remembered()
#: Those that `mask_text` looks for one by one, as long as they are few; then one more than that.
_long_remembered: tuple[str, ...] = ()


def longest_first(secrets: Iterable[str]) -> tuple[str, ...]:
    """Secrets in this order, as a secret may be part of another."""
    return tuple(sorted(secrets, key=len, reverse=True))


def without(text: str, secrets: Iterable[str]) -> str:
    """A text without these secrets."""
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, MASK)
    return text


def remember(value: object) -> str:
    """Remember a secret value, so that it is taken out of later texts, and return the mask.

    Not so a boolean or a short integer, which would be taken out of everything.
    """
    text = value.decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else value
    if isinstance(text, str):
        if len(text) >= SHORT and text != MASK:
            remembered.add(str(text))
    elif isinstance(value, int):
        if not isinstance(value, bool) and 10 ** (LONG - 1) <= abs(value) < 10**100:
            remembered.add(str(value))
    elif isinstance(value, dict):
        for part in value.values():
            remember(part)
    elif isinstance(value, (list, tuple)):
        for part in value[:100]:
            remember(part)
    return MASK


def without_remembered(text: str) -> str:
    """A text without those that are long enough to be no word like any other."""
    if _long_remembered and len(text) >= LONG:
        if len(_long_remembered) > _FEW:
            return without(text, longest_first(remembered.within(text, LONG)))
        for secret in _long_remembered:
            if secret in text:
                text = text.replace(secret, MASK)
    return text
