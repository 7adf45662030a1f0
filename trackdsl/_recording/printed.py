"""What a program or a notebook cell prints, as far as it is kept: the end of it, masked."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from trackdsl._core.redaction import mask_text

#: The artifact with the end of what was printed, and its length in characters.
PRINTED = "output.txt"
MAX_PRINTED = 64_000
#: How many pieces are kept before they are joined, and the length of a piece that is joined at once.
_MOST_PARTS, _LONG_PART = 256, 10_000
#: After how many writes the output of a program is checked, if they take less than this time, in seconds.
_MOST_AT_ONCE, _OFTEN = 64, 0.05
_clock = time.monotonic
#: Escape sequences of terminals other than colours, and other control characters, also those of eight bits. These are
#: wrongly decoded text more often, so their sequences are recognized only if they are complete.
_CONTROL = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b\[[0-9;?]*[@-ln-~]|\x1b(?!\[[0-9;]*m)"
    r"|\x9d[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)|\x9b[0-9;?]+[@-~]"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)


class Printed:
    """Collects the end of a text that is printed in pieces."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def add(self, text: str) -> None:
        """Add a piece. A program may print millions of them, so they are joined many at a time."""
        parts = self._parts
        parts.append(text)
        if len(parts) > _MOST_PARTS or len(text) > _LONG_PART:
            parts[:] = [self.text()]

    def text(self) -> str:
        """The end of the text, which is not masked yet."""
        return "".join(self._parts)[-2 * MAX_PRINTED :]


class Output:
    """The end of what a program writes to its streams. It may print millions of lines, so a write costs little more.

    Args:
        look: called with the time after each write; if there are many of them in a short time, after some of them. It
            raises no error.
    """

    def __init__(self, look: Callable[[float], object]) -> None:
        self._look = look
        self._looked = -math.inf
        self._at_once = 1
        self._parts: list[str] = []
        #: Parts that were joined, and their length in characters.
        self._joined: deque[str] = deque()
        self._length = 0

    def text(self) -> str:
        """The end of the text, which is not masked yet."""
        return "".join([*self._joined, *self._parts])[-2 * MAX_PRINTED :]

    def follow(self, *streams: Any) -> list[Callable[[], None]]:
        """Collect what is written to streams; returns functions that end this."""
        parts, append, room = self._parts, self._parts.append, 0

        def follow(stream: Any) -> Callable[[], None]:
            original = stream.write

            def write(text: str) -> Any:
                nonlocal room
                written = original(text)
                append(text)
                if len(parts) > room:
                    room = self._look_now()
                return written

            return _replace(stream, "write", write)

        return [follow(stream) for stream in streams]

    def _look_now(self) -> int:
        """Join the parts, and look; returns how many parts there may be before the next time."""
        count, now = len(self._parts), _clock()
        text = "".join(self._parts[:count])
        del self._parts[:count]
        self._joined.append(text[-2 * MAX_PRINTED :])
        self._length += len(self._joined[-1])
        while self._length - len(self._joined[0]) >= 2 * MAX_PRINTED:
            self._length -= len(self._joined.popleft())
        self._at_once = min(2 * self._at_once, _MOST_AT_ONCE) if now - self._looked < _OFTEN else 1
        self._looked = now
        self._look(now)
        return self._at_once - 1


def follow_writes(stream: Any, call: Callable[[str], object]) -> Callable[[], None]:
    """Have a function called with each text that is written to a stream. The stream itself stays in place.

    Args:
        stream: the stream.
        call: takes the text, before it is written. It raises no error.

    Returns:
        a function that ends this.
    """
    original = stream.write

    def write(text: str) -> Any:
        if isinstance(text, str):
            call(text)
        return original(text)

    return _replace(stream, "write", write)


def follow_flushes(stream: Any, call: Callable[[], object]) -> Callable[[], None]:
    """Have a function called before each flush of a stream. It raises no error.

    Returns:
        a function that ends this.
    """
    original = stream.flush

    def flush() -> Any:
        call()
        return original()

    return _replace(stream, "flush", flush)


def _replace(stream: Any, method: str, ours: Callable[..., Any]) -> Callable[[], None]:
    before = vars(stream).get(method)

    def restore() -> None:
        if vars(stream).get(method) is ours:
            if before is None:
                delattr(stream, method)
            else:
                setattr(stream, method, before)

    setattr(stream, method, ours)
    return restore


def tail_of(text: str) -> str:
    """The end of a printed text, masked. Lines that a progress bar has written over are left out."""
    text = text[-2 * MAX_PRINTED :]
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    # Masked before the cut: half of a secret would not be recognized.
    whole = harmless(mask_text("\n".join(lines)))
    return whole if len(whole) <= MAX_PRINTED else f"… {whole[-MAX_PRINTED:]}"


def harmless(text: str) -> str:
    """Text without control characters, changes of the writing direction, and escape sequences other than colours."""
    return _CONTROL.sub("", text)
