"""What a notebook's root run keeps at its end: `session.ipynb`, and `reproduce.py`."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from trackdsl._core.redaction import mask_text
from trackdsl._core.version import __version__
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording.emit import append_tags, guarded
from trackdsl._recording.printed import harmless
from trackdsl._runs.exceptions import FAILED, FINISHED, KILLED
from trackdsl.errors import format_error, report
from trackdsl.notebook.effects import TRACKED
from trackdsl.notebook.executions import Execution
from trackdsl.notebook.lines import indented, lines_of
from trackdsl.notebook.names import is_long, parsed
from trackdsl.notebook.outputs import outputs_of
from trackdsl.notebook.provenance import Provenance
from trackdsl.notebook.results import assigned
from trackdsl.notebook.roots import Opened, experiment_of
from trackdsl.notebook.script import awaits, in_main, stage_block, suppressed, with_result
from trackdsl.notebook.steps import Step
from trackdsl.notebook.translation import FILLED
from trackdsl.store_format.tags import SUPERSEDED_TAG

SESSION, REPRODUCE = "session.ipynb", "reproduce.py"
#: Commands, and magics that execute other code.
_COMMAND = re.compile(
    r"^[ \t]*((?:!|%%?(?:bash|sh|script|system|sx|run|cython|perl|ruby|python[23]?|js|store|load|pylab)\b)"
    r"[^\n]*)", re.MULTILINE,
)  # fmt: skip
_MAX_COMMANDS = 20
#: All outputs together, in characters; later ones are left out.
_MAX_OUTPUTS = 10_000_000

_HEAD = """\
# What the last results of the run {name!r} came from, in the order of execution.
# Written by trackdsl {version}. Commands and cells that the results do not need are left out.
{omitted}
{future}from contextlib import suppress as _suppress

from trackdsl import experiment as _experiment
from trackdsl import stage as _stage
from trackdsl.notebook.values import record_artifacts as _record_artifacts
from trackdsl.notebook.values import record_value as _record_value


def {tracked}(function, **options):
    return function if hasattr(function, "last_run") else _stage(returns=True, **options)(function)


"""
#: What a program defines for code that reads it, as IPython does or instead of it.
_DEFINED = {
    "display": "def display(*values, **options):\n    print(*values)\n\n\n",
    "get_ipython": "def get_ipython():\n    return None\n\n\n",
    "Out": "Out = {}  # The values of cells, by their execution counts.\n\n\n",
    FILLED: f"def {FILLED}(text, written):\n    try:\n        return text()\n    except Exception:\n"
    "        return written\n\n\n",
}
_LOADS = ("get_ipython().run_line_magic('load_ext', 'trackdsl", "get_ipython().run_line_magic('reload_ext', 'trackdsl")
#: A secret that was masked with its quotes.
_BARE = re.compile(r"(?<=[=:(\[,])( ?)\*\*\*")
_MASKED = "# Masked: write the secret in again.\n"
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
            last = provenance.steps.index(needed[-1])
            code, omitted = script(opened, needed, counting, commands_of(provenance.steps[: last + 1]))
            if omitted:
                append_tags(root, {f"trackdsl.omitted.{REPRODUCE}": mask_text("; ".join(omitted))[:500]})
                report("reproduce.py", f"{REPRODUCE} of {root.name!r} differs from the notebook: {'; '.join(omitted)}")
            program = masked_program(code)
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
    name, message, traceback = map(harmless, one.failure)
    return [{"output_type": "error", "ename": name, "evalue": message, "traceback": traceback.splitlines()}]


def commands_of(steps: Iterable[Step]) -> list[str]:
    """The commands and magics in these steps that a program leaves out, and that may have changed files or names."""
    found: dict[str, None] = {}
    for step in steps:
        source = step.source if step.execution is None else step.execution.body
        if not is_long(source):
            found.update(dict.fromkeys(" ".join(line.split())[:100] for line in _COMMAND.findall(source)))
    return list(found)[:_MAX_COMMANDS]


def script(
    opened: Opened, steps: Iterable[Step], counting: Collection[Execution], commands: Iterable[str] = ()
) -> tuple[str, list[str]]:
    """The program of these steps, and in what it differs from what was executed.

    Args:
        opened: the root run.
        steps: the steps, in order.
        counting: the executions that count; the runs of others are marked as superseded.
        commands: what is left out that may have changed files or names.
    """
    name, experiment = opened.run.name, experiment_of(opened.run)
    omitted: list[str] = []
    futures: dict[str, None] = {}
    read: set[str] = set()
    parts = list(_parts(list(steps), opened, counting, omitted, futures, read))
    body = "\n\n".join(map(indented, parts)) or "    pass"  # One by one: texts of several lines cost the comments.
    tags = f", tags={dict(opened.tags)!r}" if opened.tags else ""
    as_root = " as _root" if opened.values else ""
    block = f"with _experiment({experiment!r}, run_name={name!r}{tags}){as_root}:\n{body}"
    future = "".join(f"{line}\n" for line in futures)
    head = _HEAD.format(
        name=name, version=__version__, tracked=TRACKED, future=f"{future}\n" if future else "",
        omitted="".join(
            [f"# Differs from the notebook: {' '.join(one.split())}\n" for one in omitted]
            + [f"# Left out: {one}\n" for one in commands]
        ),
    )  # fmt: skip
    head += "".join(code for name, code in _DEFINED.items() if name in read)
    if not any(map(awaits, parts)):
        return f"{head}{block}\n", omitted
    return f"{head}{in_main(block)}\n\n\n__import__('asyncio').run(_main())\n", omitted


def _parts(
    steps: list[Step],
    opened: Opened,
    counting: Collection[Execution],
    omitted: list[str],
    futures: dict[str, None],
    read: set[str],
) -> Iterator[str]:
    """The code of each step in a program. A faulty one costs itself.

    Args:
        steps: the steps.
        opened: the root run.
        counting: the executions that count.
        omitted: gets in what the program differs from what was executed.
        futures: gets the imports from `__future__`.
        read: gets the names that the code needs.
    """
    used = {count for step in steps for counts in step.results.values() for count in counts}
    for step in steps:
        if why := _why_omitted(step):
            omitted.append(f"{_label(step)} {why}")
        if is_long(step.code):
            continue
        try:
            code, imports = _without_future(step.code)
            part = _block(step, code, opened, counting, f"Out[{step.number}]" if step.number in used else "")
            part = "\n".join(filter(None, [assigned(step.results), part]))
            compile(part, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            omitted.append(f"{_label(step)} is left out: {format_error(error)}")
            continue
        futures.update(dict.fromkeys(imports))
        read |= step.names.needed | ({"Out"} if step.results else set())
        if part.strip():
            yield part


def _why_omitted(step: Step) -> str:
    """In what a step of the program differs from the execution; empty if in nothing that is known."""
    if is_long(step.code):
        return "is left out: it is too long to be read"
    if step.execution is not None and step.execution.status == KILLED:
        return "was interrupted, and runs to its end here"
    return ""


def _label(step: Step) -> str:
    """What a step is called in messages: the name of the stage, or the first line of the cell."""
    if step.execution is not None:
        return f"the cell of {step.execution.name!r}"
    return f"the cell [{step.count}] {mask_text(step.source.strip().partition(chr(10))[0][:60])!r}"


def masked_program(code: str) -> str:
    """A program without its secrets. It is still Python where that is possible, with texts in place of the secrets."""
    masked = mask_text(code)
    if parsed(masked) is None:
        quoted = _BARE.sub(r"\1'***'", masked)
        masked = masked if parsed(quoted) is None else quoted
    return masked if masked == code else _with_comments(code, masked)


def _with_comments(code: str, masked: str) -> str:
    """A masked program with a comment above each statement in which something was masked."""
    lines, tree = lines_of(masked), parsed(masked)
    if tree is None:
        return masked
    numbers = _changed(lines_of(code), lines)
    begins = [0] * (len(lines) + 1)  # Line → the line where its innermost statement begins that has it to itself.
    for node in ast.walk(tree):  # Outer ones first.
        if isinstance(node, ast.stmt) and not lines[node.lineno - 1][: node.col_offset].strip():
            first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
            begins[first : (node.end_lineno or first) + 1] = [first] * ((node.end_lineno or first) + 1 - first)
    for first in sorted({begins[number] for number in numbers if begins[number]}, reverse=True):
        line = lines[first - 1]
        lines.insert(first - 1, f"{line[: len(line) - len(line.lstrip())]}{_MASKED}")
    return "".join(lines)


def _changed(before: list[str], after: list[str]) -> set[int]:
    """The numbers of the lines that differ from those before."""
    if len(before) == len(after):
        return {at for at, (one, other) in enumerate(zip(before, after, strict=True), 1) if one != other}
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return {at + 1 for kind, _, _, start, end in blocks if kind != "equal" for at in range(start, end)}


def _block(step: Step, code: str, opened: Opened, counting: Collection[Execution], result: str) -> str:
    if step.execution is not None:
        return stage_block(step.execution, code, {} if step.execution in counting else _EARLIER, result)
    if result:
        code = with_result(code, result)
    if opened.values and _opens(step, opened):
        listed = ", ".join(f"{name!r}: {name}" for name in opened.values)
        code = f"{code.rstrip()}\n_root.log_params({{{listed}}})"
    if step.tracked and not any(one in counting for one in step.tracked):
        code = _marked(code)
    failed = step.failed or any(one.status != FINISHED for one in step.tracked)
    return suppressed(code.strip("\n"), FAILED if failed else FINISHED, exited=step.exited)


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
    lines = lines_of(code)
    found = []
    for node in ast.parse(code).body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            found.append(ast.unparse(node))
            for at in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[at] = "\n"
    return "".join(lines), found


def _write(path: Any, text: str) -> None:
    path.write_text(text, encoding="utf-8")
