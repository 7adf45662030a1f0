"""A notebook without a kernel: its cells are executed here, and once more those that its last stage needs."""

from __future__ import annotations

import sys
from contextlib import nullcontext, suppress
from types import ModuleType, SimpleNamespace
from typing import Any

from trackdsl.notebook.executions import Execution
from trackdsl.notebook.names import names_of, parsed, with_expressions
from trackdsl.notebook.provenance import Provenance
from trackdsl.notebook.steps import Step

#: A module with settings, which is new for each execution of all cells.
SETTINGS = "settings_of_cells"


class Notebook:
    """Executes cells, those that begin with `%%stage name` as stages.

    Args:
        cells: their code, in the order of execution. Cells that raise an exception are failed ones.
    """

    def __init__(self, *cells: str) -> None:
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self.provenance = Provenance(self.namespace)
        self.executions: list[Execution] = []
        self._history = SimpleNamespace(input_hist_parsed=[""], input_hist_raw=[""], exceptions={})
        _renew_settings()
        for cell in cells:
            self.run(cell)

    def run(self, cell: str) -> None:
        first, _, code = cell.partition("\n")
        stage = first.startswith("%%stage")
        self._history.input_hist_parsed.append("get_ipython().run_cell_magic('stage', '', ...)" if stage else cell)
        self._history.input_hist_raw.append(cell)
        count = len(self._history.input_hist_parsed) - 1
        if not stage:
            try:
                exec(_compiled(cell), self.namespace)  # noqa: S102
            except Exception as error:
                self._history.exceptions[count] = {"ename": type(error).__name__}
            return
        self.provenance.catch_up(self._history, count, without_last=True)
        self.provenance.skip(self._history)
        name = first.split()[1]
        execution = Execution(("root", name, name), str(count), count, cell, code)
        execution.names = with_expressions(names_of(parsed(code)), {}, [])
        step = self.provenance.begin(code, execution.names, execution)
        execution.inputs = step.inputs_of(execution)
        self.executions.append(execution)
        exec(_compiled(code), self.namespace)  # noqa: S102
        self.provenance.end(step)

    def needed(self) -> list[Step]:
        """The steps that the newest execution of each stage needs."""
        newest = {one.identity: one for one in self.executions}
        return self.provenance.slice_of(self.provenance.steps_of(list(newest.values())))

    def reproduced(self) -> dict[str, Any]:
        """The variables after only the steps that are needed."""
        _renew_settings()
        namespace: dict[str, Any] = {"__name__": "__main__"}
        for step in self.needed():
            with suppress(Exception) if step.failed else nullcontext():
                exec(_compiled(step.code), namespace)  # noqa: S102
        return namespace


def _compiled(code: str) -> Any:
    return compile(code, "<cell>", "exec")  # `dataclass` compiles from `<string>`.


def _renew_settings() -> None:
    module = ModuleType(SETTINGS)
    vars(module).update(value=0, path=[], table={}, set_value=lambda one: setattr(module, "value", one))
    vars(module)["current"] = SimpleNamespace(value=0)
    vars(module)["get_current"] = lambda: module.current
    sys.modules[SETTINGS] = module
