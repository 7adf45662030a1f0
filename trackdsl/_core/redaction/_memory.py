"""Secret values that this process has masked, and so takes out of the texts that it records.

They are looked for as whole words, and only if they are likely to be secrets (see `_likely`): the password `postgres`
is masked under its name and nowhere else. Names of runs, metrics and files are not searched at all.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from urllib.parse import quote

from trackdsl._core import runtime
from trackdsl._core.redaction import _clean
from trackdsl._core.redaction._likely import is_likely, is_unmistakable
from trackdsl._core.redaction._shapes import MASK
from trackdsl._core.runtime import Phase
from trackdsl.errors import report

#: A shorter one is taken out of error messages alone: elsewhere it might mean something else.
LONG = 8
SHORT = 4
#: Bounded: a sweep over a million generated passwords must not grow the program.
_MAX_REMEMBERED = 10_000
#: So many are looked for one by one.
_FEW = 30


class _Remembered:
    """Secret values, to be taken out of texts. Looking for thousands takes hardly longer than for a few."""

    __slots__ = ("_all", "_forms", "_starts")

    def __init__(self) -> None:
        self._all: set[str] = set()
        #: The first characters of all, as many as the shortest has, and what begins so; the same for their other forms.
        self._starts: dict[str, list[str]] = {}
        self._forms: dict[str, list[str]] = {}

    def add(self, text: str) -> None:
        """Add one."""
        if text in self._all:
            return
        if len(self._all) >= _MAX_REMEMBERED:
            report(
                "secrets",
                f"trackdsl has masked {_MAX_REMEMBERED} different secrets; further ones are masked under their names, "
                "and no longer looked for in other texts.",
            )
            return
        self._all.add(text)
        self._starts.setdefault(text[:SHORT], []).append(text)
        for form in forms_of(text):
            self._forms.setdefault(form[:SHORT], []).append(form)
        if len(text) >= LONG and len(_long_remembered) <= _FEW:
            _look_for_each([*_long_remembered, text])
        _clean.forget_texts()  # Last: what is found to be clean from here on does without this one.

    def clear(self) -> None:
        """Forget all."""
        self._all.clear()
        self._starts.clear()
        self._forms.clear()
        _look_for_each(())

    def within(self, text: str, shortest: int) -> set[str]:
        """Those of at least so many characters that are in a text."""
        return _within(self._starts, text, shortest)

    def forms_within(self, text: str) -> set[str]:
        """Those that are in a text in another form, see `forms_of`."""
        return _within(self._forms, text, SHORT)


def _within(starts: dict[str, list[str]], text: str, shortest: int) -> set[str]:
    # Finding one is two hundred times quicker than making a key of every place, and more of them are not.
    if len(starts) < min(200, len(text) // 2):
        begun = {start for start in tuple(starts) if start in text}
    else:
        begun = {start for at in range(len(text)) if (start := text[at : at + SHORT]) in starts}
    return {secret for start in begun for secret in starts[start] if len(secret) >= shortest and secret in text}


remembered = _Remembered()
#: Those that `mask_text` looks for one by one, as long as they are few; then one more than that.
_long_remembered: tuple[str, ...] = ()


def _look_for_each(secrets: Iterable[str]) -> None:
    global _long_remembered  # Every text that is recorded asks for it.
    _long_remembered = longest_first(secrets)


def forget() -> None:
    """Forget all secret values."""
    remembered.clear()


runtime.register("secret values", Phase.MEMORY, reset=forget)


def longest_first(secrets: Iterable[str]) -> tuple[str, ...]:
    """Secrets in this order, as a secret may be part of another."""
    return tuple(sorted(secrets, key=len, reverse=True))


def forms_of(secret: str) -> tuple[str, ...]:
    """How else a message may write a secret: as Python and JSON do inside of quotes, as part of a URL, in Base64.

    >>> forms_of("p/w'1d23")
    ('p%2Fw%271d23', 'cC93JzFkMjM=')
    """
    forms = (
        repr(secret)[1:-1],
        secret.replace("\\", r"\\").replace('"', r"\""),
        quote(secret, safe="", errors="replace"),
        b64encode(secret.encode("utf-8", "replace")).decode(),
    )
    return tuple(form for form in dict.fromkeys(forms) if form != secret)


#: What stands before a word: no letter or digit, unless it is written as a number or belongs to an escape.
_BEFORE_WORD = re.compile(r"(?:\A|[^\w]|\\[abfnrtv0]|(?:%|\\x)[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4})\Z")
_LONGEST_BEFORE = 6


def without(text: str, secrets: Iterable[str]) -> str:
    """A text without these secrets, where they are words of their own.

    >>> without("log in as hunter2, not hunter22", ["hunter2"])
    'log in as ***, not hunter22'
    """
    for secret in secrets:
        if secret not in text:
            continue
        if is_unmistakable(secret):
            text = text.replace(secret, MASK)
            continue
        parts, at, found = [], 0, text.find(secret)
        while found >= 0:
            end = found + len(secret)
            if _is_word_of_its_own(text, found, end):
                parts += [text[at:found], MASK]
                at = end
            found = text.find(secret, max(at, found + 1))
        text = "".join([*parts, text[at:]]) if parts else text
    return text


def _is_word_of_its_own(text: str, start: int, end: int) -> bool:
    if end < len(text) and _is_of_word(text[end]) and _is_of_word(text[end - 1]):
        return False
    before = text[max(0, start - _LONGEST_BEFORE) : start]
    return not _is_of_word(text[start]) or _BEFORE_WORD.search(before) is not None


def _is_of_word(sign: str) -> bool:
    return sign.isalnum() or sign == "_"


def remember(value: object) -> str:
    """Remember a secret value, so that it is taken out of later texts, and return the mask.

    What is no likely secret is not remembered: see `is_likely`.
    """
    text = value.decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else value
    if isinstance(text, str):
        text = str.__str__(text)
        if text != MASK and is_likely(text):
            remembered.add(text)
    elif isinstance(value, dict):
        for part in value.values():
            remember(part)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in list(value)[:100]:
            remember(part)
    return MASK


def without_remembered(text: str) -> str:
    """A text without those that are long enough to be meant."""
    if _long_remembered and len(text) >= LONG:
        if len(_long_remembered) > _FEW:
            return without(text, longest_first(remembered.within(text, LONG)))
        for secret in _long_remembered:
            if secret in text:
                return without(text, _long_remembered)
    return text
