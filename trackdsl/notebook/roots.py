"""The root run of a notebook: a session that cells share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from trackdsl._api.open_sessions import Session, begin, leave_ended
from trackdsl._config import resolve as settings
from trackdsl._core import context as _context
from trackdsl._core.context import Scope
from trackdsl._decorate import parentage as _parentage
from trackdsl._decorate.options import Options
from trackdsl._decorate.scopes import call_no_more_when_opened, call_when_opened
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording.flatten import Flat
from trackdsl._runs.ending import call_before_end
from trackdsl._runs.run import NULL_RUN, Run
from trackdsl.notebook.frontend import notebook_path, position
from trackdsl.notebook.papermill import PapermillExecution


@dataclass(frozen=True)
class Opened:
    """A root run that was opened.

    Attributes:
        run: the run.
        since: the position of the cell that has opened it in IPython's history.
        values: the names of its parameters, which are variables.
        tags: its tags.
    """

    run: Run
    since: int
    values: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


class Root:
    """The root run that `%experiment` or the first `%%stage` of a notebook has opened.

    Args:
        shell: IPython's shell.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._session: Session | None = None
        self._before_end: Callable[[Opened], None] | None = None
        self._run_begins: Callable[[int, str], None] | None = None
        #: What papermill has sent; None without papermill.
        self.papermill: PapermillExecution | None = None

    def call_before_end(self, call: Callable[[Opened], None]) -> None:
        """Register a function that is called with a root run before it ends."""
        self._before_end = call

    def call_when_run_begins(self, call: Callable[[int, str], None]) -> None:
        """Register a function that is called when a run begins: its cell's position in the history, and its root."""
        self._run_begins = call

    def _began(self, scope: Scope) -> None:
        root = self.run
        if self._run_begins is not None and scope.run is not root and root_of(scope.run) == root.id:
            self._run_begins(position(self._shell), root.id)

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
        self._session = begin(chosen, Session(name), flat.values)
        run = self.run
        if flat:
            _artifacts.keep_whole(run, flat)
        if self._before_end is not None and run is not NULL_RUN:
            opened = Opened(run, position(self._shell), tuple(values), dict(options.get("tags") or {}))
            call_before_end(run, lambda: self._ends(opened))
            call_when_opened(self._began)
        return run

    def _ends(self, opened: Opened) -> None:
        call_no_more_when_opened(self._began)
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
