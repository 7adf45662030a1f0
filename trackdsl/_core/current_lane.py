"""The thread and the task that this code runs in, which timelines show as lanes.

Every run that begins asks for them, so the usual case, the main thread without a task, costs only a few look-ups. A
library that is not imported has no tasks, and is not imported here.
"""

from __future__ import annotations

import sys
import threading
from pathlib import PurePath
from sys import modules
from threading import get_ident
from typing import TYPE_CHECKING, Any

from trackdsl._core import runtime
from trackdsl._core.events import Lane
from trackdsl._core.redaction import mask_name
from trackdsl._core.runtime import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

#: In characters; of the name of a thread or task.
LONGEST_NAME = 100
_UNKNOWN: Lane = ("", -1, "", 0)


class _Here(threading.local):
    """The lane of each thread, None for the main thread, and what has the name that it was made from."""

    lane: Lane | None = _UNKNOWN
    thread: Any = None
    name: Any = None

    def is_renamed(self) -> bool:
        """Whether the thread has a new name; pools, such as trio's, may name a thread anew for each call."""
        try:
            return self.thread is not None and self.thread.name is not self.name
        except Exception:  # A thread of another class may have no name.
            return False


_here = _Here()
#: The latest name of a task that asyncio chose, and what is recorded of it.
_latest: tuple[str, str] = ("", "")
#: Packages that execute the cells of a notebook, each in a task of theirs, one after the other.
_KERNELS = {"ipykernel", "IPython", "marimo"}


def _first_running_loop() -> object | None:
    """Asyncio's running loop, as far as asyncio is imported; from then on, its own functions are used."""
    global _running_loop, _current_task
    asyncio: Any = modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        # It is meant for event loops, and the only function that does not raise where no loop runs.
        running_loop, current_task = asyncio._get_running_loop, asyncio.current_task
        if sys.version_info < (3, 12):  # There, `current_task` is written in Python.
            current_task = asyncio.tasks._current_tasks.get
    except AttributeError:  # It is being imported.
        return None
    _running_loop, _current_task = running_loop, current_task
    return _running_loop()


_running_loop: Callable[[], object | None] = _first_running_loop
_current_task: Callable[[object], Any] = id


def lane_here() -> Lane | None:
    """The lane of a run that begins here; None in the main thread without a task. It raises no error."""
    lane = _here.lane
    if lane is not None and (lane is _UNKNOWN or _here.is_renamed()):
        lane = _lane_of_thread()
    if (loop := _running_loop()) is not None:
        try:
            task = _current_task(loop)
            if task is not None:
                name = task.get_name()
                known, shown = _latest
                if name is not known:
                    shown = _name_of_task(task, name)
                if shown:
                    lane = ("", 0, shown, id(task)) if lane is None else (lane[0], lane[1], shown, id(task))
        except Exception:  # A task of another class may have no name.
            return lane
    if "trio" in modules:
        lane = _in_trio(lane)
    return lane


def _lane_of_thread() -> Lane | None:
    ident = get_ident()
    if ident == threading.main_thread().ident:
        _here.lane = None
        return None
    lane: Lane = ("", ident, "", 0)
    try:
        # `current_thread` would add a thread of another language to those that the program sees.
        thread = vars(threading)["_active"].get(ident)
        if thread is None and (greenlet := _lane_of_greenlet()) is not None:
            return greenlet
        if thread is not None:
            _here.thread, _here.name = thread, thread.name
            lane = (_shown(_here.name), thread.native_id or ident, "", 0)
    except Exception:  # A thread of another class may have no name.
        return lane
    _here.lane = lane
    return lane


def _name_of_task(task: Any, name: str) -> str:
    global _latest
    shown = "" if ("IPython" in modules or "marimo" in modules) and _is_of_kernel(task) else name
    # Names with a number are many, and contain no secret.
    if name[:5] != "Task-" or not name[5:].isdecimal() or type(name) is not str:
        return _shown(shown)
    _latest = name, shown
    return shown


def _is_of_kernel(task: Any) -> bool:
    """Whether a notebook's kernel made a task, to execute a cell in it."""
    file = getattr(getattr(task.get_coro(), "cr_code", None), "co_filename", "")
    return not _KERNELS.isdisjoint(PurePath(file).parts)


def _in_trio(lane: Lane | None) -> Lane | None:
    try:
        trio: Any = modules["trio"].lowlevel
        if not trio.in_trio_task():
            return lane
        task = trio.current_task()
        thread, thread_id = ("", 0) if lane is None else lane[:2]
        return thread, thread_id, _shown(task.name), id(task)
    except Exception:  # It is being imported, or an old version.
        return lane


def _lane_of_greenlet() -> Lane | None:
    """The lane of a greenlet, if gevent has replaced threads by greenlets."""
    try:
        greenlet: Any = modules["gevent"].getcurrent()
        return "", 0, _shown(greenlet.name), id(greenlet)
    except Exception:  # There is no gevent, or it has not begun this greenlet.
        return None


def _shown(name: str) -> str:
    """A name that can be recorded: a plain text, masked and not long."""
    plain = name if type(name) is str else str.__str__(name)
    return mask_name(plain if len(plain) <= LONGEST_NAME else f"{plain[: LONGEST_NAME - 1]}…")


def _after_fork() -> None:
    _here.lane = _here.thread = None  # The thread that forked is the child's main thread.


runtime.register("the current thread", Phase.IDENTITY, after_fork=_after_fork)
