"""Find the end of a literal value in a text: a quoted text, a list, a mapping or a word."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_OPENING = re.compile(r"[A-Za-z]{0,2}(\\*)('''|\"\"\"|['\"])")
_WORD = re.compile(r"[^\s,;&)}\]'\"]+")
_SCHEME = re.compile(
    r"(?:[Bb]asic|[Bb]earer|[Dd]igest|[Tt]oken|[Aa]pi[Kk]ey|[Nn]egotiate|AWS4-HMAC-SHA256) (?=[^\s'\"])"
)
_OPEN, _CLOSE = "([{", ")]}"
_BRACKETS = re.compile(r"[\[\](){}'\"]")
#: A longer list or mapping, or one with more parts, is only masked up to this limit.
_MAX_GROUP = 5000
_MAX_SIGNS = 200


class Value(NamedTuple):
    """A value in a text.

    Attributes:
        content: the value without its quotes.
        end: the end of the value in the text, with its quotes.
        quoted: whether it has quotes.
        group: whether it is a list or a mapping.
    """

    content: str
    end: int
    quoted: bool = False
    group: bool = False


def value_at(text: str, at: int) -> Value | None:
    """The value at a position of a text; None if there is none."""
    opening = _OPENING.match(text, at)
    if opening is not None:
        return _quoted(text, opening)
    if text[at : at + 1] in _OPEN and at < len(text):
        end = _end_of_group(text, at)
        return Value(text[at:end], end, group=True)
    scheme = _SCHEME.match(text, at)
    word = _WORD.match(text, at if scheme is None else scheme.end())
    return None if word is None else Value(text[at : word.end()], word.end())


def end_of_quoted(text: str, start: int, opening: str) -> int:
    """The position of the closing quote, or of the backslashes before it; else the end of the line."""
    closing = _closing(opening[:-1], opening[-1]).search(text, start)
    return len(text) if closing is None else closing.start()


def _quoted(text: str, opening: re.Match[str]) -> Value:
    escape, quote = opening.groups()
    start = opening.end()
    # A quote inside a text that is quoted itself has this many more backslashes.
    closing = _closing(escape, quote).search(text, start)
    if closing is None:
        return Value(text[start:], len(text), quoted=True)
    return Value(text[start : closing.start()], closing.end(), quoted=True)


@lru_cache(maxsize=64)
def _closing(escape: str, quote: str) -> re.Pattern[str]:
    if escape:
        return re.compile(r"(?<!\\)" + re.escape(escape + quote) + "|(?=\n)")
    # An even number of backslashes escape each other.
    return re.compile(r"(?<!\\)(?:\\\\){0,20}" + quote + ("" if len(quote) == 3 else "|(?=\n)"))


def _end_of_group(text: str, at: int) -> int:
    depth, last = 0, min(len(text), at + _MAX_GROUP)
    for _ in range(_MAX_SIGNS):
        found = _BRACKETS.search(text, at, last)
        if found is None:
            break
        sign = found[0]
        if sign in "'\"":
            at = _quoted(text, _OPENING.match(text, found.start()) or found).end
            continue
        depth += 1 if sign in _OPEN else -1
        at = found.end()
        if depth <= 0:
            return at
    return last
