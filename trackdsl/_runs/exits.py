"""What has made a program exit with a code that is not 0: the exception behind a `SystemExit`.

Hydra and click catch what a program raises, print it, and call `sys.exit(1)`. That exit says nothing about the error.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from trackdsl._core.events import Failure

#: Exceptions of click, and of typer's copy of it, that only ask for an exit; and the packages of both.
_EXITS = ("Exit", "Abort")
_CLICK = ("click", "typer")
#: How many exceptions are followed, and in how many of the last frames a message is looked for.
_MOST_CAUSES, _LAST_FRAMES = 100, 8
#: The classes whose method `error` prints its argument and exits; the names of that argument.
_PARSERS = {("argparse", "ArgumentParser"), ("optparse", "OptionParser")}
_MESSAGES = ("message", "msg")


class Exited(SystemExit):
    """A `SystemExit`, as far as it is remembered: without its traceback, whose frames would keep objects alive.

    Args:
        code: of the exit.
        status: of a run that it ends.
        failure: the description of what was behind it; None for a success.
    """

    def __init__(self, code: Any, status: str, failure: Failure | None) -> None:
        super().__init__(code)
        self.status = status
        self.failure = failure


def is_success(error: BaseException) -> bool:
    """Whether an exception is an exit with the code 0, as Python sees it.

    >>> is_success(SystemExit()), is_success(SystemExit(0)), is_success(SystemExit("")), is_success(SystemExit(2))
    (True, True, False, False)
    """
    if not _only_exits(error):
        return False
    code = error.code if isinstance(error, SystemExit) else getattr(error, "exit_code", 1)
    return code is None or code == 0


def reason_of(error: BaseException) -> BaseException:
    """The exception that a run has failed by; for an exit with a code, the one that the program was handling.

    A text or an exception as the code of an exit is the reason itself.

    >>> try:
    ...     try:
    ...         1 / 0
    ...     except ZeroDivisionError:
    ...         raise SystemExit(1)
    ... except SystemExit as error:
    ...     print(repr(reason_of(error)))
    ZeroDivisionError('division by zero')
    """
    if isinstance(error, SystemExit) and isinstance(error.code, BaseException):
        return error.code
    asked: BaseException = error
    found: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if found is None:
            break
        if not _only_exits(found):
            return found
        if not isinstance(found, SystemExit):
            asked = found  # It says where the program asked for the exit.
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return _kept_by_library(asked) if isinstance(asked, SystemExit) else asked


def exited_by_click(error: SystemExit) -> bool:
    """Whether click has called `sys.exit`, rather than the program, which click has called."""
    return any(_package(one.f_globals.get("__name__")) in _CLICK for one in [*_last_frames(error.__traceback__)][:1])


def _package(module: object) -> str:
    return str(module).partition(".")[0]


def _only_exits(error: BaseException) -> bool:
    if isinstance(error, SystemExit):
        return error.code is None or isinstance(error.code, int)
    kind = type(error)
    return kind.__name__ in _EXITS and _package(kind.__module__) in _CLICK


def _kept_by_library(error: SystemExit) -> BaseException:
    """What a library that has made the program exit had printed before; the exit itself if that is not known."""
    for frame in _last_frames(error.__traceback__):
        if frame.f_code.co_name == "main" and str(frame.f_globals.get("__name__")).endswith("click.core"):
            kept = getattr(frame.f_locals.get("report"), "__self__", None)
            if isinstance(kept, BaseException):
                return kept
        elif frame.f_code.co_name == "error" and _is_parser(frame.f_locals.get("self")):
            said = next((frame.f_locals[name] for name in _MESSAGES if name in frame.f_locals), "")
            if isinstance(said, str) and said:
                return SystemExit(f"{error.code} ({said})").with_traceback(error.__traceback__)
    return error


def _is_parser(value: object) -> bool:
    return any((kind.__module__, kind.__name__) in _PARSERS for kind in type(value).__mro__)


def _last_frames(trace: TracebackType | None) -> Iterator[FrameType]:
    """The last frames of a traceback, the innermost first."""
    frames: list[FrameType] = []
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    yield from frames[: -_LAST_FRAMES - 1 : -1]
