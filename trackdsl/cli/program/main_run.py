"""The root run of a program: what it prints, its exit code, and its status."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from trackdsl._api.open_sessions import Session, begin, program_ended_by
from trackdsl._core.context import Scope
from trackdsl._core.redaction import mask_name
from trackdsl._core.suppression import suppression
from trackdsl._decorate.options import Options
from trackdsl._decorate.source import Site
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording.emit import append_tags, guarded
from trackdsl._recording.printed import PRINTED, Output, tail_of
from trackdsl._runs.exceptions import remembered
from trackdsl._runs.exits import Exited
from trackdsl._runs.run import Run
from trackdsl._runs.show_url import show_url_only_at_end
from trackdsl.cli.program.main_module import Program
from trackdsl.errors import format_error, report, reraise_from_signal

_clock = time.monotonic
#: The tag with the exit code of a program.
EXIT_CODE = "trackdsl.exit_code"
#: How long after the last time the end of the output is kept while the program runs, in seconds and as a part of the
#: time that it has run for: a program that is killed keeps what it had printed by then. The first times come sooner.
_OUTPUT_EVERY, _OUTPUT_PART, _OUTPUT_FIRST = 10.0, 0.05, 1.0


class MainRun(Session):
    """The session around a program. Its run ends with the process.

    Args:
        name: the name of its run.
    """

    whole_program = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._error: BaseException | None = None
        self._printed = Output(self._look_at_output)
        self._restore: list[Callable[[], None]] = []
        self._began = _clock()
        self._keep_at = self._began + min(_OUTPUT_FIRST, _OUTPUT_EVERY)
        self._keeping = False
        #: Returns what click has caught last.
        self.caught_by_click: Callable[[], Exited | None] = lambda: None
        #: Called while the program runs, when the end of its output is kept.
        self.while_running: list[Callable[[], None]] = []
        #: Called before the run ends, with the exception that has ended the program.
        self.before_end: list[Callable[[BaseException | None], None]] = []

    @property
    def run(self) -> Run:
        """Its run."""
        assert self.scope is not None
        run: Run = self.scope.run
        return run

    def follow_output(self) -> None:
        """Keep the end of what the program prints to `sys.stdout` and `sys.stderr`."""
        streams = (stream for stream in (sys.stdout, sys.stderr) if hasattr(stream, "__dict__"))
        self._restore += self._printed.follow(*streams)

    def _look_at_output(self, now: float) -> None:
        if now <= self._keep_at:
            return
        try:
            self._keep_output(now)
        except Exception as error:
            reraise_from_signal(error)
            self._stop_output()
            report("outputs", f"trackdsl stopped recording the program's output: {format_error(error)}")

    def _keep_output(self, now: float) -> None:
        if self._keeping or self._pid != os.getpid():  # It prints while this is kept, or it is a forked child.
            return
        ran = now - self._began
        pause = min(max(_OUTPUT_FIRST, ran), max(_OUTPUT_EVERY, ran * _OUTPUT_PART))
        self._keep_at, self._keeping = now + pause, True
        try:
            for call in self.while_running:
                call()
            if printed := tail_of(self._printed.text()):
                _artifacts.write_text(self.run, printed, PRINTED)
        finally:
            self._keeping = False

    def _stop_output(self) -> None:
        while self._restore:
            self._restore.pop()()

    def ended_by(self, error: BaseException) -> None:
        """Remember the exception that has ended the program."""
        if self.started_here():
            # Python lets go of an exit's frames before it calls the program's `atexit` functions.
            self._error = error
            if isinstance(error, SystemExit):
                self._error = exited = remembered(error, self.caught_by_click())
                program_ended_by(exited)

    def ending_exception(self) -> BaseException | None:
        """See `Session`."""
        return self._error

    def end(self, error: BaseException | None, status: str | None = None, reason: str | None = None) -> None:
        """See `Session`."""
        if not self.ended and isinstance(self.scope, Scope):
            self._stop_output()
            with guarded("ending a program", self.run):
                for call in self.before_end:
                    call(error)
                self._keep_output(_clock())
                append_tags(self.run, {EXIT_CODE: str(exit_code_of(error))})
        super().end(error, status, reason)


def exit_code_of(error: BaseException | None) -> int:
    """The exit code of a program that an exception has ended, as a shell shows it.

    >>> exit_code_of(None), exit_code_of(SystemExit(3)), exit_code_of(SystemExit("no data")), exit_code_of(ValueError())
    (0, 3, 1, 1)
    """
    if isinstance(error, SystemExit):
        code: Any = error.code
        return 0 if code is None else code & 0xFF if isinstance(code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 0 if error is None else 1


def begin_run(program: Program, options: Options) -> MainRun | None:
    """Begin the run of a program that is prepared.

    Args:
        program: the program.
        options: of its run.

    Returns:
        its session; None if nothing is recorded.

    Raises:
        TrackdslError: a setting cannot have the value that it has.
    """
    if suppression.on and suppression.here():
        return None
    show_url_only_at_end()
    return begin(options, MainRun(options.run_name or program.name), {}, _site_of(program))


def _site_of(program: Program) -> Site:
    """The origin of a program: its name, its file, and a hash of the file, as for a function."""
    path = program.file()
    digest = ""
    with contextlib.suppress(OSError):
        if os.path.isfile(path):  # Not in a zip file, and no pipe, which can be read only once.
            with open(path, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()[:16]
    name = program.target if program.is_module else os.path.basename(os.path.abspath(program.target))
    return mask_name(name), mask_name(path), digest
