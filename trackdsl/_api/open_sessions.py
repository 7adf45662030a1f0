"""The open sessions of this process, from `start_logging` to `stop_logging`, and what ends them.

A session is current in the thread or task that started it, and in everything started from there, like any scope. In
other threads, such as those that ran before the session, the session of the main thread is current as long as no other
session is open.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import threading
from types import CodeType, TracebackType
from typing import Any, TypeVar

from trackdsl._api.exit_hook import ExitWatch, RecoveredErrors, last_uncaught, watch_child
from trackdsl._core import context as _context
from trackdsl._core import runtime
from trackdsl._core.context import Scope
from trackdsl._core.events import Scalar
from trackdsl._core.redaction import mask_name
from trackdsl._core.runtime import Phase
from trackdsl._decorate import parentage as _parentage
from trackdsl._decorate.options import Options
from trackdsl._decorate.scopes import close_scope, open_scope
from trackdsl._decorate.source import Site
from trackdsl._recording.emit import fault
from trackdsl.errors import TrackdslError
from trackdsl.errors._user_code import calling_frame


class Session:
    """A session. It owns the scope of its run.

    Args:
        name: the name of its run.

    Attributes:
        name: the name of its run.
        scope: the scope of its run; None until it is open.
        ended: whether it has been ended.
        started_in: the thread and the task that started it.
    """

    #: Whether it lasts until the end of the program. `start_logging` and `stop_logging` do not end it.
    whole_program = False

    def __init__(self, name: str) -> None:
        self.name = mask_name(name)
        self.scope: Scope | None = None
        self.ended = False
        self._pid = os.getpid()
        self.started_in = _thread_and_task()
        self._began_in = _caller()
        self._handled = id(sys.exc_info()[1])
        self._last = id(last_uncaught())

    def started_here(self) -> bool:
        """Whether the current process, thread and task started it."""
        return self._pid == os.getpid() and self.started_in == _thread_and_task()

    def ending_exception(self) -> BaseException | None:
        """The exception that ends it: the one that is being handled here, or the one that has ended the program."""
        error = sys.exc_info()[1]
        if error is not None and id(error) != self._handled:
            return error
        if threading.main_thread().is_alive():
            return None
        error = last_uncaught()
        if error is None or id(error) == self._last or _recovered.holds(error, exits=_exit.error is not None):
            return _exit.error
        return error

    def began_in(self, trace: TracebackType | None) -> bool:
        """Whether a function in this traceback, which the exception has ended, started it."""
        while trace is not None:
            if (id(trace.tb_frame), trace.tb_frame.f_code) == self._began_in:
                return True
            trace = trace.tb_next
        return False

    def end(self, error: BaseException | None, status: str | None = None, reason: str | None = None) -> None:
        """End its run and its scope. Scopes inside of it stay open."""
        self.ended = True
        with contextlib.suppress(ValueError):
            open_sessions.remove(self)
        if not open_sessions:
            _exit.put_back()
            _recovered.put_back()
        if self.scope is not None:
            _context.take_out(self.scope)
            if status is not None:
                self.scope.run.end(status, reason)
            close_scope(self.scope, error)
            self.scope.owner = self  # The scope may still be current in other contexts.


def _end_at_once(error: BaseException | None) -> None:
    """End the sessions of a process that exits at once, such as a forked child."""
    for session in reversed(open_sessions[:]):
        session.end(error)


def _thread_failed(error: BaseException) -> None:
    """End the sessions that this thread started, as an exception has ended the thread."""
    for session in [each for each in reversed(open_sessions) if each.started_here()]:
        session.end(error)


_exit = ExitWatch(_end_at_once, _thread_failed)
_recovered = RecoveredErrors()
#: Returns a function that puts back what is known now of how the program may end.
outcome = _recovered.outcome
#: Remembers the exit that has ended the program, where it is caught.
program_ended_by = _exit.program_ended_by
#: The open sessions of this process, the latest last.
open_sessions: list[Session] = []


S = TypeVar("S", bound=Session)


def begin(options: Options, session: S, params: dict[str, Scalar] | None = None, site: Site | None = None) -> S | None:
    """Begin a session, and watch what may end it: the program, its thread, or its task.

    Args:
        options: of its run.
        session: the session, which has no scope yet.
        params: of its run.
        site: the origin of what its run records; None without one.

    Returns:
        the session; None after a fault, as the program continues without tracking.
    """
    experiment = None if options.name is None else mask_name(options.name)
    try:
        session.scope = open_scope(
            options, session.name, experiment, params or {}, options.static_tags(), site, session
        )
    except TrackdslError:
        raise
    except Exception as error:
        fault("starting a session", error)
        return None
    _add(session)
    return session


def _add(session: Session) -> None:
    _exit.take()
    _recovered.watch()
    watch_child(_at_exit, _task_failed)
    task = _task()
    if task is not None:
        task.add_done_callback(functools.partial(_end_with_task, session))
    open_sessions.append(session)


def session_to_end() -> Session | None:
    """The session that `stop_logging` ends."""
    scope = _context.current()
    while scope is not None:
        if isinstance(scope.owner, Session) and not scope.owner.ended and not scope.owner.whole_program:
            return scope.owner
        scope = scope.outer
    at_exit = not threading.main_thread().is_alive()
    found = [session for session in _started_by_calls() if at_exit or session.started_here()]
    return found[-1] if found else _only_started_by_call()


def leave_ended() -> None:
    """Leave the scopes of sessions that another context has ended: another thread, or a cell of a notebook."""
    scope = _context.current()
    while scope is not None and isinstance(scope.owner, Session) and scope.owner.ended:
        scope = scope.outer
        _context.enter(scope)


def session_to_replace() -> Session | None:
    """The session that the next one replaces."""
    scope = _context.current()
    if scope is not None and not isinstance(scope.owner, Session):
        return None
    # In a notebook, a cell may run in a context that was copied before the session began.
    found = [session for session in _started_by_calls() if session.started_here()]
    return found[-1] if found else None


def _started_by_calls() -> list[Session]:
    return [session for session in open_sessions if not session.whole_program]


def _thread_and_task() -> tuple[int, int]:
    """The current thread, and the id of the current asyncio task or greenlet; 0 for neither."""
    task = _task() or _greenlet()
    return threading.get_ident(), 0 if task is None else id(task)


def _task() -> Any:
    """The current asyncio task; None without one, and for a task in which a prompt runs the cells of a user."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        with contextlib.suppress(RuntimeError):
            task = asyncio.current_task()
            return None if task is None or _runs_cells(task) else task
    return None


def _greenlet() -> Any:
    """The current greenlet; None for the first one of a thread."""
    greenlets = sys.modules.get("greenlet")
    current = None if greenlets is None else greenlets.getcurrent()
    return None if current is None or current.parent is None else current


def _end_with_task(session: Session, task: Any) -> None:
    """End a session whose task has been ended by an exception."""
    if session in open_sessions:
        error = sys.modules["asyncio"].CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            session.end(error)


def _caller() -> tuple[int, CodeType]:
    """The frame that called into this package, and its code. Together they identify a live frame."""
    frame = calling_frame()
    return id(frame), frame.f_code


def _runs_cells(task: Any) -> bool:
    """Whether a task belongs to a Jupyter kernel or IPython, which run all cells in it."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and not {"ipykernel", "IPython"}.isdisjoint(code.co_filename.split(os.sep))


def only_session() -> Session | None:
    """The only open session, if the main thread started it and no asyncio task did; else that of the whole program."""
    return _only_started_by_call() or next((session for session in open_sessions if session.whole_program), None)


def _only_started_by_call() -> Session | None:
    whole = (threading.main_thread().ident, 0)
    started = _started_by_calls()
    return started[0] if len(started) == 1 and started[0].started_in == whole else None


def _scope_of_only() -> Scope | None:
    session = only_session()
    return None if session is None else session.scope


def _at_exit() -> None:
    for session in reversed(open_sessions[:]):
        session.end(session.ending_exception())


def _task_failed(error: BaseException) -> None:
    """End the sessions that the task of a process pool started, as an exception has ended the task."""
    for session in [each for each in reversed(open_sessions) if each.began_in(error.__traceback__)]:
        session.end(error)


def _after_fork() -> None:
    """Forget the sessions of the parent process, which ends them itself."""
    open_sessions.clear()
    _exit.put_back()


def _reset() -> None:
    for session in reversed(open_sessions[:]):
        session.end(None)


_parentage.ask_for_session(_scope_of_only)
# Registered after the exit function of `_target`, so it runs first: that one waits until the ends of runs are
# delivered.
atexit.register(_at_exit)
runtime.register("sessions", Phase.SESSIONS, after_fork=_after_fork, reset=_reset)
