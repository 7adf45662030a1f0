"""`start_logging` and `stop_logging`: a run that begins at one call and ends at another.

A session is current where it was started, and in what is started from there, as every scope. Where nothing is current,
such as in threads that were there before it, that of the main thread is, as long as it is the only one that is open.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, TracebackType
from typing import Any, Literal

from trackdsl._api.configure import configure
from trackdsl._api.exit_hook import ExitWatch, Mended, last_uncaught, watch_child
from trackdsl._api.session_options import KEYS, Choice, SessionSettings, checked, choose, told_by
from trackdsl._config import resolve as settings
from trackdsl._config.state import state
from trackdsl._core import context as _context
from trackdsl._core import runtime
from trackdsl._core.context import Scope
from trackdsl._core.missing_call import explained, explained_with_config
from trackdsl._core.redaction import mask_name
from trackdsl._core.runtime import Phase
from trackdsl._core.suppression import quiet
from trackdsl._decorate import parentage as _roots
from trackdsl._decorate.call import close_scope, open_scope
from trackdsl._decorate.options import Options
from trackdsl._recording.emit import fault
from trackdsl._runs.exceptions import FINISHED, status_of
from trackdsl._runs.run import NULL_RUN, Run, checked_status
from trackdsl.errors import (
    OptionError,
    TrackdslError,
    TrackingServerError,
    TrackingServerUnreachable,
    as_mlflows,
    logger,
)
from trackdsl.errors._user_code import calling_frame
from trackdsl.journal._target import Target, overridden, target_for

_OFFLINE = ("raise", "spool")
#: What settings say to the whole program, and not of a run.
_PROGRAM = tuple(name for name in settings.NAMES if name not in ("tracking_uri", "experiment_name"))


class _Session:
    """An open session; the owner of its scope.

    Attributes:
        name: of its run.
        scope: the scope it opened.
        ended: it is open no more.
        place: the thread and the task that started it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.scope: Scope | None = None
        self.ended = False
        self._pid = os.getpid()
        self.place = _place()
        self._began_in = _caller()
        self._handled = id(sys.exc_info()[1])
        self._last = id(last_uncaught())

    def is_of_here(self) -> bool:
        """Whether it was started in this process, thread and task."""
        return self._pid == os.getpid() and self.place == _place()

    def what_ends_it(self) -> BaseException | None:
        """The exception on its way where `stop_logging` is called in a `finally`, or that has ended the program."""
        error = sys.exc_info()[1]
        if error is not None and id(error) != self._handled:
            return error
        if threading.main_thread().is_alive():
            return None
        error = last_uncaught()
        if error is None or id(error) == self._last or _mended.holds(error, exits=_exit.error is not None):
            return _exit.error
        return error

    def began_in(self, trace: TracebackType | None) -> bool:
        """Whether it was started by a function that an exception has ended, by its traceback."""
        while trace is not None:
            if (id(trace.tb_frame), trace.tb_frame.f_code) == self._began_in:
                return True
            trace = trace.tb_next
        return False

    def end(self, error: BaseException | None, status: str | None = None, reason: str | None = None) -> None:
        """End its run, and take it out of the scopes, also from within others."""
        self.ended = True
        with contextlib.suppress(ValueError):
            _open.remove(self)
        if not _open:
            _exit.put_back()
            _mended.put_back()
        if self.scope is not None:
            _context.take_out(self.scope)
            if status is not None:
                self.scope.run.end(status, reason)
            close_scope(self.scope, error)
            self.scope.owner = self  # Other contexts may have it as theirs still.


def _end_at_once(error: BaseException | None) -> None:
    """End the sessions of a process that runs nothing more, such as a forked child."""
    for session in reversed(_open[:]):
        session.end(error)


def _thread_failed(error: BaseException) -> None:
    """End the sessions that this thread has begun and left open by an exception."""
    for session in [each for each in reversed(_open) if each.is_of_here()]:
        session.end(error)


_exit = ExitWatch(_end_at_once, _thread_failed)
_mended = Mended()
#: The sessions of this process that are open, the latest last.
_open: list[_Session] = []


@explained_with_config(KEYS)
def start_logging(
    exp_name: str,
    project: str | None = None,
    backend: str | Iterable[str] = "mlflow",
    config: Mapping[str, Any] | None = None,
    settings: SessionSettings | None = None,
    *,
    offline: Literal["raise", "spool"] = "raise",
) -> Run:
    """Begin a run that goes on until `stop_logging()`, for scripts that prefer calls to blocks.

    What is recorded meanwhile lands on it: by trackdsl's words, stages (as its children), plain MLflow and autologging.
    A session that this thread has still open is ended first; inside a stage the run is a child of that. If the program
    crashes it is `FAILED`, if it is killed `KILLED`; at the end of the program it ends by itself.

    Args:
        exp_name: the name of the run.
        project: what it belongs to: the tag `project`, and the MLflow experiment where nobody names one.
        backend: `"mlflow"`; there is no other.
        config: any of `tracking_uri`, `experiment_name` (the MLflow experiment, made if need be), `run_name` (instead
            of `exp_name`), `tags`, and `run_id` (a run to go on with, instead of a new one). It counts before
            everything else.
        settings: a `trackdsl.Settings`, or `TraceletSettings` of `trackdsl.compat.tracelet`. What they say besides
            where the run goes, such as `mode`, is for the rest of the program, as with `configure`.
        offline: what to do where the tracking server cannot be reached, is overloaded or has a fault (429, 5xx), or
            refuses the credentials (401, 403): `"raise"`, or `"spool"` to record now and deliver later.

    Returns:
        the run.

    Raises:
        OptionError: a key of `config`, a backend or an option that does not exist.
        TrackingServerUnreachable: nobody answers at the tracking URI within five seconds; nothing is left behind.
        TrackingServerError: what answers there refuses, or is no MLflow server.
        ExperimentDeleted: the MLflow experiment is deleted.
        RunNotFound: the run that is to go on is deleted, or not there.
        SettingsError: a setting has a value that it cannot have.

    Errors of the tracking server, the experiment and the run are `mlflow.exceptions.MlflowException`s too where the
    program has imported MLflow.

    Example:
        >>> run = start_logging("resnet-baseline", project="vision", config={"tags": {"team": "cv"}})  # doctest: +SKIP
        >>> run.log_metric("loss", 0.25, iteration=3)  # doctest: +SKIP
        >>> stop_logging()  # doctest: +SKIP
    """
    if offline not in _OFFLINE:
        raise OptionError(f"start_logging(offline=...) takes 'raise' or 'spool', not {offline!r}.", option="offline")
    told = told_by(settings)
    choice = choose(exp_name, project, backend, checked(config), told)
    with _configured({name: value for name, value in told.items() if name in _PROGRAM}):
        if quiet.on and quiet.here():
            return NULL_RUN
        options = Options.checked(
            "experiment",
            choice.experiment,
            {
                # A run that goes on keeps its name, unless it was given another as such.
                "run_name": None if choice.run_id is not None and not choice.renames else choice.run_name,
                "tags": choice.tags,
                "tracking_uri": choice.tracking_uri,
                "run_id": choice.run_id,
            },
        )
        _leave_ended()
        previous = _previous()
        _check(choice, previous, offline)
        if previous is not None:
            _end_previous(previous, choice.run_name)
        return _begin(options, choice.run_name)


@explained
def stop_logging(status: str | None = None, reason: str | None = None) -> None:
    """End the session that was started last here; where there is none, nothing happens.

    In a `finally`, or in an `atexit` function of a program that crashes, the run is `FAILED`.

    Args:
        status: how it is to end, whatever happened: `FINISHED`, `FAILED` or `KILLED`.
        reason: why, in a sentence: the tag `trackdsl.ended`.

    Raises:
        OptionError: there is no such status.

    Example:
        >>> stop_logging(status="FAILED", reason="the loss diverged")
    """
    status = None if status is None else checked_status(status, "stop_logging(status=...)")
    session = _current()
    if session is not None:
        error = session.what_ends_it()
        if reason is not None and status is None:
            status = FINISHED if error is None else status_of(error)
        session.end(error, status, reason)
    _leave_ended()


def _begin(options: Options, name: str) -> Run:
    session = _Session(mask_name(name))
    experiment = None if options.name is None else mask_name(options.name)
    try:
        session.scope = open_scope(options, session.name, experiment, {}, options.static_tags(), None, session)
    except TrackdslError:
        raise
    except Exception as error:  # A fault in tracking is no reason not to go on.
        fault("starting a session", error)
        return NULL_RUN
    _exit.take()
    _mended.watch()
    watch_child(_at_exit, _task_failed)
    task = _task()
    if task is not None:
        task.add_done_callback(functools.partial(_end_with_task, session))
    _open.append(session)
    run: Run = session.scope.run
    return run


@contextlib.contextmanager
def _configured(chosen: Mapping[str, Any]) -> Iterator[None]:
    """Configure the program, unless what follows fails."""
    before = settings.configured()
    if chosen:
        configure(**chosen)
    try:
        yield
    except BaseException:
        if chosen:
            settings.restore(before)
            state.refresh()
        raise


def _check(choice: Choice, previous: _Session | None, offline: str) -> None:
    """Ask the store, where a root run is to go to one now."""
    if overridden() or settings.mode() != "online":
        return
    target, experiment = _destination(choice, previous)
    if target is None or target.discards:
        return
    from trackdsl._runs.resumable import check_run
    from trackdsl._server.reachable import check  # They bring what programs without sessions need not wait for.

    try:
        check(target.uri, experiment)
        if choice.run_id is not None:
            check_run(target.uri, choice.run_id if isinstance(choice.run_id, str) else choice.run_id.id)
    except TrackingServerError as error:
        # Credentials can be set later too; what is wrong for good cannot.
        if offline == "raise" or not (isinstance(error, TrackingServerUnreachable) or error.status in (401, 403)):
            raise as_mlflows(error) from None
        reason = error.reason if isinstance(error, TrackingServerUnreachable) else str(error)
        logger.warning("%s The run %r is recorded, and delivered once it answers.", reason, choice.run_name)
    except TrackdslError as error:
        raise as_mlflows(error) from None


def _destination(choice: Choice, previous: _Session | None) -> tuple[Target | None, str | None]:
    """The target and the experiment of a root run; no target where it is to be a child."""
    outer = _context.current()
    while outer is not None and previous is not None and outer.owner is previous:
        outer = outer.outer
    if outer is None and previous is not None:
        return target_for(choice.tracking_uri), choice.experiment or settings.experiment_name()
    parent, target, experiment = _roots.place(outer, choice.tracking_uri, choice.experiment)
    return (None if parent is not None else target), experiment


def _current() -> _Session | None:
    """The session that is meant where no other word is said."""
    scope = _context.current()
    while scope is not None:
        if isinstance(scope.owner, _Session) and not scope.owner.ended:
            return scope.owner
        scope = scope.outer
    at_exit = not threading.main_thread().is_alive()
    found = [session for session in _open if at_exit or session.is_of_here()]
    return found[-1] if found else _only()


def _leave_ended() -> None:
    """Leave the scopes of sessions that were ended from another context: another thread, or a cell of a notebook."""
    scope = _context.current()
    while scope is not None and isinstance(scope.owner, _Session) and scope.owner.ended:
        scope = scope.outer
        _context.enter(scope)


def _previous() -> _Session | None:
    """The session that the next one takes the place of."""
    scope = _context.current()
    if scope is not None and not isinstance(scope.owner, _Session):
        return None
    # In a notebook the context of a cell may be older than the session.
    found = [session for session in _open if session.is_of_here()]
    return found[-1] if found else None


def _end_previous(previous: _Session, name: str) -> None:
    logger.warning(
        "start_logging(%r) ends the run %r, which was still open: call stop_logging() first, or put one inside the "
        "other by `with stage(...)`.",
        mask_name(name),
        previous.name,
    )
    previous.end(None)


def _place() -> tuple[int, int]:
    """The thread, and the task of asyncio or the greenlet where it is one of these."""
    task = _task() or _greenlet()
    return threading.get_ident(), 0 if task is None else id(task)


def _task() -> Any:
    """The task of asyncio that runs here; None where there is none, or where it is a prompt's."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        with contextlib.suppress(RuntimeError):
            task = asyncio.current_task()
            return None if task is None or _runs_cells(task) else task
    return None


def _greenlet() -> Any:
    """The greenlet that runs here; None where it is that which every thread begins with."""
    greenlets = sys.modules.get("greenlet")
    current = None if greenlets is None else greenlets.getcurrent()
    return None if current is None or current.parent is None else current


def _end_with_task(session: _Session, task: Any) -> None:
    """End a session that the task which began it has left open by an exception."""
    if session in _open:
        error = sys.modules["asyncio"].CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            session.end(error)


def _caller() -> tuple[int, CodeType]:
    """The frame that called into this package, and its code: alive frames are told apart by these."""
    frame = calling_frame()
    return id(frame), frame.f_code


def _runs_cells(task: Any) -> bool:
    """Whether a task is one of a Jupyter kernel's, or of IPython's, which run one cell after the other."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and not {"ipykernel", "IPython"}.isdisjoint(code.co_filename.split(os.sep))


def _only() -> _Session | None:
    """The only session that is open, where it is that of the whole program and not of one of its threads or tasks."""
    whole = (threading.main_thread().ident, 0)
    return _open[0] if len(_open) == 1 and _open[0].place == whole else None


def _scope_of_only() -> Scope | None:
    session = _only()
    return None if session is None else session.scope


def _at_exit() -> None:
    for session in reversed(_open[:]):
        session.end(session.what_ends_it())


def _task_failed(error: BaseException) -> None:
    """End the sessions that the task of a pool has begun, and left open by an exception."""
    for session in [each for each in reversed(_open) if each.began_in(error.__traceback__)]:
        session.end(error)


def _after_fork() -> None:
    """What the parent has started it ends itself."""
    _open.clear()
    _exit.put_back()


def _reset() -> None:
    for session in reversed(_open[:]):
        session.end(None)


_roots.ask_for_session(_scope_of_only)
# After that of `_target`, so it runs before it: the end of a run is to be delivered too.
atexit.register(_at_exit)
runtime.register("sessions", Phase.SESSIONS, after_fork=_after_fork, reset=_reset)
