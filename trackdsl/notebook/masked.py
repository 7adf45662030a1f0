"""A program without the secrets of the cells."""

from __future__ import annotations

import ast
import re
from difflib import SequenceMatcher

from trackdsl._core.redaction import mask_text
from trackdsl.notebook.lines import lines_of
from trackdsl.notebook.names import parsed

#: A secret that was masked with its quotes.
_BARE = re.compile(r"(?<=[=:(\[,])( ?)\*\*\*")
_MASKED = "# Masked: write the secret in again.\n"


def masked_program(code: str) -> str:
    """A program without its secrets. It is still Python where that is possible, with texts in place of the secrets."""
    masked = mask_text(code)
    if parsed(masked) is None:
        quoted = _BARE.sub(r"\1'***'", masked)
        masked = masked if parsed(quoted) is None else quoted
    return masked if masked == code else _with_comments(code, masked)


def _with_comments(code: str, masked: str) -> str:
    """A masked program with a comment above each statement in which something was masked."""
    lines, tree = lines_of(masked), parsed(masked)
    if tree is None:
        return masked
    numbers = _changed(lines_of(code), lines)
    begins = [0] * (len(lines) + 1)  # Line → the line where its innermost statement begins that has it to itself.
    for node in ast.walk(tree):  # Outer ones first.
        if isinstance(node, ast.stmt) and not lines[node.lineno - 1][: node.col_offset].strip():
            first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
            begins[first : (node.end_lineno or first) + 1] = [first] * ((node.end_lineno or first) + 1 - first)
    for first in sorted({begins[number] for number in numbers if begins[number]}, reverse=True):
        line = lines[first - 1]
        lines.insert(first - 1, f"{line[: len(line) - len(line.lstrip())]}{_MASKED}")
    return "".join(lines)


def _changed(before: list[str], after: list[str]) -> set[int]:
    """The numbers of the lines that differ from those before."""
    if len(before) == len(after):
        return {at for at, (one, other) in enumerate(zip(before, after, strict=True), 1) if one != other}
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return {at + 1 for kind, _, _, start, end in blocks if kind != "equal" for at in range(start, end)}
