"""The URL of a program's first root run, which the terminal shows once the run is at MLflow.

A program under `trackdsl run` has its terminal for itself until its end, so there the line comes last.
"""

from __future__ import annotations

import contextvars
import os
import shlex
import sys
import threading
from dataclasses import dataclass

from trackdsl._config import resolve as settings
from trackdsl._config.spec import DEFAULT_TRACKING_URI
from trackdsl._core import runtime
from trackdsl._core.redaction import mask_text
from trackdsl._core.runtime import Phase
from trackdsl._core.terminal import at_terminal
from trackdsl._core.uris import absolute_uri
from trackdsl._runs.run import Run
from trackdsl.errors import TrackdslError, format_error, logger, reraise_from_signal
from trackdsl.journal._delivery_hooks import call_after_delivery

#: How long to wait for the first run at MLflow, in seconds. After that, the end of the program writes the URL.
_PATIENCE = 600.0


class _UrlLine:
    """The line with the URL of one run, which is written once.

    Args:
        run: the run.
        only_at_terminal: whether it is not wanted elsewhere.
    """

    def __init__(self, run: Run, *, only_at_terminal: bool) -> None:
        self._run = run
        self._only_at_terminal = only_at_terminal
        self._writing = threading.Lock()
        self._written = False

    def wait(self) -> None:
        """Write the line as soon as the run is at MLflow."""
        self.write(_PATIENCE)

    def write(self, patience: float = 0.0) -> None:
        """Write the line, unless it was written before, if the run arrives at MLflow within `patience` seconds."""
        # A program may have replaced its standard error in the meantime.
        if self._written or (self._only_at_terminal and not at_terminal()):
            return
        try:
            self._run.wait_for_mlflow(patience)
            line = self._line()
        except TrackdslError:  # The run is not at MLflow yet, or never will be; `trackdsl status` says why.
            return
        except Exception as error:
            reraise_from_signal(error)
            logger.debug("trackdsl cannot show the URL of its run: %s", format_error(error))
            return
        with self._writing:
            if not self._written:
                _write_line(line)
                self._written = True  # After the writing, so that the end of the program waits for it.

    def _line(self) -> str:
        run = self._run
        line = f"trackdsl: run {run.name!r} is at {run.url}"
        uri = run.target.uri
        if uri.startswith(("http://", "https://")):
            return line
        usual = absolute_uri(DEFAULT_TRACKING_URI, run.target.cwd)
        store = "" if uri == usual else f" --backend-store-uri {shlex.quote(mask_text(uri))}"
        return f"{line} while `mlflow ui{store}` runs"


@dataclass
class _Program:
    """The state of this program.

    Attributes:
        has_begun: whether its first root run has begun.
        only_at_end: whether its end shows the URL, and nothing before.
    """

    has_begun: bool = False
    only_at_end: bool = False

    def reset(self) -> None:
        """Wait for the first root run again."""
        self.has_begun = self.only_at_end = False


_program = _Program()
runtime.register("the address at the terminal", Phase.RUNS, reset=_program.reset)


def show_url_only_at_end() -> None:
    """Write nothing before the end of this program."""
    _program.only_at_end = True


def show_url(run: Run) -> None:
    """Write the URL of a root run once the run is at MLflow, if it is the program's first and stderr is a terminal."""
    if _program.has_begun or not run.target.delivers or run.target.discards:
        return
    _program.has_begun = True
    chosen = settings.show_url()
    if settings.mode() != "online" or not (_is_usual() if chosen is None else chosen):
        return
    line = _UrlLine(run, only_at_terminal=chosen is None)
    call_after_delivery(line.write)
    if _program.only_at_end:
        return
    thread = threading.Thread(target=line.wait, name="trackdsl-url", daemon=True)
    contextvars.Context().run(thread.start)  # The thread belongs to no run.


def _is_usual() -> bool:
    return at_terminal() and not os.environ.get("CI")


def _write_line(line: str) -> None:
    bars = sys.modules.get("tqdm")
    if bars is not None:  # tqdm writes above its progress bars.
        bars.tqdm.write(line, file=sys.stderr)
    else:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
