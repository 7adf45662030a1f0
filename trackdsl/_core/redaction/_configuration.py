"""Recognize texts that are configuration files: each line assigns a value to a name. Such values are not code."""

from __future__ import annotations

import re
from typing import NamedTuple

from trackdsl._core.redaction._letters import MARKS
from trackdsl._core.redaction._values import Value

_KEY = re.compile(
    r"(?:[-*][ \t]{1,8}|export[ \t]{1,8}|set[ \t]{1,8}|ENV[ \t]{1,8}|\$env:)?"
    rf"(['\"]?)[\w.\-/@$\[\]{MARKS}]{{1,80}}(?: [\w\-{MARKS}]{{1,30}}){{0,2}}\1[ \t]{{0,8}}(?::(?:[ \t]|$)|:?=)"
)
_OTHER = re.compile(r"[#;]|\[[^\[\]]{0,100}\]$|---|\.\.\.|[-*][ \t]|[{}\[\],]*$|//")
_BLOCKS = (": |", ": >", ": |-", ": >-", ": |+", ": >+")
#: A longer text is data.
_MAX_LENGTH = 500_000
#: How many characters of a line are searched, before and after a position.
_MAX_LINE = 1000
#: A line with more words than this is a sentence if it is the only line or ends with a full stop.
_MAX_WORDS = 4
#: What may come before the name in a line.
_LEADING = " \t-*'\""


class Assignment(NamedTuple):
    """A name and the value that a text assigns to it.

    Attributes:
        name: the name, which may have several words.
        written: the last word of the name, as in the text.
        start: the position of the name.
        sign: the sign between the name and the value: `=` or `:`.
        closed: whether the name ends with a quote.
        at: the position of the value.
        value: the value.
    """

    name: str
    written: str
    start: int
    sign: str
    closed: bool
    at: int
    value: Value


class Lines:
    """The lines of a text.

    Args:
        text: any text. It is only searched as far as needed.

    Attributes:
        text: the text.
        code_until: the end of the last list or mapping that contains no literal values, not even in nested ones.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.code_until = 0
        self._keys: int | None = None

    @property
    def are_configuration(self) -> bool:
        """Whether each line assigns a value, is a comment, or continues the line before."""
        if self._keys is None:
            self._keys = self._count() if len(self.text) <= _MAX_LENGTH else 0
        return self._keys > 0

    def _count(self) -> int:
        """The number of lines that assign a value; 0 if any line does something else."""
        keys, indentation, block, opened = 0, 0, False, False
        for line in self.text.splitlines():
            stripped = line.strip(" \t")
            deeper = _indentation(line) > indentation
            if not stripped or (deeper and (block or (opened and len(stripped.split()) == 1))):
                continue
            indentation = _indentation(line)
            block, opened = stripped.endswith(_BLOCKS), stripped[-1] == ":"
            if _KEY.match(stripped[:200]):
                keys += 1
            elif not _OTHER.match(stripped[:200]):
                return 0
        return keys

    def is_first(self, start: int) -> bool:
        """Whether a position is at the start of its line, apart from a quote or the sign of a list item."""
        return self._before(start).strip(_LEADING) in ("", "export", "set", "ENV")

    def _before(self, at: int) -> str:
        begin = max(0, at - _MAX_LINE)
        line = self.text.rfind("\n", begin, at)
        return self.text[begin if line < 0 else line + 1 : at]

    def rest(self, at: int) -> str:
        """The rest of a line from a position, without a comment."""
        rest = self.text[at : at + _MAX_LINE].partition("\n")[0]
        return rest.partition(" #")[0].rstrip()

    def has_more_words(self, assignment: Assignment) -> bool:
        """Whether the value in a line that starts with the name has more than one word."""
        value = assignment.value
        if value.quoted or value.group or self.text[value.end : value.end + 1] in ("", "\n", "\r"):
            return False
        if not self.is_first(assignment.start) or not self.are_configuration:
            return False
        rest = self.rest(assignment.at)
        if re.search(r"\s[A-Za-z_][\w.\-]*=(?!=)|['\"}\]]\s{0,8},?$", rest):
            return False
        return len(rest.split()) <= _MAX_WORDS or ((self._keys or 0) > 1 and rest[-1] not in ".!?")

    def is_quoted(self, assignment: Assignment) -> bool:
        """Whether a name and its value fill a quoted text, such as `'X-Api-Key: ...'`."""
        before, after = (
            self.text[max(0, assignment.start - 1) : assignment.start],
            self.text[assignment.value.end : assignment.value.end + 1],
        )
        return not assignment.closed and before == after and before != "" and before in "'\""

    def is_whole(self, assignment: Assignment) -> bool:
        """Whether a name and its value fill a line or a quoted text, or are part of a configuration."""
        text, start, value = self.text, assignment.start, assignment.value
        before, after = text[start - 1 : start] if start else "", text[value.end : value.end + 1]
        line = self._before(start)
        if after in ("", "\n", "\r") and (
            not line if assignment.sign == "=" else not line.strip(" -") and value.content[0].islower()
        ):
            return True
        if self.is_first(start) and self.rest(assignment.at) == value.content:
            return self.are_configuration
        if before and before in "{," and after and after in ",}" and text.lstrip()[:1] == "{":
            return True
        return self.are_configuration and "=" in assignment.sign

    def end_of_block(self, at: int) -> int:
        """The end of the lines after a position that are indented more than its line, or are items of its list."""
        indentation = _indentation(self._before(at))
        end = position = self.text.find("\n", at)
        while 0 <= position < len(self.text):
            following = self.text.find("\n", position + 1)
            following = len(self.text) if following < 0 else following
            line = self.text[position + 1 : following]
            if line.strip():
                if _indentation(line) <= indentation and not line[indentation:].startswith("- "):
                    break
                end = following
            position = following
        return end


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))
