"""Secrets next to their name in a text: JSON, YAML, INI and environment files, queries, headers, source code.

The name next to a value makes it a secret. In an error message, every such value is masked. In other texts, only
literal values are masked, not code such as `password = read_password()`.
"""

from __future__ import annotations

import re

from trackdsl._core.redaction._configuration import Assignment, Lines
from trackdsl._core.redaction._letters import MARKS, fold, unescaped
from trackdsl._core.redaction._literals import holds_literals, is_literal, may_be_type, may_hold_literals
from trackdsl._core.redaction._names import is_name_of_token, is_number, is_secret_name, looks_random
from trackdsl._core.redaction._pairs import without_pairs
from trackdsl._core.redaction._shapes import MASK, masked_like
from trackdsl._core.redaction._values import Value, end_of_quoted, value_at

_ESCAPE = r"\\{1,16}u[0-9A-Fa-f]{4}|(?:\\{1,16}x|%)[89A-Fa-f][0-9A-Fa-f]"
_FIRST_LETTER = rf"(?:[^\W\d]|{_ESCAPE})"
_LETTER = rf"(?:[\w\-{MARKS}]|{_ESCAPE})"
# The group is atomic: without that, the expression would also try each beginning of the name.
_WHOLE = rf"({_FIRST_LETTER}{_LETTER}{{0,80}}+)"
_NAMED = re.compile(
    rf"(?:(?<![\w\-])|(?<=%[0-9A-F]{{2}}))-{{0,2}}{_WHOLE}(\\*['\"])?(?:\]|(?<=['\"])\)|%5D)?[ \t]{{0,8}}"
    r"(:=|=>|={1,3}|:(?!:)|[\uff1a\uff1d]|%3[AD])[ \t]{0,8}(?=\S|\r?\n(?:[ \t]|- ))"
)
#: The last word of a name of several words, and up to two words before it.
_LAST_WORD = re.compile(
    r"keys?|tokens?|word|phrase|code|strings?|name|passe|secret[ea]|privee|privada|api|acces|acceso|acesso|sandi|khau"
    r"|laluan|السر|المرور|مرور|عبور|προσβασης"
)
_WORDS_BEFORE = re.compile(rf"(?:(?:[\w{MARKS}]|{_ESCAPE}){{1,20}}[ \-]){{1,2}}\Z")
_TYPED = re.compile(r"[\w\[\] |.]{0,40}?[ \t]{0,8}=[ \t]{0,8}(?=[^\s=])")
#: A password after the word `password`, with no sign between them: in a `.netrc` file and in SQL.
_WITHOUT_SIGN = re.compile(
    r"(\blogin\s{1,8}\S{1,200}\s{1,8}password\s{1,8})\S+"
    r"|((?i:\bpassword)\s{1,8})(?:'[^'\n]{1,500}'|\"[^\"\n]{1,500}\")"
)
_ELEMENT = re.compile(r"<([A-Za-z][\w.:\-]{0,80})(?:\s[^<>]{0,200})?>(?:<!\[CDATA\[)?([^<>]{1,5000}?)(?:\]\]>)?</")
#: The end of a value without quotes in code. A line of a configuration may begin with such a character.
_NO_BEGINNING = frozenset(",;&)}]")
_BLOCKS = frozenset(["|", ">", "|-", ">-", "|+", ">+"])


def without_assigned(text: str, *, everything: bool = False) -> str:
    """Mask the values in a text that have the name of a secret.

    Args:
        text: any text.
        everything: whether possible secrets are masked too, such as the name of a variable.
    """
    parts, at = [], 0
    lines = Lines(text)
    for named in _NAMED.finditer(text):
        found = _secret_at(lines, named, everything) if named.start() >= at else None
        if found is not None:
            parts += [text[at : found[0]], masked_like(named[2] if named[3] == ":" else None)]
            at = found[1]
    text = "".join([*parts, text[at:]]) if parts else text
    if "</" in text:
        text = _ELEMENT.sub(_hide_element, text)
    if "password " in text or "PASSWORD " in text:
        text = _WITHOUT_SIGN.sub(rf"\1\2{MASK}", text)
    return without_pairs(text)


def _secret_at(lines: Lines, named: re.Match[str], everything: bool) -> tuple[int, int] | None:
    """The start and the end of the secret that is assigned here; None if there is none."""
    named_so = _name_of(named)
    if named_so is None:
        return None
    begin, start = named_so[1], named.end()
    if lines.text[start] in "\r\n":
        end = lines.end_of_block(begin) if lines.are_configuration and lines.is_first(begin) else 0
        return (start, end) if end > start else None
    group = lines.text[start] in "([{"
    if group and (start < lines.code_until or (not everything and is_name_of_token(named_so[0]))):
        return None
    assignment = _assignment(lines, *named_so, named)
    if assignment is None or (not assignment.value.quoted and is_number(assignment.name, assignment.value.content)):
        return None
    if assignment.value.content in _BLOCKS and (end := lines.end_of_block(begin)) > assignment.value.end:
        return start, end
    value = assignment.value
    if is_literal(lines, assignment) or (
        everything and (holds_literals(value.content) if value.group else value.content)
    ):
        return assignment.at, value.end
    if value.group and not may_hold_literals(value.content):
        lines.code_until = value.end
    return None


def _assignment(lines: Lines, name: str, begin: int, named: re.Match[str]) -> Assignment | None:
    """The value of a name: after an optional type, up to the closing quote or the end of the line."""
    text, start = lines.text, named.end()
    value = value_at(text, start) if text[start] not in _NO_BEGINNING else None
    if value is None:
        value = Value("", start)
    if named[3] == ":" and may_be_type(value) and (typed := _TYPED.match(text, value.end)) is not None:
        start = typed.end()
        value = value_at(text, start) or value
    opening = text[begin - 1] if begin else ""
    if opening and opening in "'\"" and named[3] == ":" and not (named[2] or value.quoted or value.group):
        end = end_of_quoted(text, start, opening)
        value = Value(text[start:end], end)
    assignment = Assignment(name, named[1], begin, named[3], named[2] is not None, start, value)
    if lines.has_more_words(assignment):
        rest = lines.rest(start)
        assignment = assignment._replace(value=Value(rest, start + len(rest)))
    return assignment


def _name_of(named: re.Match[str]) -> tuple[str, int] | None:
    """The assigned name and its start, if it is the name of a secret."""
    name = unescaped(named[1])
    if is_secret_name(name):
        return name, named.start()
    if _LAST_WORD.fullmatch(fold(name).lower()):
        before = _WORDS_BEFORE.search(named.string, max(0, named.start() - 120), named.start())
        if before is not None and is_secret_name(longer := unescaped(before[0]) + name):
            return longer, before.start()
    return None


def _hide_element(found: re.Match[str]) -> str:
    name, content = found[1].rpartition(":")[2], found[2]
    if (
        not is_secret_name(name)
        or not content.strip()
        or is_number(name, content.strip())
        or (is_name_of_token(name) and not looks_random(content))
    ):
        return found[0]
    return f"{found[0][: found.start(2) - found.start()]}{MASK}{found[0][found.end(2) - found.start() :]}"
