"""What a notebook's root run keeps at its end: `session.ipynb`, and `reproduce.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from trackdsl._core.redaction import mask_text
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording.emit import append_tags, guarded
from trackdsl._recording.printed import harmless
from trackdsl._runs.exceptions import FINISHED
from trackdsl.errors import report
from trackdsl.notebook.executions import Execution
from trackdsl.notebook.masked import masked_program
from trackdsl.notebook.names import is_long
from trackdsl.notebook.outputs import outputs_of
from trackdsl.notebook.program import nests, opens, script
from trackdsl.notebook.provenance import Provenance
from trackdsl.notebook.roots import BY_CALL, BY_CELL, BY_MAGIC, Opened
from trackdsl.notebook.steps import Step
from trackdsl.notebook.translation import runs_file

SESSION, REPRODUCE = "session.ipynb", "reproduce.py"
#: Commands, and magics that execute other code.
_COMMAND = re.compile(
    r"^[ \t]*((?:\w+ *= *(?=%))?(?:!|%%?(?:bash|sh|script|system|sx|run|timeit|autoreload|cython|perl|ruby|python[23]?"
    r"|js|store|load|pylab)\b)[^\n]*)", re.MULTILINE,
)  # fmt: skip
_MAX_COMMANDS = 20
#: All outputs together, in characters; later ones are left out.
_MAX_OUTPUTS = 10_000_000

_START, _STOP = "start_logging(", "stop_logging("
_LOADS = ("get_ipython().run_line_magic('load_ext', 'trackdsl", "get_ipython().run_line_magic('reload_ext', 'trackdsl")


def export(
    opened: Opened, executions: Iterable[Execution], provenance: Provenance, outputs: Mapping[int, list[Any]]
) -> None:
    """Keep `session.ipynb` and `reproduce.py` as artifacts of the root run.

    Args:
        opened: the root run that ends.
        executions: the executions that count, in order.
        provenance: what was executed.
        outputs: the outputs of cells without a magic, by execution count.
    """
    root = opened.run
    if opened.by == BY_CALL and not opened.since:
        opened = _found(opened, provenance)
    counting = [one for one in executions if one.run is root or one.identity[0] == root.id]
    steps = [*provenance.steps_of(counting), *(step for step in provenance.steps if _records(step, opened))]
    if not steps:
        return
    around = [one for one in provenance.steps if opens(one, opened) or _ends(one, opened) or nests(one, opened)]
    with guarded("session.ipynb", root):
        loads = [step for step in provenance.steps if step.translated.startswith(_LOADS)]
        needed = provenance.slice_of([*steps, *around, *loads[-1:]])
        text = json.dumps(session(needed, outputs), indent=1, ensure_ascii=False)
        _artifacts.keep(root, SESSION, lambda to: _write(to, text))
    with guarded("reproduce.py", root):
        results = [step for step in steps if _succeeded(step)]
        if results:
            needed = provenance.slice_of([*results, *around])
            last = provenance.steps.index(needed[-1])
            code, omitted = script(opened, needed, counting, commands_of(provenance.steps[: last + 1]))
            if omitted:
                append_tags(root, {f"trackdsl.omitted.{REPRODUCE}": mask_text("; ".join(omitted))[:500]})
                report("reproduce.py", f"{REPRODUCE} of {root.name!r} differs from the notebook: {'; '.join(omitted)}")
            program = masked_program(code)
            _artifacts.keep(root, REPRODUCE, lambda to: _write(to, program))


def _found(opened: Opened, provenance: Provenance) -> Opened:
    """A session that began before the magics were loaded, with the cell that began it, if that is seen."""
    calls = [step.position for step in provenance.steps if _START in step.code and step.execution is None]
    return replace(opened, since=calls[-1]) if calls else replace(opened, by=BY_MAGIC)


def _records(step: Step, opened: Opened) -> bool:
    """Whether a cell without a magic has recorded something below a root, or in it."""
    if opened.by == BY_CELL:  # All of it is in one cell.
        return False
    begun = opened.run.id in step.begun and not step.tracked  # Which of these count is known.
    if opened.by == BY_CALL and _START in step.code:  # This session begins, or another one.
        return opens(step, opened) and (begun or step.names.logs)
    return begun or (step.names.logs and step.position > opened.since)


def _ends(step: Step, opened: Opened) -> bool:
    """Whether a cell may have ended a session."""
    later = step.execution is None and step.position > opened.since
    return opened.by == BY_CALL and later and _STOP in step.code and _START not in step.code


def _succeeded(step: Step) -> bool:
    """Whether a step has led to what counts."""
    if step.execution is not None:
        return step.execution.status == FINISHED
    return not step.tracked or any(one.status == FINISHED for one in step.tracked)


def session(steps: Iterable[Step], shown: Mapping[int, list[Any]]) -> dict[str, Any]:
    """A notebook with these steps. Their sources are masked here, and the outputs that IPython has of some."""
    left = _MAX_OUTPUTS
    cells = []
    for at, step in enumerate(steps):
        one = step.execution
        outputs = []
        for output in outputs_of(shown.get(step.count, ())) if one is None else [*one.outputs, *_failure(one)]:
            left -= len(json.dumps(output))
            outputs += [output] if left > 0 else []
        cells.append(
            {
                "cell_type": "code",
                "id": f"step-{at}",
                "execution_count": step.count or None if one is None else one.count,
                "metadata": {} if one is None else {"trackdsl": {"run": one.run.id, "status": one.status}},
                "outputs": outputs,
                "source": mask_text(step.source if one is None else one.source),
            }
        )
    about = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def _failure(one: Execution) -> list[dict[str, Any]]:
    if one.failure is None:
        return []
    name, message, traceback = map(harmless, one.failure)
    return [{"output_type": "error", "ename": name, "evalue": message, "traceback": traceback.splitlines()}]


def commands_of(steps: Iterable[Step]) -> list[str]:
    """The commands and magics in these steps that a program leaves out, and that may have changed files or names."""
    found: dict[str, None] = {}
    for step in steps:
        source = step.source if step.execution is None else step.execution.body
        if not is_long(source):
            lines = [" ".join(line.split())[:100] for line in _COMMAND.findall(source)]
            found.update(dict.fromkeys(line for line in lines if not runs_file(line.removeprefix("%run "))))
    return list(found)[:_MAX_COMMANDS]


def _write(path: Any, text: str) -> None:
    path.write_text(text, encoding="utf-8")
