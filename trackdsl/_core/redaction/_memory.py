"""Remembered secrets: values that this process has masked, and masks again in all texts that it records.

They are masked as whole words, and only if they are likely to be secrets (see `_likely`): the password `postgres` is
only masked as the value of its name. Names of runs, metrics and files are not searched.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from urllib.parse import quote

from trackdsl._core import runtime
from trackdsl._core.late_pattern import late_pattern
from trackdsl._core.redaction import _clean
from trackdsl._core.redaction._likely import is_likely, is_unmistakable
from trackdsl._core.redaction._shapes import MASK
from trackdsl._core.runtime import Phase
from trackdsl.errors import report

#: A shorter secret is only masked in error messages. In other texts it might have another meaning.
LONG = 8
SHORT = 4
#: The number of secrets is limited: a program that generates passwords must not fill the memory.
_MAX_REMEMBERED = 10_000
#: Up to this many secrets are searched for one by one.
_FEW = 30


class _Remembered:
    """A set of secrets to search for in texts. Searching for thousands takes little longer than for a few."""

    __slots__ = ("_all", "_forms", "_starts")

    def __init__(self) -> None:
        self._all: set[str] = set()
        #: The secrets by their first characters, as many as the shortest secret has; the same for their escaped forms.
        self._starts: dict[str, list[str]] = {}
        self._forms: dict[str, list[str]] = {}

    def add(self, text: str) -> None:
        """Add a secret."""
        if text in self._all:
            return
        if len(self._all) >= _MAX_REMEMBERED:
            report(
                "secrets",
                f"trackdsl has masked {_MAX_REMEMBERED} different secrets; further ones are masked only where they "
                "have a secret's name, and no longer where other texts contain them.",
            )
            return
        self._all.add(text)
        self._starts.setdefault(text[:SHORT], []).append(text)
        for form in forms_of(text):
            self._forms.setdefault(form[:SHORT], []).append(form)
        if len(text) >= LONG and len(_long_remembered) <= _FEW:
            _look_for_each([*_long_remembered, text])
        # Last, because a text that is searched before this line may be cached as clean.
        _clean.forget_texts()

    def clear(self) -> None:
        """Remove all secrets."""
        self._all.clear()
        self._starts.clear()
        self._forms.clear()
        _look_for_each(())

    def secrets_in(self, text: str, shortest: int) -> set[str]:
        """The secrets in a text that have at least this many characters."""
        return _within(self._starts, text, shortest)

    def forms_in(self, text: str) -> set[str]:
        """The secrets that are in a text in an escaped form, see `forms_of`."""
        return _within(self._forms, text, SHORT)


def _within(starts: dict[str, list[str]], text: str, shortest: int) -> set[str]:
    # Searching for one prefix is two hundred times faster than building a key at each position.
    if len(starts) < min(200, len(text) // 2):
        begun = {start for start in tuple(starts) if start in text}
    else:
        begun = {start for at in range(len(text)) if (start := text[at : at + SHORT]) in starts}
    return {secret for start in begun for secret in starts[start] if len(secret) >= shortest and secret in text}


remembered = _Remembered()
#: The secrets that `mask_text` searches for one by one while there are few; one more if there are many.
_long_remembered: tuple[str, ...] = ()


def _look_for_each(secrets: Iterable[str]) -> None:
    global _long_remembered  # Read for every recorded text, so it must be quick.
    _long_remembered = longest_first(secrets)


def forget() -> None:
    """Forget all secret values."""
    remembered.clear()


runtime.register("secret values", Phase.MEMORY, reset=forget)


def longest_first(secrets: Iterable[str]) -> tuple[str, ...]:
    """The secrets from the longest to the shortest, because one may be part of another."""
    return tuple(sorted(secrets, key=len, reverse=True))


def forms_of(secret: str) -> tuple[str, ...]:
    """Other forms of a secret in messages: escaped as in Python and JSON, quoted as in a URL, and Base64.

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


#: What comes before a word: no letter or digit, unless it is part of an escape.
_BEFORE_WORD = late_pattern(r"(?:\A|[^\w]|\\[abfnrtv0]|(?:%|\\x)[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4})\Z")
_LONGEST_BEFORE = 6


def without(text: str, secrets: Iterable[str]) -> str:
    """Mask these secrets in a text where they are separate words.

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
            if _is_separate_word(text, found, end):
                parts += [text[at:found], MASK]
                at = end
            found = text.find(secret, max(at, found + 1))
        text = "".join([*parts, text[at:]]) if parts else text
    return text


def _is_separate_word(text: str, start: int, end: int) -> bool:
    if end < len(text) and _belongs_to_word(text[end]) and _belongs_to_word(text[end - 1]):
        return False
    before = text[max(0, start - _LONGEST_BEFORE) : start]
    return not _belongs_to_word(text[start]) or _BEFORE_WORD().search(before) is not None


def _belongs_to_word(sign: str) -> bool:
    return sign.isalnum() or sign == "_"


def remember(value: object) -> str:
    """Remember a secret, so that it is masked in later texts, and return the mask.

    A value that is not likely to be a secret is not remembered, see `is_likely`.
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
    """Mask the remembered secrets in a text that are long enough to be unambiguous."""
    if _long_remembered and len(text) >= LONG:
        if len(_long_remembered) > _FEW:
            return without(text, longest_first(remembered.secrets_in(text, LONG)))
        for secret in _long_remembered:
            if secret in text:
                return without(text, _long_remembered)
    return text
