"""The notebook's file as it was saved last: the order of its cells, and their sources."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from trackdsl.notebook.executions import Execution
from trackdsl.notebook.frontend import notebook_path

#: A larger file takes too long to read at each execution.
_MAX_SIZE = 20_000_000


class _Cell(msgspec.Struct):
    source: str | list[str] = ""
    id: str = ""


class _Notebook(msgspec.Struct):
    cells: list[_Cell] = []


_decode = msgspec.json.Decoder(_Notebook).decode


class Page:
    """The notebook's file, as far as it is known; without one, all answers are empty.

    The file is read again when it was saved since. A cell that was executed later than that may have another source
    than the file, so the file says nothing about it.

    Args:
        shell: IPython's shell.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._saved = 0
        self._path = ""
        self._known = False
        self._cells: dict[str, tuple[int, str]] = {}

    def refresh(self, cell: str) -> None:
        """Read the file, if it was saved since. A file without the cell that is executed is not used."""
        self._path, before = notebook_path(self._shell), self._path
        if not self._path:
            self._known, self._cells = False, {}
            return
        try:
            found = os.stat(self._path)
            if (found.st_mtime_ns, self._path) != (self._saved, before):
                self._saved, self._cells = found.st_mtime_ns, {}
                if found.st_size <= _MAX_SIZE:
                    with open(self._path, "rb") as file:
                        cells = _decode(file.read()).cells
                    self._cells = {one.id: (at, _text(one.source)) for at, one in enumerate(cells) if one.id}
        except (OSError, ValueError, msgspec.MsgspecError):
            self._cells = {}
        self._known = cell in self._cells

    def why_stale(self, execution: Execution) -> str | None:
        """What has happened to the cell of an execution since, in a few words; None if nothing is known."""
        if not self._known or self._saved <= execution.began:
            return None
        found = self._cells.get(execution.cell)
        if found is None:
            return None if execution.cell.startswith("name-") else "is gone"
        return None if found[1].strip() == execution.page.strip() else "was edited"

    def is_below(self, one: Execution, other: Execution) -> bool:
        """Whether the cell of an execution is further down than another one."""
        if not self._known or one.cell not in self._cells or other.cell not in self._cells:
            return False
        return self._cells[one.cell][0] > self._cells[other.cell][0]

    def has_below(self, source: str, other: Execution) -> bool:
        """Whether the only cell with a source is further down than the cell of an execution."""
        if not self._known:
            return False
        found = [at for at, text in self._cells.values() if text.strip() == source.strip()]
        return len(found) == 1 and found[0] > self._cells[other.cell][0]


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)
