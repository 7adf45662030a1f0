"""Removes trackdsl's frames from tracebacks of tasks that run elsewhere, so that they look as without trackdsl."""

from __future__ import annotations

import sys


def hide_frame(error: BaseException) -> None:
    """Remove the caller's frame from the traceback of an exception that passes through it.

    A bare `raise` afterwards does not put it back.

    Args:
        error: the exception that the caller has caught.

    Example:
        >>> def ours():
        ...     try:
        ...         1 / 0
        ...     except ZeroDivisionError as error:
        ...         hide_frame(error)
        ...         raise
    """
    trace = error.__traceback__
    if trace is not None and trace.tb_frame is sys._getframe(1):
        BaseException.with_traceback(error, trace.tb_next)  # Not as an attribute, which an exception may refuse.
