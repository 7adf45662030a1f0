"""`start_logging` and `stop_logging`: a run that begins at one call and ends at another.

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
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, TracebackType
from typing import Any, Literal

from trackdsl._api.configure import configure
from trackdsl._api.exit_hook import ExitWatch, RecoveredErrors, last_uncaught, watch_child
from trackdsl._api.session_options import KEYS, Choice, SessionSettings, checked, choose, given_by
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
#: The settings that apply to the whole program, rather than to one run.
_PROGRAM = tuple(name for name in settings.NAMES if name not in ("tracking_uri", "experiment_name"))


class _Session:
    """An open session. It owns its scope.

    Attributes:
        name: the name of its run.
        scope: the scope that it opened.
        ended: whether it has been ended.
        started_in: the thread and the task that started it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.scope: Scope | None = None
        self.ended = False
        self._pid = os.getpid()
        self.started_in = _thread_and_task()
        self._began_in = _caller()
        self._handled = id(sys.exc_info()[1])
        self._last = id(last_uncaught())

    def is_of_here(self) -> bool:
        """Whether this process, thread and task started it."""
        return self._pid == os.getpid() and self.started_in == _thread_and_task()

    def what_ends_it(self) -> BaseException | None:
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
            _open.remove(self)
        if not _open:
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
    for session in reversed(_open[:]):
        session.end(error)


def _thread_failed(error: BaseException) -> None:
    """End the sessions that this thread started, as an exception has ended the thread."""
    for session in [each for each in reversed(_open) if each.is_of_here()]:
        session.end(error)


_exit = ExitWatch(_end_at_once, _thread_failed)
_recovered = RecoveredErrors()
#: The open sessions of this process, the latest last.
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
    """Start a run that lasts until `stop_logging()`, for scripts that prefer calls to blocks.

    Everything recorded in between belongs to the run: values logged with trackdsl, stages (as child runs), plain MLflow
    and autologging. If this thread has an open session, that session ends first. Inside a stage the run is a child of
    the stage's run. A run that is open when the program ends is ended with it: as `FINISHED`, as `FAILED` if the
    program crashes, or as `KILLED` if it is killed.

    Args:
        exp_name: the name of the run.
        project: the run's project: the tag `project`, and the MLflow experiment if nothing else names one.
        backend: `"mlflow"`, the only one.
        config: any of `tracking_uri`, `experiment_name` (the MLflow experiment, created if it does not exist),
            `run_name` (instead of `exp_name`), `tags`, and `run_id` (a run to resume, instead of a new one). These
            values take precedence over all others.
        settings: a `trackdsl.Settings`, or `TraceletSettings` of `trackdsl.compat.tracelet`. Settings of the whole
            program, such as `mode`, stay in force after the run, as with `configure`.
        offline: what to do if the tracking server cannot be reached, is overloaded or fails (429, 5xx), or refuses the
            credentials (401, 403): `"raise"`, or `"spool"` to record now and deliver later.

    Returns:
        the run.

    Raises:
        OptionError: a key of `config`, the backend or an option does not exist.
        TrackingServerUnreachable: no server answers at the tracking URI within five seconds. No run has begun then.
        TrackingServerError: the server refuses the request, or is no MLflow server.
        ExperimentDeleted: the MLflow experiment is deleted.
        RunNotFound: the run to resume is deleted, or does not exist.
        SettingsError: a setting cannot have the value that it has.

    If the program has imported MLflow, errors of the tracking server, the experiment and the run are also
    `mlflow.exceptions.MlflowException`s.

    Example:
        >>> run = start_logging("resnet-baseline", project="vision", config={"tags": {"team": "cv"}})  # doctest: +SKIP
        >>> run.log_metric("loss", 0.25, iteration=3)  # doctest: +SKIP
        >>> stop_logging()  # doctest: +SKIP
    """
    if offline not in _OFFLINE:
        raise OptionError(f"start_logging(offline=...) takes 'raise' or 'spool', not {offline!r}.", option="offline")
    given = given_by(settings)
    choice = choose(exp_name, project, backend, checked(config), given)
    with _configured({name: value for name, value in given.items() if name in _PROGRAM}):
        if quiet.on and quiet.here():
            return NULL_RUN
        options = Options.checked(
            "experiment",
            choice.experiment,
            {
                # A resumed run keeps its name, unless `config` has a `run_name`.
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
    """End the run of the last `start_logging`. Without such a run, nothing happens.

    The run is `FAILED` if this is called in a `finally` block because of an exception, or by an `atexit` function of a
    program that crashed.

    Args:
        status: the status of the run, whatever happened: `FINISHED`, `FAILED` or `KILLED`.
        reason: why, in a sentence: the tag `trackdsl.ended`.

    Raises:
        OptionError: the status does not exist.

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
    except Exception as error:  # The program continues without tracking.
        fault("starting a session", error)
        return NULL_RUN
    _exit.take()
    _recovered.watch()
    watch_child(_at_exit, _task_failed)
    task = _task()
    if task is not None:
        task.add_done_callback(functools.partial(_end_with_task, session))
    _open.append(session)
    run: Run = session.scope.run
    return run


@contextlib.contextmanager
def _configured(chosen: Mapping[str, Any]) -> Iterator[None]:
    """Configure the program. If the block fails, its settings are put back."""
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
    """Check that the store can take the run, if the run is a root and is delivered now."""
    if overridden() or settings.mode() != "online":
        return
    target, experiment = _destination(choice, previous)
    if target is None or target.discards:
        return
    from trackdsl._runs.resumable import check_run
    from trackdsl._server.reachable import check  # These take long to import, and only sessions need them.

    try:
        check(target.uri, experiment)
        if choice.run_id is not None:
            check_run(target.uri, choice.run_id if isinstance(choice.run_id, str) else choice.run_id.id)
    except TrackingServerError as error:
        # The user can correct credentials later, so these runs are worth keeping. Other errors stay.
        if offline == "raise" or not (isinstance(error, TrackingServerUnreachable) or error.status in (401, 403)):
            raise as_mlflows(error) from None
        reason = error.reason if isinstance(error, TrackingServerUnreachable) else str(error)
        logger.warning("%s The run %r is recorded now, and delivered once the server answers.", reason, choice.run_name)
    except TrackdslError as error:
        raise as_mlflows(error) from None


def _destination(choice: Choice, previous: _Session | None) -> tuple[Target | None, str | None]:
    """The target and the experiment of a root run; no target if the run will be a child."""
    outer = _context.current()
    while outer is not None and previous is not None and outer.owner is previous:
        outer = outer.outer
    if outer is None and previous is not None:
        return target_for(choice.tracking_uri), choice.experiment or settings.experiment_name()
    parent, target, experiment = _roots.destination(outer, choice.tracking_uri, choice.experiment)
    return (None if parent is not None else target), experiment


def _current() -> _Session | None:
    """The session that `stop_logging` ends."""
    scope = _context.current()
    while scope is not None:
        if isinstance(scope.owner, _Session) and not scope.owner.ended:
            return scope.owner
        scope = scope.outer
    at_exit = not threading.main_thread().is_alive()
    found = [session for session in _open if at_exit or session.is_of_here()]
    return found[-1] if found else _only()


def _leave_ended() -> None:
    """Leave the scopes of sessions that another context has ended: another thread, or a cell of a notebook."""
    scope = _context.current()
    while scope is not None and isinstance(scope.owner, _Session) and scope.owner.ended:
        scope = scope.outer
        _context.enter(scope)


def _previous() -> _Session | None:
    """The session that the next one replaces."""
    scope = _context.current()
    if scope is not None and not isinstance(scope.owner, _Session):
        return None
    # In a notebook the context of a cell may be older than the session.
    found = [session for session in _open if session.is_of_here()]
    return found[-1] if found else None


def _end_previous(previous: _Session, name: str) -> None:
    logger.warning(
        "start_logging(%r) ends the run %r, which was still open: call stop_logging() first, or nest the runs "
        "with `with stage(...)`.",
        mask_name(name),
        previous.name,
    )
    previous.end(None)


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


def _end_with_task(session: _Session, task: Any) -> None:
    """End a session whose task has been ended by an exception."""
    if session in _open:
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


def _only() -> _Session | None:
    """The only open session, if the main thread started it and no asyncio task did."""
    whole = (threading.main_thread().ident, 0)
    return _open[0] if len(_open) == 1 and _open[0].started_in == whole else None


def _scope_of_only() -> Scope | None:
    session = _only()
    return None if session is None else session.scope


def _at_exit() -> None:
    for session in reversed(_open[:]):
        session.end(session.what_ends_it())


def _task_failed(error: BaseException) -> None:
    """End the sessions that the task of a process pool started, as an exception has ended the task."""
    for session in [each for each in reversed(_open) if each.began_in(error.__traceback__)]:
        session.end(error)


def _after_fork() -> None:
    """Forget the sessions of the parent process, which ends them itself."""
    _open.clear()
    _exit.put_back()


def _reset() -> None:
    for session in reversed(_open[:]):
        session.end(None)


_roots.ask_for_session(_scope_of_only)
# Registered after the exit function of `_target`, so it runs first: that one waits until the ends of runs are
# delivered.
atexit.register(_at_exit)
runtime.register("sessions", Phase.SESSIONS, after_fork=_after_fork, reset=_reset)
