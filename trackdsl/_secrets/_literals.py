"""Which values are written out in a text, and which are code or a type that only stands beside a secret's name."""

from __future__ import annotations

import re

from trackdsl._secrets._configuration import Given, Lines
from trackdsl._secrets._names import is_name_of_token, looks_random
from trackdsl._secrets._shapes import CODE, MASK
from trackdsl._secrets._values import Value

_HEADER = re.compile(r"(?:basic|bearer|digest|token|apikey|negotiate|aws4-hmac-sha256) (\S+)", re.IGNORECASE)
_NO_HEADER = frozenset(["auth", "authentication", "token", "tokens", "scheme", "header", "credentials", "credential"])
_TYPE = re.compile(
    r"(?:(?:secret)?str|int|float|bool|bytes|dict|list|object|string|number|any|none|null|true|false|required|optional)\b"
    r"[\s|=,?]*",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"\$\{.*|\$\(.*|\$[A-Za-z_]\w*$|<[^<>]*>?$|\{\{.*|%\(?\w+\)?[s%]$|[|>][+\-]?\d?$")
_CODE_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_CALL = re.compile(r"[A-Za-z_][\w.]*[(\[].*[)\]][;,]?")
_ENVIRONMENT = re.compile(r"[A-Z][A-Z0-9_]*")


def may_be_type(value: Value) -> bool:
    """Whether a value begins with the name of a type."""
    return not value.quoted and _TYPE.match(value.content) is not None


def is_literal(lines: Lines, given: Given) -> bool:
    """Whether what is assigned is a value that was written out, rather than code that says where it comes from."""
    value = given.value
    content = value.content
    if not content or MASK in content:
        return False
    if value.group:
        return any(sign in "'\"" or sign.isdigit() for sign in content)
    alone = _is_of_environment(lines, given)
    if is_name_of_token(given.name) and (value.quoted or not alone):  # Of a text, perhaps.
        return looks_random(content, quoted=value.quoted) and not CODE & set(content)
    if value.quoted or given.sign[0] == "%":
        return True
    header = _HEADER.fullmatch(content)
    if header is not None:
        return header[1].lower() not in _NO_HEADER and header[1][0] not in "{<$%"
    if _is_no_value(given):
        return False
    if lines.is_quoted(given):
        return True
    if CODE & set(content) or ("token" in given.name.lower() and _CODE_PATH.fullmatch(content)):
        return lines.are_configuration and _CALL.fullmatch(lines.rest(given.at)) is None
    if any(map(str.isdigit, content)):
        return len(content) >= 4 or given.closed or lines.are_configuration
    return alone or lines.is_whole(given)


def _is_no_value(given: Given) -> bool:
    """Whether what is assigned is compared only, has the same name, is a type, or stands for what comes later."""
    content = given.value.content
    if given.sign.startswith("==") or content == given.written or _PLACEHOLDER.match(content):
        return True
    at = 0
    while at < len(content):
        found = _TYPE.match(content, at)
        if found is None:
            return False
        at = found.end()
    return True


def _is_of_environment(lines: Lines, given: Given) -> bool:
    """Whether it is an assignment as in a shell: `PASSWORD=...`, at the beginning of a word."""
    before = lines.text[given.start - 1] if given.start else "\n"
    return (
        given.sign == "=" == lines.text[given.at - 1]
        and before in "\n '\"=;&"
        and bool(_ENVIRONMENT.fullmatch(given.name))
    )
