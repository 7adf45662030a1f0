"""The exception that ended a run → MLflow's run status, and a description of the exception."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any

from trackdsl._core import runtime
from trackdsl._core.events import Failure
from trackdsl._core.redaction import mask_prose
from trackdsl._core.runtime import Phase
from trackdsl._core.source_text import leave_pipe_unread
from trackdsl._core.suppression import suppression
from trackdsl._runs.exits import Exited, exited_by_click, is_success, reason_of
from trackdsl.errors._user_code import PACKAGE

FINISHED = "FINISHED"
FAILED = "FAILED"
KILLED = "KILLED"

STATUSES = (FINISHED, FAILED, KILLED)

_MAX_FRAMES = 100
_MAX_MESSAGE = 4000
#: Masking takes time in the program, and the size of an event is limited.
_MAX_TRACEBACK = 200_000


def status_of(error: BaseException) -> str:
    """The status of a run that ended with `error`.

    >>> status_of(SystemExit(0)), status_of(KeyboardInterrupt()), status_of(ValueError())
    ('FINISHED', 'KILLED', 'FAILED')
    """
    if isinstance(error, Exited):
        return error.status
    if is_success(error):
        return FINISHED
    reason = reason_of(error)
    if reason is not error or isinstance(error, SystemExit):
        # A program may exit with a code because of Ctrl-C.
        return KILLED if isinstance(reason, KeyboardInterrupt) else FAILED
    if isinstance(error, Exception):
        return FINISHED if _is_pruning(error) else FAILED
    # KeyboardInterrupt, asyncio.CancelledError, trio.Cancelled: the call was stopped from outside.
    return KILLED


def remembered(error: BaseException, click: Exited | None = None) -> Exited:
    """An exception as an exit without a traceback, but with the description of what was behind it.

    Args:
        error: the exception.
        click: what click has caught last, and may have exited for.
    """
    code = error.code if isinstance(error, SystemExit) else 1
    if click is not None and isinstance(error, SystemExit) and not is_success(error) and exited_by_click(error):
        return Exited(code, click.status, click.failure)
    return Exited(code, status_of(error), describe(error))


def _is_pruning(error: Exception) -> bool:
    """Whether the exception is Optuna's, which ends a pruned trial early and is not a failure."""
    return any(
        kind.__name__ == "TrialPruned" and kind.__module__.partition(".")[0] == "optuna" for kind in type(error).__mro__
    )


def describe(error: BaseException) -> Failure | None:
    """Type, message and traceback, with secrets masked; None for an exit with the code 0.

    Where an exit hides another exception, it is that exception which is described.
    """
    if isinstance(error, Exited):
        return error.failure
    if is_success(error):
        return None
    thread = suppression.begin()
    try:
        return _described(reason_of(error))
    finally:
        suppression.end(thread)


def _described(error: BaseException) -> Failure:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return Failure(name, mask_prose(_message(error)[: 4 * _MAX_MESSAGE])[:_MAX_MESSAGE], _traceback(error))


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as fault:
        return f"<the message cannot be read: {type(fault).__name__}>"


def _last_frames(trace: TracebackType | None) -> TracebackType | None:
    """The last frames of a traceback. The module `traceback` would walk all frames, at every level of a recursion."""
    ahead = trace
    for _ in range(_MAX_FRAMES):
        ahead = None if ahead is None else ahead.tb_next
    while ahead is not None and trace is not None:
        ahead, trace = ahead.tb_next, trace.tb_next
    return trace


class _FormattedOnce(traceback.StackSummary):
    """The frames of a traceback, which are formatted once."""

    def format(self, **options: Any) -> list[str]:
        """See `traceback.StackSummary`."""
        if not hasattr(self, "_lines"):
            self._lines = super().format(**options)
        return self._lines


#: The frames of the last deep traceback. An endless recursion has a thousand levels, whose tracebacks end alike.
_deep_stack: dict[tuple[Any, ...], _FormattedOnce] = {}
runtime.register("the last deep traceback", Phase.MEMORY, reset=_deep_stack.clear)


def _positions(trace: TracebackType | None) -> tuple[Any, ...]:
    positions = []
    while trace is not None:
        positions.append((id(trace.tb_frame.f_code), trace.tb_lasti, trace.tb_lineno))
        trace = trace.tb_next
    return tuple(positions)


def _leave_pipes_unread(error: BaseException) -> None:
    """See to it that no pipe is read for the source lines of a traceback and of its causes."""
    met: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in met:
            continue
        met.add(id(one))
        waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
        trace = _last_frames(one.__traceback__)
        while trace is not None:
            leave_pipe_unread(trace.tb_frame.f_code.co_filename)
            trace = trace.tb_next


def _traceback(error: BaseException) -> str:
    try:
        _leave_pipes_unread(error)
        last = _last_frames(error.__traceback__)
        deep = last is not error.__traceback__
        known = _deep_stack.get(_positions(last)) if deep else None
        summary = traceback.TracebackException(
            type(error), error, None if known else last, limit=-_MAX_FRAMES, compact=True
        )
        summary.stack = known or _FormattedOnce(
            [frame for frame in summary.stack if not frame.filename.startswith(PACKAGE)]
        )
        if deep and not known:
            _deep_stack.clear()
            _deep_stack[_positions(last)] = summary.stack
        text = "".join(summary.format())
        if len(text) <= _MAX_TRACEBACK:
            return mask_prose(text)
        # Mask before the cut: half of a secret would not be recognized.
        return f"… {mask_prose(text[-2 * _MAX_TRACEBACK :])[-_MAX_TRACEBACK:]}"
    except Exception as fault:
        return f"<the traceback cannot be read: {type(fault).__name__}>"
