"""Secrets in pairs in a text: `('password', '...')`, `{"name": "password", "value": "..."}`."""

from __future__ import annotations

import re
from collections.abc import Callable

from trackdsl._core.redaction._items import NAMES, VALUES, is_pair
from trackdsl._core.redaction._names import is_secret
from trackdsl._core.redaction._shapes import CODE, MASK, masked_like
from trackdsl._core.redaction._values import Value, value_at

#: A nested list or mapping is searched separately.
_OPEN = ("(", "[", "{")
_PAIR = re.compile(r"([\[(])\s{0,40}[bru]{0,2}(\\*['\"])([^\W\d][^'\"\\\n,]{1,80})\2\s{0,8},\s{0,40}")
#: Functions that are called with a name and its value.
_LOOKUPS = (".get", "getenv", "setdefault", "setenv", "putenv")
_QUOTE = re.compile(r"\\*['\"]")
_END_OF_PAIR = re.compile(r"\s{0,40},?\s{0,40}[)\]]")
_VALUE = re.compile(
    rf"(?<![\w\-])(?:{'|'.join(sorted(VALUES))})(?:\\*['\"])?[ \t]{{0,8}}[:=][ \t]{{0,8}}(?=[^\s,;&)}}\]])"
)
_NAME = (
    rf"(?<![\w\-])(?:{'|'.join(sorted(NAMES))})(?:\\*['\"])?[ \t]{{0,8}}[:=][ \t]{{0,8}}"
    r"(?:\\*['\"])?([^\W\d][\w\-.]{0,80})"
)
_NAME_BEFORE = re.compile(_NAME + r"(?:\\*['\"])?\s{0,40},?\s{0,40}(?:\\n\s{0,20})?(?:\\*['\"])?\Z")
_NAME_AFTER = re.compile(r"\s{0,40},?\s{0,40}(?:\\*['\"])?" + _NAME)


def without_pairs(text: str) -> str:
    """Mask the values in a text whose names are in the same pair or mapping."""
    if "," in text:
        text = _without(text, _PAIR, _is_secret_pair)
    return _without(text, _VALUE, _has_secret_name)


def _without(text: str, names: re.Pattern[str], hides: Callable[[re.Match[str], Value], bool]) -> str:
    """Mask the values after the matches of a pattern, where `hides` returns True for the match and the value."""
    parts, at = [], 0
    for named in names.finditer(text):
        if named.start() >= at and text[named.end() : named.end() + 1] not in _OPEN:
            value = value_at(text, named.end())
            if value is not None and MASK not in value.content and hides(named, value):
                parts += [text[at : named.end()], _mask_at(named)]
                at = value.end
    return "".join([*parts, text[at:]]) if parts else text


def _mask_at(named: re.Match[str]) -> str:
    quotes = _QUOTE.findall(named[0])
    return masked_like(quotes[-1] if quotes else None)


def _is_secret_pair(named: re.Match[str], value: Value) -> bool:
    text, name = named.string, named[3]
    around = text[max(0, named.start() - 50) : named.start()].rstrip()
    before, outside = around[-1:], around.rstrip("[( ")[-1:]
    is_number = value.content.isdigit() and not before.isidentifier()
    if not (value.quoted or is_number) or _END_OF_PAIR.match(text, value.end) is None:
        return False
    return is_pair(
        name,
        value.content if value.quoted else 0,
        among_pairs=before != "" and before in "[({," and not (outside.isidentifier() or outside in (")", "]")),
        named=named[1] == "(" and (not before.isidentifier() or around.endswith(_LOOKUPS)),
    )


def _has_secret_name(named: re.Match[str], value: Value) -> bool:
    text = named.string
    if not value.content or (not value.quoted and (value.group or CODE & set(value.content))):
        return False
    beside = (
        _NAME_BEFORE.search(text, max(0, named.start() - 200), named.start()),
        _NAME_AFTER.match(text, value.end),
    )
    content = 0 if value.content.isdigit() and not value.quoted else value.content
    return any(found is not None and is_secret(found[1], content) for found in beside)
