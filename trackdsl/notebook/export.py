"""What a notebook's root run keeps at its end: `session.ipynb`, and `reproduce.py`."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from trackdsl._core.redaction import mask_text
from trackdsl._core.version import __version__
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording.emit import guarded
from trackdsl._runs.exceptions import FAILED, FINISHED
from trackdsl.notebook.effects import TRACKED
from trackdsl.notebook.executions import Execution
from trackdsl.notebook.names import parsed
from trackdsl.notebook.outputs import outputs_of
from trackdsl.notebook.provenance import Provenance
from trackdsl.notebook.roots import Opened, experiment_of
from trackdsl.notebook.script import awaits, in_main, indented, stage_block, suppressed
from trackdsl.notebook.steps import Step
from trackdsl.store_format.tags import SUPERSEDED_TAG

SESSION, REPRODUCE = "session.ipynb", "reproduce.py"
#: All outputs together, in characters; later ones are left out.
_MAX_OUTPUTS = 10_000_000

_HEAD = """\
# What the last results of the run {name!r} came from, in the order of execution.
# Written by trackdsl {version}. Commands and cells that the results do not need are left out.

{future}from contextlib import suppress as _suppress

from trackdsl import experiment as _experiment
from trackdsl import stage as _stage
from trackdsl.notebook.values import record_artifacts as _record_artifacts
from trackdsl.notebook.values import record_value as _record_value


def {tracked}(function, **options):
    return function if hasattr(function, "last_run") else _stage(returns=True, **options)(function)


"""
#: What IPython defines, for code that reads it.
_OF_IPYTHON = {
    "display": "def display(*values, **options):\n    print(*values)\n\n\n",
    "get_ipython": "def get_ipython():\n    return None\n\n\n",
}
_LOADS = ("get_ipython().run_line_magic('load_ext', 'trackdsl", "get_ipython().run_line_magic('reload_ext', 'trackdsl")
#: A secret that was masked with its quotes.
_BARE = re.compile(r"(?<=[=:(\[,])( ?)\*\*\*")
#: The tag of an execution that a program needs although it does not count, so that its run does not count either.
_EARLIER = {SUPERSEDED_TAG: "an execution that counts"}


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
    counting = [one for one in executions if one.identity[0] == root.id]
    steps = [*provenance.steps_of(counting), *(step for step in provenance.steps if _records(step, opened))]
    if not steps:
        return
    begins = [step for step in provenance.steps if _opens(step, opened)]
    with guarded("session.ipynb", root):
        loads = [step for step in provenance.steps if step.translated.startswith(_LOADS)]
        needed = provenance.slice_of([*steps, *begins, *loads[-1:]])
        text = json.dumps(session(needed, outputs), indent=1, ensure_ascii=False)
        _artifacts.keep(root, SESSION, lambda to: _write(to, text))
    with guarded("reproduce.py", root):
        results = [step for step in steps if _succeeded(step)]
        if results:
            needed = provenance.slice_of([*results, *begins])
            program = masked_program(script(opened, needed, counting))
            _artifacts.keep(root, REPRODUCE, lambda to: _write(to, program))


def _records(step: Step, opened: Opened) -> bool:
    """Whether a cell without a magic has recorded something below a root, or in it."""
    begun = opened.run.id in step.begun and not step.tracked  # Which of these count is known.
    return begun or (step.names.logs and step.position > opened.since)


def _opens(step: Step, opened: Opened) -> bool:
    """Whether a cell has opened the root by `%experiment`."""
    return step.position == opened.since > 0 and "run_line_magic('experiment'" in step.translated


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
    name, message, traceback = one.failure
    return [{"output_type": "error", "ename": name, "evalue": message, "traceback": traceback.splitlines()}]


def script(opened: Opened, steps: Iterable[Step], counting: Collection[Execution]) -> str:
    """The program of these steps.

    Args:
        opened: the root run.
        steps: the steps, in order.
        counting: the executions that count; the runs of others are marked as superseded.
    """
    name, experiment = opened.run.name, experiment_of(opened.run)
    codes = [(step, *_without_future(step.code)) for step in steps if parsed(step.code) is not None]
    future = "".join(dict.fromkeys(f"{line}\n" for _, _, lines in codes for line in lines))
    parts = [_block(step, code, opened, counting) for step, code, _ in codes]
    parts = [part for part in parts if part.strip()]
    body = "\n\n".join(map(indented, parts))  # One by one, as comments are lost where texts have several lines.
    tags = f", tags={dict(opened.tags)!r}" if opened.tags else ""
    as_root = " as _root" if opened.values else ""
    block = f"with _experiment({experiment!r}, run_name={name!r}{tags}){as_root}:\n{body}"
    head = _HEAD.format(name=name, version=__version__, tracked=TRACKED, future=f"{future}\n" if future else "")
    read = {name for step, _, _ in codes for name in step.names.needed}
    head += "".join(code for name, code in _OF_IPYTHON.items() if name in read)
    if not any(map(awaits, parts)):
        return f"{head}{block}\n"
    return f"{head}{in_main(block)}\n\n\n__import__('asyncio').run(_main())\n"


def masked_program(code: str) -> str:
    """A program without its secrets. It is still Python where that is possible, with texts in place of the secrets."""
    masked = mask_text(code)
    if parsed(masked) is None:
        quoted = _BARE.sub(r"\1'***'", masked)
        return masked if parsed(quoted) is None else quoted
    return masked


def _block(step: Step, code: str, opened: Opened, counting: Collection[Execution]) -> str:
    if step.execution is not None:
        return stage_block(step.execution, code, {} if step.execution in counting else _EARLIER)
    if opened.values and _opens(step, opened):
        listed = ", ".join(f"{name!r}: {name}" for name in opened.values)
        code = f"{code.rstrip()}\n_root.log_params({{{listed}}})"
    if step.tracked and not any(one in counting for one in step.tracked):
        code = _marked(code)
    failed = step.failed or any(one.status != FINISHED for one in step.tracked)
    return suppressed(code.strip("\n"), FAILED if failed else FINISHED)


def _marked(code: str) -> str:
    """Code of which the runs of `%tracked` do not count."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == TRACKED:
            node.keywords.append(ast.keyword("tags", ast.parse(repr(_EARLIER), mode="eval").body))
    return ast.unparse(tree)


def _without_future(code: str) -> tuple[str, list[str]]:
    """Code without its imports from `__future__`, which have to come first in a program, and these."""
    if "__future__" not in code:
        return code, []
    lines = code.splitlines(keepends=True)
    found = []
    for node in ast.parse(code).body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            found.append(ast.unparse(node))
            for at in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[at] = "\n"
    return "".join(lines), found


def _write(path: Any, text: str) -> None:
    path.write_text(text, encoding="utf-8")
