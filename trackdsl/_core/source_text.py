"""The source text of a function, and its hash."""

from __future__ import annotations

import contextlib
import hashlib
import linecache
import os
import stat
from collections.abc import Sequence
from types import CodeType


def text_of(code: CodeType, lines: Sequence[str]) -> str:
    """The source of a function: from its first decorator to its last line.

    `inspect.getsource` tokenises the file. The code object knows its last line, which is a hundred times faster.

    Args:
        code: the function's code object.
        lines: those of its file, with their line breaks.
    """
    return "".join(lines[code.co_firstlineno - 1 : _last_line(code)])


def leave_pipe_unread(file: str) -> None:
    """See to it that `linecache`, and all that reads source by it, reads no pipe or device.

    A program may come from a named pipe, from `/dev/stdin`, or from `<(…)` of a shell. Python has read it by then:
    reading it again would wait for ever, or take input that is meant for the program.

    Args:
        file: the file of a code object.
    """
    if len(linecache.cache.get(file, ())) > 1:  # It was read, or is not a file.
        return
    with contextlib.suppress(OSError, ValueError):
        if not stat.S_ISREG(os.stat(file).st_mode):
            linecache.cache[file] = (0, None, [], file)  # Without a time of change, it stays there.


def digest_of(text: str) -> str:
    """The first 16 hex digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _last_line(code: CodeType) -> int:
    own = max((line for _, _, line in code.co_lines() if line is not None), default=code.co_firstlineno)
    return max([own, *(_last_line(const) for const in code.co_consts if isinstance(const, CodeType))])
