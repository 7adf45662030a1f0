"""Names of secrets: `password`, `api_key`, the same in other languages, and names that the user has chosen."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from fnmatch import translate
from functools import lru_cache
from numbers import Integral, Number

from trackdsl._core.late_pattern import late_pattern
from trackdsl._core.redaction import _clean
from trackdsl._core.redaction._letters import fold, unescaped
from trackdsl._core.redaction._name_patterns import (
    DISTINGUISHING_END,
    ESCAPES,
    HARMLESS_BEFORE_TOKEN,
    NAME_OF_NUMBER,
    PROPERTY,
    ROOTS,
    TOKEN_NAME,
    WORD_BOUNDARY,
    pattern_of,
)

#: A number without quotes in a text; of more digits it may be a code.
_NUMBER_IN_TEXT = late_pattern(r"[+\-]?(?:\d{1,5}|\d{0,20}\.\d{1,20}|\d{1,20}\.?\d{0,20}e[+\-]?\d{1,3})", re.IGNORECASE)
#: If a name is longer, only its end is checked.
_MAX_NAME = 500

#: The names of boolean types, also of NumPy.
_BOOLEANS = frozenset(["bool", "bool_"])

#: Increases when `choose_names` changes the names, so that callers can discard cached answers.
version = 0
_chosen: tuple[re.Pattern[str] | None, re.Pattern[str] | None] = (None, None)


def choose_names(secret: Iterable[str] = (), public: Iterable[str] = ()) -> None:
    """Choose more names that are secret, and names that are public although they look secret.

    Args:
        secret: names; `*` matches anything, and case does not matter.
        public: the same; they take precedence.
    """
    global _chosen, version
    chosen = (_any_of(secret), _any_of(public))
    if chosen != _chosen:
        _chosen = chosen
        version += 1
        is_secret_name.cache_clear()
        _clean.forget()


@contextlib.contextmanager
def choosing(secret: Iterable[str], public: Iterable[str]) -> Iterator[None]:
    """Within this context, the names that another program has chosen count, see `choose_names`."""
    global _chosen, version
    before = _chosen
    choose_names(secret, public)
    try:
        yield
    finally:
        if _chosen != before:
            _chosen = before
            version += 1
            is_secret_name.cache_clear()
            _clean.forget()


def _any_of(names: Iterable[str]) -> re.Pattern[str] | None:
    patterns = [translate(name.strip()) for name in names if name.strip()]
    return re.compile("|".join(patterns), re.IGNORECASE) if patterns else None


@lru_cache(maxsize=8192)
def is_secret_name(name: str) -> bool:
    """Whether a value with this name is a secret.

    >>> is_secret_name("db_password"), is_secret_name("X-Api-Key"), is_secret_name("max_tokens")
    (True, True, False)
    """
    secret, public = _chosen
    if public is not None and public.match(name):
        return False
    if secret is not None and secret.match(name) is not None:
        return True
    words = _words_of(name)
    if words is None or PROPERTY().search(words):
        return False
    small = fold(name[-_MAX_NAME:]).lower()
    return any(map(_is_well_known, {words, small})) or any(map(_is_token, {words, small}))


def is_name_of_token(name: str) -> bool:
    """Whether a name is just `token`, `cookie` or similar, which may also be an ordinary word in a text.

    >>> is_name_of_token("token"), is_name_of_token("access_token")
    (True, False)
    """
    words = _words_of(name)
    return words is not None and not _is_well_known(words) and _is_token(words)


def may_name_a_secret(text: str) -> bool:
    """A quick check whether a text may contain the name of a secret. It may be wrong only if it returns True."""
    if _chosen[0] is not None:
        return True
    small = text.lower() if text.isascii() else fold(text).lower().replace(" ", "_")
    return ROOTS().search(small) is not None or ESCAPES.search(small) is not None


def _words_of(name: str) -> str | None:
    """A name in lower case with `_` between its words; None if no secret has such a name."""
    name = fold(unescaped(name[-_MAX_NAME:]))
    small = name.lower()
    words = small if small == name and name.isidentifier() else WORD_BOUNDARY.sub("_", name).lower().strip("_")
    words = DISTINGUISHING_END().sub("", words)
    return words if ROOTS().search(words) or ROOTS().search(small) else None


def _is_well_known(words: str) -> bool:
    return any(pattern_of(root).search(words) for root in set(ROOTS().findall(words)))


def _is_token(words: str) -> bool:
    found = TOKEN_NAME().search(words) if "token" in words or "cookie" in words else None
    return found is not None and (found[1] is None or HARMLESS_BEFORE_TOKEN().fullmatch(found[1]) is None)


def is_secret(name: str, value: object) -> bool:
    """Whether this value is a secret if it has this name.

    None, booleans and numbers are not secrets, except integers with a name that clearly means a password, a passcode or
    a key. Names from `choose_names` hide any value.

    >>> is_secret("token", "abc"), is_secret("token", 3), is_secret("pass", 0.5), is_secret("pin_password", 3)
    (True, False, False, True)
    """
    if value is None or not is_secret_name(name):
        return False
    kind = type(value)
    if kind is str or not (issubclass(kind, Number) or kind.__name__ in _BOOLEANS):
        return True
    if _chosen[0] is not None and _chosen[0].match(name) is not None:
        return True
    return kind.__name__ not in _BOOLEANS and issubclass(kind, Integral) and _may_be_number(name)


def is_number(name: str, content: str) -> bool:
    """Whether a value in a text, without quotes, is a number that is not a secret, see `is_secret`.

    >>> is_number("pass", "0.5"), is_number("password", "1234")
    (True, False)
    """
    return _NUMBER_IN_TEXT().fullmatch(content) is not None and not is_secret(name, 1 if content.isdigit() else 0.5)


def _may_be_number(name: str) -> bool:
    words = _words_of(name)
    return words is not None and NAME_OF_NUMBER().search(words) is not None


def looks_random(content: str, *, quoted: bool = True) -> bool:
    """Whether a text is more likely a secret than a word."""
    if len(content) < 8 or any(map(str.isspace, content)):
        return False
    mixed = content != content.lower() and content[1:] != content[1:].lower() and content != content.upper()
    return any(map(str.isdigit, content)) or (quoted and (mixed or len(content) >= 24))
