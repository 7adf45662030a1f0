"""Whether what trackdsl says of its own, such as the progress of a wait, can go to the standard error."""

from __future__ import annotations

import sys


def at_terminal() -> bool:
    """Whether the standard error is a terminal.

    A program may have closed it, have none, or have replaced it by an object of its own, also one without `isatty`.
    """
    try:
        return bool(sys.stderr.isatty())
    except Exception:
        return False
