"""The root run of a notebook: a session that cells share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from trackdsl._api.open_sessions import Session, begin, leave_ended, open_sessions
from trackdsl._config import resolve as settings
from trackdsl._core import context as _context
from trackdsl._core.context import Scope
from trackdsl._decorate import parentage as _parentage
from trackdsl._decorate.options import Options
from trackdsl._decorate.scopes import call_no_more_when_opened, call_when_opened
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording.emit import guarded
from trackdsl._recording.flatten import Flat
from trackdsl._runs.ending import call_before_end
from trackdsl._runs.run import NULL_RUN, Run
from trackdsl.notebook.frontend import notebook_path, position
from trackdsl.notebook.papermill import PapermillExecution

#: What has opened a root: `%experiment` or the first stage, `start_logging`, or `%%experiment`.
BY_MAGIC, BY_CALL, BY_CELL = "magic", "call", "cell"


@dataclass(frozen=True)
class Opened:
    """A root run that was opened.

    Attributes:
        run: the run.
        since: the position of the cell that has opened it in IPython's history; 0 if it is not known.
        values: the names of its parameters, which are variables.
        tags: its tags.
        by: what has opened it.
    """

    run: Run
    since: int
    values: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    by: str = BY_MAGIC


class Root:
    """The root run that `%experiment` or the first `%%stage` of a notebook has opened.

    It also follows sessions of `start_logging`, which are roots in the same way.

    Args:
        shell: IPython's shell.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._session: Session | None = None
        self._before_end: Callable[[Opened], None] | None = None
        self._run_begins: Callable[[int, str], None] | None = None
        #: The ids of the open roots.
        self._open: set[str] = set()
        self._is_opening = False
        #: What papermill has sent; None without papermill.
        self.papermill: PapermillExecution | None = None

    def follow(self) -> None:
        """Follow the sessions that begin from now on, and those that are open."""
        call_when_opened(self._began)
        for session in open_sessions:
            if session.scope is not None:
                self._session_began(session.scope, 0)

    def unfollow(self) -> None:
        """Undo `follow`."""
        call_no_more_when_opened(self._began)

    def call_before_end(self, call: Callable[[Opened], None]) -> None:
        """Register a function that is called with a root run before it ends."""
        self._before_end = call

    def call_when_run_begins(self, call: Callable[[int, str], None]) -> None:
        """Register a function that is called when a run begins: its cell's position in the history, and its root."""
        self._run_begins = call

    def _began(self, scope: Scope) -> None:
        run: Run = scope.run
        if run.parent is None:
            if not self._is_opening and threading.current_thread() is threading.main_thread():
                with guarded("following a session", run):
                    self._session_began(scope, position(self._shell))
        elif self._run_begins is not None and self._open and (root := root_of(run)) in self._open:
            self._run_begins(position(self._shell), root)

    def _session_began(self, scope: Scope, since: int) -> None:
        run, owner = scope.run, scope.owner
        is_session = isinstance(owner, Session) and not owner.whole_program and owner is not self._session
        if is_session and scope.ends_run and run.parent is None and run is not NULL_RUN:
            self._follow(Opened(run, since, by=BY_CALL))

    def _follow(self, opened: Opened) -> None:
        if self._before_end is not None and opened.run.id not in self._open:
            self._open.add(opened.run.id)
            call_before_end(opened.run, lambda: self._ends(opened))

    @property
    def run(self) -> Run:
        """The open root; `NULL_RUN` without one."""
        session = self._session
        if session is None or session.ended or session.scope is None:
            return NULL_RUN
        run: Run = session.scope.run
        return run

    def open(self, experiment: str | None, options: dict[str, Any], values: Mapping[str, Any]) -> Run:
        """Open a root run; the one that was open ends.

        Args:
            experiment: the name of the MLflow experiment; None for the configured one.
            options: options of `experiment`.
            values: its parameters.
        """
        self.end()
        name = options.get("run_name") or self._name()
        flat = Flat()
        for key, value in values.items():
            flat.add(key, value)
        chosen = Options.checked("experiment", experiment, {**options, "run_name": name})
        leave_ended()
        self._is_opening = True
        try:
            self._session = begin(chosen, Session(name), flat.values)
        finally:
            self._is_opening = False
        run = self.run
        if flat:
            _artifacts.keep_whole(run, flat)
        if run is not NULL_RUN:
            self._follow(Opened(run, position(self._shell), tuple(values), dict(options.get("tags") or {})))
        return run

    def _ends(self, opened: Opened) -> None:
        self._open.discard(opened.run.id)
        if self._before_end is not None:
            self._before_end(opened)

    def end(self) -> Run:
        """End the root run. Returns it; `NULL_RUN` if none was open."""
        run = self.run
        if self._session is not None and not self._session.ended:
            self._session.end(None)
        self._session = None
        leave_ended()
        return run

    def _name(self) -> str:
        path = notebook_path(self._shell) or ("" if self.papermill is None else self.papermill.notebook)
        return PurePath(path).stem or "notebook"


def experiment_of(run: Run) -> str:
    """The name of the MLflow experiment of a run, as far as it is known here."""
    return run.experiment or settings.experiment_name()


def run_around() -> Run | None:
    """The run that a stage which begins here is a child of; None if it would be a root."""
    leave_ended()
    outer = _context.current()
    if outer is None:
        return _parentage.run_around()
    run: Run = outer.run
    return run


def root_of(run: Run | None) -> str:
    """The id of the root run above a run; empty without one."""
    while run is not None and run.parent is not None:
        run = run.parent
    return "" if run is None else run.id
