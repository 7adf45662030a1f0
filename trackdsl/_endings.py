"""How a program ends, as far as it can be told from inside: by an exception, or by `sys.exit`."""

from __future__ import annotations

import functools
import sys
import threading
from typing import Any, NoReturn


class ExitWatch:
    """`sys.exit` while a session is open: at the end of a program Python tells nobody the exit code.

    Attributes:
        error: with what the program was last to be ended, or None.
    """

    def __init__(self) -> None:
        self.error: SystemExit | None = None
        self._original: Any = None
        self._taken: Any = None

    def take(self) -> None:
        """Take its place, once."""
        if self._original is not None:
            return
        self.error, self._original = None, sys.exit
        original = sys.exit

        @functools.wraps(original)
        def exit(status: Any = None, /) -> NoReturn:  # noqa: A001 - its name
            if threading.current_thread() is threading.main_thread():
                self.error = SystemExit(status)
            original(status)

        self._taken = exit
        sys.exit = exit

    def put_back(self) -> None:
        """Leave it as it was, unless somebody else has taken it since."""
        if self._original is not None and sys.exit is self._taken:
            sys.exit, self._original = self._original, None


def last_uncaught() -> BaseException | None:
    """The exception that has ended the program, or was printed in a notebook last."""
    return getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
