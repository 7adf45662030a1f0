"""Cells of marimo's editor: the outermost runs that one execution of a cell begins supersede those of the one before.

marimo has no magics: its cells have `with stage(...)` blocks and decorated calls. As a script or an app (`marimo run`),
a notebook is a program like any other, and nothing of this is used.
"""

from __future__ import annotations

import json
from typing import Any

from trackdsl._api.open_sessions import Session
from trackdsl._core.context import Scope
from trackdsl._core.redaction import mask_text
from trackdsl._decorate.scopes import call_when_opened
from trackdsl._recording.emit import append_tags, guarded
from trackdsl.notebook.cells import CELL_TAG
from trackdsl.notebook.executions import Execution, Executions, supersedes
from trackdsl.notebook.roots import root_of


class _Cells:
    """The cells of one kernel."""

    def __init__(self) -> None:
        self._executions = Executions()
        #: marimo's object for the current execution, how many there were, and the runs that it has begun.
        self._current: Any = None
        self._count = 0
        self._begun: set[bytes] = set()

    def began(self, scope: Scope) -> None:
        """Note that a run has begun: the outermost ones of a cell supersede those of its last execution."""
        with guarded("superseding a run", scope.run):
            self._supersede(scope)

    def _supersede(self, scope: Scope) -> None:
        context = _context()
        current = None if context is None else context.execution_context
        if current is None or isinstance(scope.owner, Session):
            return  # Another thread; or a root for other cells, which supersedes nothing.
        if current is not self._current:
            self._current, self._begun = current, set()
            self._count += 1
        outer = scope.outer
        while outer is not None:
            if outer.run.key in self._begun:
                return
            outer = outer.outer
        run = scope.run
        self._begun.add(run.key)
        cell = str(current.cell_id)
        new = Execution((root_of(run.parent), cell, run.name), str(self._count), self._count, "", "", run=run)
        new.older = self._executions.older(new)
        about = {"id": cell, "notebook": context.filename or ""}
        append_tags(run, {**supersedes(new.older), CELL_TAG: mask_text(json.dumps(about))})
        self._executions.add(new)


def _context() -> Any:
    """marimo's context of the cell that this thread executes; None in other threads. It has no public name."""
    from marimo._runtime.context import safe_get_context

    return safe_get_context()


_followed: list[_Cells] = []


def follow() -> None:
    """Follow the cells of this kernel, once."""
    if not _followed:
        _followed.append(_Cells())
        call_when_opened(_followed[0].began)
