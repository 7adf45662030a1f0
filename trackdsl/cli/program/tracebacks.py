"""Hides our own frames in the traceback that ends a program, so that it looks as without trackdsl."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
from types import CodeType, FrameType, TracebackType
from typing import Any

import wrapt

from trackdsl._core import runtime
from trackdsl._core.runtime import Phase
from trackdsl._recording import printed
from trackdsl.distributed import _threads

_OWN = (os.path.dirname(__file__) + os.sep, printed.__file__, _threads.__file__)
#: Its hooks put a frame into each import that they watch.
_IMPORTER = os.path.join(os.path.dirname(wrapt.__file__), "importer.py")
_WRAPPERS = f"{os.sep}wrappers_importlib_bootstrap.py"
#: The ids of the functions that `trackdsl run --stage` has made stages.
_made_stages: set[int] = set()
runtime.register("stages of programs", Phase.MEMORY, reset=_made_stages.clear)


def hide_wrapper_of(function: object) -> None:
    """Hide the frames of the wrapper of a function, which the program itself has not decorated."""
    _made_stages.add(id(function))


def hide_own_frames(begins_below: CodeType) -> None:
    """Have the exception that ends the program shown without our frames.

    Args:
        begins_below: of the function that called the program. Everything above it is ours.
    """
    original = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        with contextlib.suppress(Exception):  # An exception may refuse attributes; it is shown in any case.
            _hide(BaseException.with_traceback(error, _below(begins_below, trace)), set())
            trace = sys.last_traceback = error.__traceback__
        original(kind, error, trace)

    sys.excepthook = excepthook


def hide_frames_in_threads() -> None:
    """Have the exceptions that end threads shown without our frames."""
    original = threading.excepthook

    def excepthook(args: Any, /) -> Any:
        with contextlib.suppress(Exception):
            _hide(args.exc_value, set())
            kept = (args.exc_type, args.exc_value, args.exc_value.__traceback__, args.thread)
            args = threading.ExceptHookArgs(kept)
        original(args)

    threading.excepthook = excepthook


def _below(code: CodeType, trace: TracebackType | None) -> TracebackType | None:
    at = trace
    while at is not None:
        if at.tb_frame.f_code is code:
            return at.tb_next
        at = at.tb_next
    return trace


def _hide(error: BaseException | None, seen: set[int]) -> None:
    """Remove our frames from an exception, and from those that it names."""
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        # Not as an attribute, which an exception may refuse.
        BaseException.with_traceback(one, without_own_frames(one.__traceback__))
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def without_own_frames(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames that the program would not have without `trackdsl run`."""
    steps: list[TracebackType] = []
    while trace is not None:
        steps.append(trace)
        trace = trace.tb_next
    own = [_is_own(step.tb_frame) for step in steps]
    for index, step in enumerate(steps):
        if step.tb_frame.f_code.co_filename == _IMPORTER:
            # Python hides its frames of an import, unless there is another one between them.
            own[index] = True
            for way in (-1, 1):
                beside = index + way
                while 0 <= beside < len(steps) and _is_importlib(steps[beside].tb_frame):
                    own[beside] = True
                    beside += way
    kept = [step for step, is_own in zip(steps, own, strict=True) if not is_own]
    for step, after in itertools.zip_longest(kept, kept[1:]):
        if step.tb_next is not after:
            step.tb_next = after
    return kept[0] if kept else None


def _is_importlib(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith("<frozen importlib.")


def _is_own(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if file.startswith(_OWN):
        return True
    if not file.endswith(_WRAPPERS):
        return False
    found = frame.f_locals
    return any(id(found.get(name)) in _made_stages for name in ("fn", "_trackdsl_fn"))
