"""How a program ends: by an exception, by `sys.exit`, by `raise SystemExit` or by `os._exit`."""

from __future__ import annotations

import builtins
import contextlib
import functools
import os
import re
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NoReturn

from trackdsl._api.raised_exits import RaisedExits, has_returned, outermost
from trackdsl._runs.exceptions import remembered
from trackdsl.distributed._frames import hide_frame
from trackdsl.errors import format_error, report, reraise_from_signal


class ExitWatch:
    """Finds out what ends a program or a thread while a session is open: `sys.exit`, `exit`, `os._exit`, an exception.

    Python does not show the exit code to `atexit` functions. A process that ends by `os._exit` does not even call them;
    every forked child of `multiprocessing` ends so. For `raise SystemExit`, see `raised_exits.py`.

    Args:
        at_once: called right before the process ends without `atexit`. It gets the reason, or None for a normal end.
        thread_failed: called with the exception that ends a thread.
    """

    def __init__(
        self, at_once: Callable[[BaseException | None], None], thread_failed: Callable[[BaseException], None]
    ) -> None:
        self._at_once = at_once
        self._thread_failed = thread_failed
        self._error: SystemExit | None = None
        self._outermost: FrameType | None = None
        self._raised = RaisedExits()
        #: The replaced functions: their owner, their name, the original, and the replacement.
        self._replaced: list[tuple[Any, str, Any, Any]] = []

    @property
    def error(self) -> SystemExit | None:
        """The `SystemExit` that has ended the program; None if the program caught it and ended normally."""
        error = self._raised.error or self._error
        return None if self._outermost is not None and has_returned(self._outermost) else error

    def program_ended_by(self, error: SystemExit) -> None:
        """Remember what has ended the program, where that is known."""
        self._error, self._outermost = error, None

    def take(self) -> None:
        """Replace `sys.exit`, `os._exit`, `threading.excepthook` and the prompt's `exit`, unless that is done."""
        if self._replaced:
            return
        self._error = self._outermost = None
        self._raised.follow()
        self._replace(sys, "exit", self._exit_of(sys.exit))
        self._replace(os, "_exit", self._exit_at_once_of(os._exit))
        self._replace(threading, "excepthook", self._excepthook_of(threading.excepthook))
        quitter = type(getattr(builtins, "exit", None))
        if quitter.__module__ == "_sitebuiltins":  # A prompt may have its own.
            self._replace(quitter, "__call__", self._quit_of(quitter.__call__))

    def put_back(self) -> None:
        """Put the original functions back, except those that another library has replaced since."""
        for owner, name, original, ours in self._replaced:
            if getattr(owner, name) is ours:
                setattr(owner, name, original)
        self._replaced.clear()
        self._raised.leave()

    def _replace(self, owner: Any, name: str, ours: Any) -> None:
        self._replaced.append((owner, name, getattr(owner, name), ours))
        setattr(owner, name, ours)

    def _exit_of(self, original: Callable[..., NoReturn]) -> Any:
        @functools.wraps(original)
        def exit(status: Any = None, /) -> NoReturn:  # noqa: A001 - the name of the original
            self._remember_exit(status)
            try:
                original(status)
            except SystemExit as error:
                hide_frame(error)
                raise

        return exit

    def _quit_of(self, original: Callable[..., NoReturn]) -> Any:
        @functools.wraps(original)
        def __call__(quitter: Any, code: Any = None) -> NoReturn:  # noqa: N807 - it replaces that method
            self._remember_exit(code)
            try:
                original(quitter, code)
            except SystemExit as error:
                hide_frame(error)
                raise

        return __call__

    def _remember_exit(self, status: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            self._error, self._outermost = _exit_here(status, sys._getframe(2)), outermost(sys._getframe())

    def _excepthook_of(self, original: Callable[..., object]) -> Any:
        @functools.wraps(original)
        def excepthook(args: Any, /) -> None:
            try:
                if args.exc_value is not None:
                    self._thread_failed(args.exc_value)
            except Exception as error:
                reraise_from_signal(error)
                report("exit", f"trackdsl cannot end the runs that a thread has left open: {format_error(error)}")
            finally:
                original(args)

        return excepthook

    def _exit_at_once_of(self, original: Callable[..., NoReturn]) -> Any:
        @functools.wraps(original)
        def _exit(status: int) -> NoReturn:
            try:
                self._at_once(_exit_here(status, sys._getframe(1)) if status else None)
            except BaseException as error:
                reraise_from_signal(error)
                report(
                    "exit",
                    f"trackdsl cannot end the runs that are open at the exit of the process: {format_error(error)}",
                )
            finally:
                original(status)

        return _exit


def _exit_here(status: Any, frame: FrameType | None) -> SystemExit:
    """An exit that is being asked for, with its place in the program and the exception that is being handled there."""
    error = SystemExit(status)
    try:
        trace = None
        while frame is not None:
            trace = TracebackType(trace, frame, frame.f_lasti, frame.f_lineno)
            frame = frame.f_back
        error.__context__ = sys.exc_info()[1]
        return remembered(error.with_traceback(trace))
    except Exception as fault:  # For example a full stack. The program exits in any case.
        reraise_from_signal(fault)
        return SystemExit(status)


class _Child:
    """The child of `multiprocessing` whose end is watched, by its process id; 0 for none."""

    watched = 0


_child = _Child()
#: The finalizer that marks the end of a journal has a lower priority; see `journal._store_target`.
_BEFORE_THE_JOURNAL = -900


def watch_child(at_end: Callable[[], None], task_failed: Callable[[BaseException], None]) -> None:
    """Watch the end of a child of `multiprocessing`, which does not call `atexit` functions. Does so once.

    Args:
        at_end: called at its end, while the exception that ends it is being handled.
        task_failed: called with an exception of a pool's task. The parent gets it, and the worker continues.
    """
    processes = sys.modules.get("multiprocessing.process")
    if _child.watched == os.getpid() or processes is None or processes.parent_process() is None:
        return
    wrapped, _child.watched = bool(_child.watched), os.getpid()
    from multiprocessing.util import Finalize

    Finalize(None, at_end, exitpriority=_BEFORE_THE_JOURNAL)
    if wrapped:  # The parent process has wrapped the classes before the fork.
        return
    for module, name in _RAISED:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None:
            kind.__init__ = _reporting(kind.__init__, task_failed)


#: The classes in which pools send exceptions.
_RAISED = (
    ("multiprocessing.pool", "ExceptionWithTraceback"),
    ("concurrent.futures.process", "_ExceptionWithTraceback"),
)


def _reporting(original: Callable[..., None], task_failed: Callable[[BaseException], None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, error: BaseException, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it replaces it
        task_failed(error)
        original(self, error, *args, **kwargs)

    return __init__


#: What the interpreter and prompts keep of the exception that they have printed last.
_PRINTED = ("last_exc", "last_type", "last_value", "last_traceback")


class RecoveredErrors:
    """Finds out whether other statements or cells have run since an exception: then it did not end the program.

    IPython calls back after each cell. A plain prompt calls `str(sys.ps1)` before each statement. The prompt of Python
    3.13 calls it several times for each statement; instead, each input there is a file with a number, such as
    `<python-input-3>`.
    """

    def __init__(self) -> None:
        self._error: BaseException | None = None
        self._shown: BaseException | None = None
        self._shell: Any = None

    def watch(self) -> None:
        """Start to watch, once, if there is a prompt."""
        ipython = sys.modules.get("IPython")
        shell = None if ipython is None else ipython.get_ipython()
        if shell is not None:
            if shell is not self._shell:
                self._shell = shell
                shell.events.register("post_run_cell", self._after_cell)
            return
        prompt = getattr(sys, "ps1", None)
        if type(prompt) is str and not _numbers_of_inputs():
            self._shown = last_uncaught()
            sys.ps1 = _Prompt(prompt)
            sys.ps1.shown = self._before_statement

    def put_back(self) -> None:
        """Stop watching."""
        if self._shell is not None:
            with contextlib.suppress(ValueError):  # Another library has removed all callbacks.
                self._shell.events.unregister("post_run_cell", self._after_cell)
        prompt = getattr(sys, "ps1", None)
        if isinstance(prompt, _Prompt):
            sys.ps1 = str.__str__(prompt)
        self._shell = self._error = self._shown = None

    def holds(self, error: BaseException, *, exits: bool) -> bool:
        """Whether the user has run another statement since an exception, at a prompt or in a notebook.

        Args:
            error: the exception.
            exits: whether a statement has ended the program; that statement does not count.
        """
        inputs, ended = _numbers_of_inputs(), _number_of_input(error)
        if inputs and ended is not None:
            return max(inputs) - exits > ended
        return error is self._error

    def outcome(self) -> Callable[[], None]:
        """A function that puts back what is known now: the exception that was printed last, and what has run since."""
        before = {name: vars(sys)[name] for name in _PRINTED if name in vars(sys)}
        error = self._error

        def put_back() -> None:
            for name in _PRINTED:
                vars(sys).pop(name, None)
            vars(sys).update(before)
            self._error = error

        return put_back

    def _after_cell(self, result: Any) -> None:
        leaves = getattr(self._shell, "exit_now", False) or not getattr(self._shell, "keep_running", True)
        if getattr(result, "success", False) and not leaves:  # Other libraries call back too, without a result.
            self._error = last_uncaught()

    def _before_statement(self) -> None:
        error = last_uncaught()
        if error is self._shown:
            self._error = error
        self._shown = error


class _Prompt(str):
    """A prompt of the interactive interpreter that calls `shown` each time it is displayed."""

    __slots__ = ("shown",)

    shown: Callable[[], None]

    def __str__(self) -> str:
        self.shown()
        return super().__str__()


_INPUT = re.compile(r"<python-input-(\d+)>")


def _numbers_of_inputs() -> list[int]:
    """The numbers of the inputs at the prompt of Python 3.13 or later."""
    cached = list(getattr(sys.modules.get("linecache"), "cache", ()))
    return [int(found[1]) for name in cached if isinstance(name, str) and (found := _INPUT.fullmatch(name))]


def _number_of_input(error: BaseException) -> int | None:
    """The number of the input that raised an exception."""
    files = [str(getattr(error, "filename", ""))]  # A `SyntaxError` has it.
    trace = error.__traceback__
    while trace is not None:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return next((int(found[1]) for file in files if (found := _INPUT.fullmatch(file))), None)


def last_uncaught() -> BaseException | None:
    """The exception that has ended the program, or the last one that a notebook has printed."""
    return getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
