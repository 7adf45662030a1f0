"""A program that ends by `raise SystemExit`, whose exit code Python shows to nobody.

After a script, Python flushes its standard streams before it looks at the exception, which is not in reach but alive.
There it is found among the objects of the garbage collector. After `python -m` and `python -c` nothing is flushed then.
"""

from __future__ import annotations

import dis
import gc
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

from trackdsl._recording.printed import follow_flushes
from trackdsl._runs.exceptions import remembered
from trackdsl._runs.exits import Exited
from trackdsl.errors import format_error, logger, reraise_from_signal

#: How many frames of other libraries there may be between a flush by Python and ours.
_MOST_FRAMES = 4


class RaisedExits:
    """Finds the `SystemExit` that ends a script while a session is open."""

    def __init__(self) -> None:
        #: The exit, once the program has ended.
        self.error: Exited | None = None
        self._main: FrameType | None = None
        self._restore: list[Callable[[], None]] = []

    def follow(self) -> None:
        """Look for it when the program has ended."""
        self.error = None
        self._main = outermost(sys._current_frames().get(threading.main_thread().ident or 0))
        if self._main is None or hasattr(sys, "ps1"):  # At a prompt, no script ends.
            return
        # A program may replace one of them.
        for stream in (sys.stderr, sys.stdout):
            if hasattr(stream, "__dict__") and not type(stream).__module__.startswith("ipykernel"):
                self._restore.append(follow_flushes(stream, self._look))

    def leave(self) -> None:
        """Stop looking."""
        self._main = None
        while self._restore:
            self._restore.pop()()

    def _look(self) -> None:
        frame: FrameType | None = sys._getframe(1)
        for _ in range(_MOST_FRAMES):
            if frame is None:
                break
            frame = frame.f_back
        if frame is None and self._main is not None and threading.current_thread() is threading.main_thread():
            try:
                self._find(self._main)
            except Exception as error:
                reraise_from_signal(error)
                logger.debug("trackdsl cannot find out how the program ends: %s", format_error(error))

    def _find(self, main: FrameType) -> None:
        here = outermost(sys._getframe())
        if here is main or self.error is not None or has_returned(main):
            return
        # The youngest objects first, and among them the ones that were made last.
        for generation in range(3):
            near = [one for one in gc.get_objects(generation) if isinstance(one, (SystemExit, TracebackType))]
            exits = (one for one in reversed(near) if isinstance(one, SystemExit) and not isinstance(one, Exited))
            found = next(exits, None)
            if found is not None:
                traces = (one for one in reversed(near) if isinstance(one, TracebackType) and one.tb_frame is main)
                self.error = remembered(_copy_of(found, next(traces, None)))
                return


def _copy_of(error: SystemExit, trace: TracebackType | None) -> SystemExit:
    """An exit as it will have been: Python gives it its traceback only if it is caught."""
    made = SystemExit(error.code).with_traceback(error.__traceback__ or trace)
    made.__context__, made.__cause__ = error.__context__, error.__cause__
    made.__suppress_context__ = error.__suppress_context__
    return made


def outermost(frame: FrameType | None) -> FrameType | None:
    """The frame that has called all others, up to this one."""
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return frame


def has_returned(frame: FrameType) -> bool:
    """Whether a frame that has ended returned, rather than raised."""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith("RETURN_")
