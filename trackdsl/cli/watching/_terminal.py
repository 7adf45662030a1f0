"""The keys of a terminal, and signals: what wakes a display that waits."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

#: What a terminal sends for a key.
_KEYS = {
    b"\x1b[A": "up", b"\x1bOA": "up", b"k": "up",
    b"\x1b[B": "down", b"\x1bOB": "down", b"j": "down",
    b"\x1b[D": "fold", b"\x1bOD": "fold", b"\x1b[C": "unfold", b"\x1bOC": "unfold",
    b"\x1b[5~": "page up", b"b": "page up", b"\x1b[6~": "page down", b"f": "page down",
    b"\x1b[H": "top", b"\x1b[1~": "top", b"\x1bOH": "top", b"g": "top",
    b"\x1b[F": "bottom", b"\x1b[4~": "bottom", b"\x1bOF": "bottom", b"G": "bottom",
    b" ": "toggle", b"\r": "toggle", b"\n": "toggle",
    b"a": "ended", b"q": "quit", b"Q": "quit", b"\x03": "quit", b"\x04": "quit",
}  # fmt: skip
_KEY = re.compile(rb"\x1b\[[0-9;]*[@-~]|\x1bO[A-Z]|\x1b|.", re.DOTALL)


def keys_in(typed: bytes) -> list[str]:
    r"""The names of the keys that were typed; unknown ones are left out.

    >>> keys_in(b"j\x1b[5~x")
    ['down', 'page up']
    """
    return [_KEYS[key] for key in _KEY.findall(typed) if key in _KEYS]


class Keys:
    """The keyboard of a terminal, one key at a time and without echo, and the signals that wake a wait.

    Use it in a `with` block, whose end restores the terminal.

    Args:
        suspended: called when the user stops the program with Ctrl-Z, before it stops.
        resumed: called when it continues.
    """

    def __init__(self, suspended: Callable[[], None], resumed: Callable[[], None]) -> None:
        self.available = sys.stdin is not None and sys.stdin.isatty()
        self._suspended, self._resumed = suspended, resumed
        self._before: list[Any] | None = None
        self._wakes: tuple[int, int] = (-1, -1)
        self._handlers: dict[int, Any] = {}
        self._stops = False

    def __enter__(self) -> Keys:
        self._wakes = os.pipe()
        for end in self._wakes:
            os.set_blocking(end, False)
        self._wake_before = signal.set_wakeup_fd(self._wakes[1], warn_on_full_buffer=False)
        for number, handler in (
            (signal.SIGWINCH, _nothing),
            (signal.SIGTERM, _exit),
            (signal.SIGHUP, _exit),
            (signal.SIGTSTP, self._request_stop),
        ):
            self._handlers[number] = signal.signal(number, handler)
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        for number, handler in self._handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        signal.set_wakeup_fd(self._wake_before)
        for end in self._wakes:
            os.close(end)

    def wait(self, seconds: float) -> list[str]:
        """Wait for keys, a signal or the end of a time; returns the names of the keys."""
        watched = [self._wakes[0], *([sys.stdin.fileno()] if self.available else [])]
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._wakes[0] in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakes[0], 1024)
        if self._stops:
            self._stops = False
            self._stop()
        if not self.available or sys.stdin.fileno() not in ready:
            return []
        typed = os.read(sys.stdin.fileno(), 1024)
        self.available = bool(typed)  # The terminal is gone.
        return keys_in(typed)

    def _begin(self) -> None:
        if self.available:
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin, termios.TCSANOW)

    def _end(self) -> None:
        if self._before is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin, termios.TCSANOW, self._before)

    def _request_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stops = True

    def _stop(self) -> None:
        self._suspended()
        self._end()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._begin()
        self._resumed()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """The wake-up is enough."""


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def ending_by_signal() -> Iterator[None]:
    """Let the block end in order at SIGTERM, and not in the middle of a line."""
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
