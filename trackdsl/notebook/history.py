"""The end of a terminal's session, where IPython empties its history before the root run ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trackdsl._recording.emit import guarded
from trackdsl.notebook.frontend import execution_count


class History:
    """Reads IPython's history before a terminal empties and drops it, together with the variables.

    That happens when the prompt ends, before the functions of `atexit` are called. One of those ends the root run.

    Args:
        shell: IPython's shell.
        read: called with IPython's `HistoryManager` and the execution count of its last cell.
    """

    def __init__(self, shell: Any, read: Callable[[Any, int], None]) -> None:
        self._shell = shell
        self._read = read
        self._outputs: dict[int, list[Any]] = {}
        self._manager = shell.history_manager
        self._original = self._manager.reset
        self._manager.reset = self._reset

    def outputs(self) -> dict[int, list[Any]]:
        """The outputs of cells, by execution count; those of all cells once the session is over."""
        return self._outputs or getattr(self._shell.history_manager, "outputs", {})

    def catch_up(self) -> None:
        """Read what there is now."""
        if self._shell.history_manager is not None:
            self._read(self._shell.history_manager, execution_count(self._shell))

    def _reset(self, new_session: bool = True) -> None:
        if self._is_over():  # Else this is `%reset`, after which the history continues.
            with guarded("reading the last cells"):
                last = getattr(getattr(self._shell.last_execution_result, "info", None), "raw_cell", None)
                # IPython leaves `exit` out of the history.
                left_out = last is not None and last.strip() != self._manager.input_hist_raw[-1].strip()
                self._outputs = dict(getattr(self._manager, "outputs", {}))
                self._read(self._manager, execution_count(self._shell) - left_out)
        self._original(new_session)

    def _is_over(self) -> bool:
        return getattr(self._shell, "_atexit_once_called", False) or not getattr(self._shell, "keep_running", True)

    def remove(self) -> None:
        """Leave the shell as it was."""
        if vars(self._manager).get("reset") == self._reset:
            del self._manager.reset
