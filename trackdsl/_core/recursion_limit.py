"""The frames of wrappers do not count against the program's recursion limit.

A decorated call takes one more frame, and Python counts all frames alike. Where many of them are ours, the limit is
raised by their number, and lowered again when the calls return. So a decorated recursion goes as deep as an undecorated
one, and an endless recursion still ends with a `RecursionError`.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from types import CodeType, FrameType

from trackdsl._core import runtime
from trackdsl._core.runtime import ForkSafeLock, Phase

#: The limit is raised for stacks with at least this many wrappers. The stack is measured at every call of this number.
EVERY = 16
#: Further frames: for the wrappers until the next measurement, and for the functions that these call to record.
_SLACK = 64
#: The source files that define wrappers.
_wrapper_files: set[str] = set()
#: The file name that cloudpickle, from 3.1.2 on, gives to all functions that it pickles by value.
_BY_VALUE = "<dynamic-code>"

#: True, but False at every 16th call: then the real stack depth is measured. Calls without a scope need this.
shallow = itertools.cycle([True] * (EVERY - 1) + [False]).__next__

# Re-entrant: the garbage collector may close a generator in the middle, which releases its budget too.
_lock = ForkSafeLock(threading.RLock)
_open: set[RecursionBudget] = set()
#: Limit that we set → the program's own limit. A program may restore a limit that it has read, which is ours then.
_own: dict[int, int] = {}


class RecursionBudget:
    """A raised recursion limit, from `raise_limit` to `release`.

    Args:
        frames: the number of our own frames, by which the limit is raised.

    Attributes:
        thread: the id of the thread that raised it.
        released: whether the limit may be lowered again.
    """

    __slots__ = ("frames", "released", "thread")

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.released = False
        self.thread = threading.get_ident()


class deeper:  # noqa: N801 - lower case, as it is used like a function: `with deeper()`
    """A `with` block inside which the limit is raised, if our own frames fill the stack."""

    __slots__ = ("_budget",)

    def __enter__(self) -> None:
        self._budget = raise_limit()

    def __exit__(self, *_: object) -> None:
        release(self._budget)


class _Stack:
    """What wrappers call. Pickled functions refer to its names, so these stay.

    It is an object, because cloudpickle searches `sys.modules` for each module that a function uses.
    """

    __slots__ = ()

    shallow = staticmethod(shallow)
    deeper = deeper

    def __reduce__(self) -> str:
        return "stack"


stack = _Stack()


def raise_limit() -> RecursionBudget | None:
    """Raise the recursion limit by the number of wrappers on this stack, if they are many and the stack is half full.

    The limit is one for the whole process, so the deepest stack decides.
    """
    budget = None
    try:
        limit = sys.getrecursionlimit()
        own = _own.get(limit, limit)
        try:
            sys._getframe(own // 2)
        except ValueError:
            return None
        budget = RecursionBudget(_count())
        if budget.frames < EVERY:
            return None
        _open.add(budget)
        _settle()
    except RecursionError:  # The stack is full: there are no frames left to raise the limit.
        if budget is not None:
            budget.released = True
        return None
    return budget


def release(budget: RecursionBudget | None) -> None:
    """Lower the limit that `raise_limit` raised."""
    if budget is not None:
        budget.released = True
        with contextlib.suppress(RecursionError):  # The next release, by an outer call, lowers the limit.
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
    if code.co_filename == _BY_VALUE:  # Every wrapper begins with a check of `suppression.on`, which was `quiet.on`.
        names = code.co_names
        return names[1:3] in (("on", "here"), ("on", "off")) and names[0].endswith(("suppression", "quiet"))
    return code.co_filename in _wrapper_files


def register_wrappers(code: CodeType) -> None:
    """Count the frames of all functions that are defined in the same file as wrappers.

    Args:
        code: of a function in that file.
    """
    _wrapper_files.add(code.co_filename)


def _settle() -> None:
    """Set the limit that the open budgets need, or the program's own where none is open."""
    with _lock.current:
        _open.difference_update([budget for budget in _open if budget.released])
        now = sys.getrecursionlimit()
        own = _own.get(now, now)
        limit = own + max(budget.frames for budget in _open) + _SLACK if _open else own
        if limit != now:
            sys.setrecursionlimit(limit)
        if _open:
            _own[limit] = own
        else:
            _own.clear()


def _release_others() -> None:
    """Release the budgets of other threads, which a forked child does not have."""
    for budget in _open:
        budget.released = budget.released or budget.thread != threading.get_ident()
    _settle()


runtime.register("the recursion limit", Phase.MEMORY, after_fork=_release_others)
