"""What papermill sends to the kernel of a notebook that it executes, and what the kernel answers.

`papermill_engine`, in papermill's own process, writes a `PapermillExecution` to a file, and puts the file's path into a
variable of the kernel. The kernel reads it when the extension is loaded. It gives each root run the parameters of the
notebook, and notes the run in the file.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from trackdsl._core import events
from trackdsl._core.context import Scope
from trackdsl._decorate.scopes import call_when_opened
from trackdsl._recording.artifacts import keep_whole
from trackdsl._recording.emit import append_params, guarded
from trackdsl._recording.flatten import Flat

VARIABLE = "TRACKDSL_PAPERMILL"


@dataclass(frozen=True)
class PapermillExecution:
    """One execution of a notebook by papermill.

    Attributes:
        notebook: the path of the notebook; empty if it has none.
        parameters: the values of its parameters.
        begins: whether no cell of it begins an experiment: then the root run begins with the extension.
    """

    notebook: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    begins: bool = False

    def write(self, path: str) -> None:
        """Write it to the file that the kernel reads."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(self), default=str) + "\n")


def roots_in(path: str) -> list[tuple[str, str, str, str]]:
    """The root runs that the kernel has noted in the file: id, name, tracking URI, working directory."""
    with open(path, encoding="utf-8") as file:
        return [tuple(json.loads(line)) for line in list(file)[1:]]


def follow_papermill() -> PapermillExecution | None:
    """Read what papermill sends to this kernel, once, and follow the root runs; None without papermill.

    Processes that the kernel starts do not see the variable.
    """
    path = os.environ.pop(VARIABLE, "")
    if not path:
        return None
    with guarded("reading what papermill sends"):
        with open(path, encoding="utf-8") as file:
            execution = PapermillExecution(**json.loads(file.readline()))
        call_when_opened(lambda scope: _root_began(scope, execution, path))
        return execution
    return None


def _root_began(scope: Scope, execution: PapermillExecution, path: str) -> None:
    run = scope.run
    with guarded("recording the parameters of a notebook", run):
        opening = run.target.open_runs.get(run.key)
        if run.parent is not None or opening is None or not scope.ends_run:
            return
        flat = Flat()
        for name, value in execution.parameters.items():
            flat.add(name, value)
        given = getattr(events.decode(opening), "params", {})
        append_params(run, {name: value for name, value in flat.values.items() if name not in given})
        if flat:
            keep_whole(run, flat)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps([run.id, run.name, run.target.uri, run.target.cwd]) + "\n")
