"""How a call ended, told as MLflow's run status and the exception behind it."""

from __future__ import annotations

import os
import traceback

from trackdsl._events import Failure
from trackdsl._secrets import mask_prose

FINISHED = "FINISHED"
FAILED = "FAILED"
KILLED = "KILLED"

_MAX_FRAMES = 100
_MAX_MESSAGE = 4000
#: Masking takes time in the program, and an event has a largest size.
_MAX_TRACEBACK = 200_000
_HERE = os.path.dirname(__file__) + os.sep


def status_of(error: BaseException) -> str:
    """The status of a run that `error` ended.

    >>> status_of(SystemExit(0)), status_of(KeyboardInterrupt()), status_of(ValueError())
    ('FINISHED', 'KILLED', 'FAILED')
    """
    if isinstance(error, SystemExit):
        return FINISHED if error.code in (None, 0) else FAILED
    if isinstance(error, Exception):
        return FAILED
    # KeyboardInterrupt, asyncio.CancelledError, trio.Cancelled: somebody else wanted the end.
    return KILLED


def describe(error: BaseException) -> Failure | None:
    """Type, message and traceback, with secrets masked; None for a clean `sys.exit`."""
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return None
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return Failure(name, mask_prose(_message(error)[: 4 * _MAX_MESSAGE])[:_MAX_MESSAGE], _traceback(error))


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as fault:
        return f"<the message cannot be read: {type(fault).__name__}>"


def _traceback(error: BaseException) -> str:
    try:
        told = traceback.TracebackException(type(error), error, error.__traceback__, limit=-_MAX_FRAMES, compact=True)
        told.stack = traceback.StackSummary.from_list([f for f in told.stack if not f.filename.startswith(_HERE)])
        text = "".join(told.format())
        if len(text) <= _MAX_TRACEBACK:
            return mask_prose(text)
        # What is cut in two has no shape any more, so the cut comes after the masking.
        return f"… {mask_prose(text[-2 * _MAX_TRACEBACK :])[-_MAX_TRACEBACK:]}"
    except Exception as fault:
        return f"<the traceback cannot be read: {type(fault).__name__}>"
