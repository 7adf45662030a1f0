"""A debugger shows and steps through the program as under `python`, and not through trackdsl."""

from __future__ import annotations

import atexit
import functools
import os
import sys
from types import FrameType, ModuleType
from typing import Any

import trackdsl
from trackdsl._core import runtime
from trackdsl._core.patching import when_imported
from trackdsl._core.runtime import Phase

#: Where our files are.
_PACKAGE = os.path.dirname(trackdsl.__file__) + os.sep
#: The frames of the command, which call the program.
_around: list[FrameType] = []
runtime.register("the frames around a program", Phase.MEMORY, reset=_around.clear)


def hide_callers() -> None:
    """Hide trackdsl from `pdb`, and from debuggers that build on it: the frames around the caller, and other ones."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        _around.append(frame)
        frame = frame.f_back
    # Cleared at exit: they hold the program's module, whose objects would outlive `sys.stdout`. Exit functions of the
    # program itself run before.
    atexit.register(_around.clear)
    when_imported("bdb", _patch)


def _patch(bdb: ModuleType) -> None:
    kind: Any = bdb.Bdb
    get_stack, stop_here = kind.get_stack, kind.stop_here
    # As local names: a debugger still runs while Python ends, when it has cleared the modules.
    package, around = _PACKAGE, _around

    def is_own(frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(package) or any(frame is one for one in around)

    @functools.wraps(get_stack)
    def shown_stack(*args: Any, **kwargs: Any) -> Any:
        stack, index = get_stack(*args, **kwargs)
        shown = [entry for entry in stack if not is_own(entry[0])]
        index -= sum(is_own(frame) for frame, _ in stack[:index])
        return (shown, min(index, len(shown) - 1)) if shown else (stack, index)

    @functools.wraps(stop_here)
    def stops_here(self: Any, frame: FrameType) -> bool:
        return not is_own(frame) and bool(stop_here(self, frame))

    kind.get_stack, kind.stop_here = shown_stack, stops_here
