"""Which values after the name of a secret are literals, and which are code or a type."""

from __future__ import annotations

import re

from trackdsl._core.redaction._configuration import Assignment, Lines
from trackdsl._core.redaction._names import is_name_of_token, looks_random
from trackdsl._core.redaction._shapes import CODE, MASK
from trackdsl._core.redaction._values import Value

_HEADER = re.compile(r"(?:basic|bearer|digest|token|apikey|negotiate|aws4-hmac-sha256) (\S+)", re.IGNORECASE)
_NO_HEADER = frozenset(["auth", "authentication", "token", "tokens", "scheme", "header", "credentials", "credential"])
_TYPE = re.compile(
    r"(?:(?:secret)?str|int|float|bool|bytes|dict|list|object|string|number|any|none|null|true|false|required|optional)\b"
    r"[\s|=,?]*",
    re.IGNORECASE,
)
#: Keys of a description of a value, as in a JSON schema.
_DESCRIPTION = re.compile(
    r"['\"](?:\$ref|required|properties|type\\*['\"]\s{0,8}:\s{0,8}\\*['\"](?:string|object|array|integer|number|boolean))\\*['\"]"
)
_STRING = re.compile(r"'[^'\\\n]*(?:\\.[^'\\\n]*)*'|\"[^\"\\\n]*(?:\\.[^\"\\\n]*)*\"")
_CODE_IN_GROUP = re.compile(r"[A-Za-z_]\w{0,60}[(\[.]")
_PLACEHOLDER = re.compile(
    r"\$\{.*|\$\(.*|\$(?:[A-Z_][A-Z0-9_]*|[a-z_]+)$|<[^<>]*>?$|\{\{.*|%\(?\w+\)?[s%]$|[|>][+\-]?\d?$"
)
_CODE_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_CALL = re.compile(r"[A-Za-z_][\w.]*[(\[].*[)\]][;,]?")
_ENVIRONMENT = re.compile(r"[A-Z][A-Z0-9_]*")


def may_be_type(value: Value) -> bool:
    """Whether a value starts with the name of a type."""
    return not value.quoted and _TYPE.match(value.content) is not None


def is_literal(lines: Lines, assignment: Assignment) -> bool:
    """Whether an assigned value is a literal, rather than code that computes it."""
    value = assignment.value
    content = value.content
    if not content or MASK in content or _is_part_of_a_path(lines, assignment):
        return False
    if value.group:
        return holds_literals(content) and not is_name_of_token(assignment.name)
    if assignment.sign.startswith("=="):
        return value.quoted and (looks_random(content) or "token" not in assignment.name.lower())
    if is_name_of_token(assignment.name) and (
        value.quoted or not _is_environment_variable(lines, assignment)
    ):  # It may be a token of a text.
        return looks_random(content, quoted=value.quoted) and not CODE & set(content)
    return value.quoted or assignment.sign[0] == "%" or _is_written_out(lines, assignment)


def _is_part_of_a_path(lines: Lines, assignment: Assignment) -> bool:
    """Whether the name and the value are between colons, as in `arn:aws:secretsmanager:eu-west-1:1:secret:name`."""
    text = lines.text
    return (
        assignment.sign == ":" == text[assignment.at - 1]
        and text[max(0, assignment.start - 1) : assignment.start] == ":"
    )


def _is_written_out(lines: Lines, assignment: Assignment) -> bool:
    """Whether a value without quotes is a literal."""
    content = assignment.value.content
    header = _HEADER.fullmatch(content)
    if header is not None:
        return header[1].lower() not in _NO_HEADER and not (header[1][0] in "{." or _PLACEHOLDER.match(header[1]))
    if _is_no_value(assignment):
        return False
    if lines.is_quoted(assignment):
        return True
    if CODE & set(content) or ("token" in assignment.name.lower() and _CODE_PATH.fullmatch(content)):
        return lines.are_configuration and _CALL.fullmatch(lines.rest(assignment.at)) is None
    if any(map(str.isdigit, content)):
        return len(content) >= 4 or (lines.are_configuration and not content.isdigit())
    return _is_environment_variable(lines, assignment) or lines.is_whole(assignment)


def may_hold_literals(group: str) -> bool:
    """Whether a list or mapping may contain a literal."""
    return any(sign in "'\"" or sign.isdigit() for sign in group)


def holds_literals(group: str) -> bool:
    """Whether a list or mapping contains literals, and neither calls nor descriptions of values."""
    if not may_hold_literals(group) or _DESCRIPTION.search(group):
        return False
    return _CODE_IN_GROUP.search(_STRING.sub("''", group)) is None


def _is_no_value(assignment: Assignment) -> bool:
    """Whether an assigned value repeats the name, is a type, or is a placeholder."""
    content = assignment.value.content
    if content == assignment.written or _PLACEHOLDER.match(content):
        return True
    at = 0
    while at < len(content):
        found = _TYPE.match(content, at)
        if found is None:
            return False
        at = found.end()
    return True


def _is_environment_variable(lines: Lines, assignment: Assignment) -> bool:
    """Whether it is a shell assignment: `PASSWORD=...` at the start of a word."""
    before = lines.text[assignment.start - 1] if assignment.start else "\n"
    return (
        assignment.sign == "=" == lines.text[assignment.at - 1]
        and before in "\n '\"=;&"
        and bool(_ENVIRONMENT.fullmatch(assignment.name))
    )
