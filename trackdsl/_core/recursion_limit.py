"""Room on the stack: a decorated call takes a frame more, which is not to count against the program's recursion limit.

Python counts frames and knows nothing of whose they are. Where many of them are ours, the limit is raised by as many,
and lowered again on the way out; so a recursion goes as deep as undecorated, and one without end still ends.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from types import CodeType, FrameType

from trackdsl._core.runtime import ForkSafeLock

#: How many wrappers there are at least on a stack for which the limit is raised, and at most between two looks at it.
EVERY = 16
#: Frames beyond those of wrappers: for the wrappers up to the next look, and for what these call to record.
_SLACK = 64
#: The files that define wrappers.
_wrapper_files: set[str] = set()
#: What cloudpickle, from 3.1.2 on, gives as the file of all functions that travel by value.
_BY_VALUE = "<dynamic-code>"

#: False at every 16th question: when to look at the stack where no scope tells how deep it is.
shallow = itertools.cycle([True] * (EVERY - 1) + [False]).__next__

# Re-entrant: a generator that is collected in the middle gives its room back too.
_lock = ForkSafeLock(threading.RLock)
_open: set[Room] = set()
#: The program's own limit, by what we have made of it: a program may put back the limit that it has found.
_own: dict[int, int] = {}


class Room:
    """A recursion limit that is raised, from `deepen` to `release`.

    Args:
        frames: how many of our own frames it is raised by.
    """

    __slots__ = ("frames", "released")

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.released = False


class deeper:  # noqa: N801 - reads as a word in `with deeper()`
    """Raises the limit, where our own frames fill the stack, for the length of a `with` block."""

    __slots__ = ("_room",)

    def __enter__(self) -> None:
        self._room = deepen()

    def __exit__(self, *_: object) -> None:
        release(self._room)


class _Stack:
    """What wrappers ask. An object, as cloudpickle looks through `sys.modules` for each module that they refer to."""

    __slots__ = ()

    shallow = staticmethod(shallow)
    deeper = deeper

    def __reduce__(self) -> str:
        return "stack"


stack = _Stack()


def deepen() -> Room | None:
    """Raise the recursion limit by the frames that wrappers take on this stack, if these are many and it is half full.

    The limit is one for the whole process, so it is the deepest stack that counts.
    """
    room = None
    try:
        limit = sys.getrecursionlimit()
        own = _own.get(limit, limit)
        try:
            sys._getframe(own // 2)
        except ValueError:
            return None
        room = Room(_count())
        if room.frames < EVERY:
            return None
        _open.add(room)
        _settle()
    except RecursionError:  # There is no room even for this.
        if room is not None:
            room.released = True
        return None
    return room


def release(room: Room | None) -> None:
    """Give back what `deepen` gave."""
    if room is not None:
        room.released = True
        with contextlib.suppress(RecursionError):  # Whoever is next to give one back, further out, sees to it.
            _settle()


def _count() -> int:
    frame: FrameType | None = sys._getframe()
    count = 0
    while frame is not None:
        if _is_wrapper(frame.f_code):
            count += 1
        frame = frame.f_back
    return count


def _is_wrapper(code: CodeType) -> bool:
    if code.co_filename == _BY_VALUE:  # All wrappers begin by asking whether tracking is switched off here.
        return code.co_names[1:3] == ("on", "here") and code.co_names[0].endswith("quiet")
    return code.co_filename in _wrapper_files


def register_wrappers(code: CodeType) -> None:
    """Count the frames of all functions that are defined in the same file as wrappers.

    Args:
        code: of a function in that file.
    """
    _wrapper_files.add(code.co_filename)


def _settle() -> None:
    """Make the limit what the open rooms need, and the program's own where there are none."""
    with _lock.current:
        _open.difference_update([room for room in _open if room.released])
        now = sys.getrecursionlimit()
        own = _own.get(now, now)
        limit = own + max(room.frames for room in _open) + _SLACK if _open else own
        if limit != now:
            sys.setrecursionlimit(limit)
        if _open:
            _own[limit] = own
        else:
            _own.clear()
