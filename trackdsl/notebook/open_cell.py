"""A cell that is being executed: its run, and what is known of it until it ends."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trackdsl._api.exit_hook import last_uncaught
from trackdsl._core.context import Scope
from trackdsl.notebook.arguments import Arguments
from trackdsl.notebook.executions import Execution
from trackdsl.notebook.outputs import Outputs
from trackdsl.notebook.shown import Shown
from trackdsl.notebook.steps import Step


@dataclass(eq=False)
class OpenCell:
    """A cell that is being executed.

    Attributes:
        magic: `stage` or `experiment`.
        line: what follows the magic.
        arguments: the same, parsed.
        execution: the execution.
        step: the same, as a step of the kernel's code.
        display: shows the execution.
        outputs: what the cell prints and shows.
        scope: of its run; None before that has begun.
        around: the scope that was current before a cell that is a root; it is current again after it.
        before: the last exception that the shell had shown when the cell began.
        thread: the thread that executes it; a kernel may have several, for subshells.
        objects: the ids of the objects that the variables had before, which it writes.
        given: the parameters of its magic that it assigns itself too: by the name of the variable.
    """

    magic: str
    line: str
    arguments: Arguments
    execution: Execution
    step: Step
    display: Shown
    outputs: Outputs
    scope: Scope | None = None
    around: Scope | None = None
    before: BaseException | None = field(default_factory=last_uncaught)
    thread: int = field(default_factory=threading.get_ident)
    objects: dict[str, int] = field(default_factory=dict)
    given: dict[str, dict[str, Any]] = field(default_factory=dict)

    def changed(self, namespace: Mapping[str, Any]) -> list[str]:
        """The variables that a cell has written before it failed."""
        names = self.execution.names.written
        return [name for name in names if name in namespace and id(namespace[name]) != self.objects.get(name)]
