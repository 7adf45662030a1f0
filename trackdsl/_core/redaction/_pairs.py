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
    """Mask the values of such pairs in a text."""
    if "," in text:
        text = _without(text, _PAIR, _is_secret_pair)
    return _without(text, _VALUE, _has_secret_name)


def _without(text: str, places: re.Pattern[str], hides: Callable[[re.Match[str], Value], bool]) -> str:
    parts, at = [], 0
    for place in places.finditer(text):
        if place.start() >= at and text[place.end() : place.end() + 1] not in _OPEN:
            value = value_at(text, place.end())
            if value is not None and MASK not in value.content and hides(place, value):
                parts += [text[at : place.end()], _mask_at(place)]
                at = value.end
    return "".join([*parts, text[at:]]) if parts else text


def _mask_at(place: re.Match[str]) -> str:
    quotes = _QUOTE.findall(place[0])
    return masked_like(quotes[-1] if quotes else None)


def _is_secret_pair(place: re.Match[str], value: Value) -> bool:
    text, name = place.string, place[3]
    around = text[max(0, place.start() - 50) : place.start()].rstrip()
    before, outside = around[-1:], around.rstrip("[( ")[-1:]
    number = value.content.isdigit() and not before.isidentifier()
    if not (value.quoted or number) or _END_OF_PAIR.match(text, value.end) is None:
        return False
    return is_pair(
        name,
        value.content if value.quoted else 0,
        among_pairs=before != "" and before in "[({," and not (outside.isidentifier() or outside in (")", "]")),
        named=place[1] == "(" and (not before.isidentifier() or around.endswith(_LOOKUPS)),
    )


def _has_secret_name(place: re.Match[str], value: Value) -> bool:
    text = place.string
    if not value.content or (not value.quoted and (value.group or CODE & set(value.content))):
        return False
    beside = (
        _NAME_BEFORE.search(text, max(0, place.start() - 200), place.start()),
        _NAME_AFTER.match(text, value.end),
    )
    content = 0 if value.content.isdigit() and not value.quoted else value.content
    return any(found is not None and is_secret(found[1], content) for found in beside)
