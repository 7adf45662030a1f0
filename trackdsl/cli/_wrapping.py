"""Messages for a terminal, whose lines end between words; a pipe gets them as they are."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TextIO


def wrapped(text: str, stream: TextIO | None = None, *, before: str = "") -> str:
    """A message with lines that fit where it is printed.

    Args:
        text: the message.
        stream: where it is printed; the standard output by default.
        before: what is printed before it, in its first line.
    """
    stream = stream or sys.stdout
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    first, *others = text.split("\n")
    lines = [_filled(f"{before}{first}", width)[len(before) :], *(_filled(line, width) for line in others)]
    return "\n".join(lines)


def _filled(line: str, width: int) -> str:
    # Paths and addresses stay whole.
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False, drop_whitespace=True) or line
