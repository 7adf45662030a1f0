"""The program `reproduce.py` of a root run."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable

from trackdsl._core.redaction import mask_text
from trackdsl._core.version import __version__
from trackdsl._runs.exceptions import FAILED, FINISHED, KILLED
from trackdsl.errors import format_error
from trackdsl.notebook.effects import TRACKED
from trackdsl.notebook.executions import Execution
from trackdsl.notebook.lines import indented, lines_of
from trackdsl.notebook.names import is_long
from trackdsl.notebook.results import assigned
from trackdsl.notebook.roots import BY_CALL, BY_CELL, BY_MAGIC, Opened, experiment_of
from trackdsl.notebook.script import awaits, in_main, stage_block, suppressed, with_result
from trackdsl.notebook.steps import Step
from trackdsl.notebook.translation import FILLED, assignments
from trackdsl.store_format.tags import SUPERSEDED_TAG

_HEAD = """\
# What the last results of the run {name!r} came from, in the order of execution.
# Written by trackdsl {version}. Commands and cells that the results do not need are left out.
{omitted}
{future}from contextlib import suppress as _suppress

from trackdsl import experiment as _experiment
from trackdsl import stage as _stage
from trackdsl.notebook.values import record_artifacts as _record_artifacts
from trackdsl.notebook.values import record_value as _record_value
{untracked}

def {tracked}(function, **options):
    return function if hasattr(function, "last_run") else _stage(returns=True, **options)(function)


"""
_EXPERIMENT = "run_line_magic('experiment'"
#: What a program calls to record nothing in a block.
_UNTRACKED = "_untracked"
#: What a program defines for code that reads it, as IPython does or instead of it.
_DEFINED = {
    "display": "def display(*values, **options):\n    print(*values)\n\n\n",
    "get_ipython": "def get_ipython():\n    return None\n\n\n",
    "Out": "Out = {}  # The values of cells, by their execution counts.\n\n\n",
    FILLED: f"def {FILLED}(text, written):\n    try:\n        return text()\n    except Exception:\n"
    "        return written\n\n\n",
}
#: The tag of an execution that a program needs although it does not count, so that its run does not count either.
_EARLIER = {SUPERSEDED_TAG: "an execution that counts"}


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
    program = _Program(opened, list(steps), counting)
    blocks = program.blocks()
    body = "\n\n".join(blocks)
    future = "".join(f"{line}\n" for line in program.futures)
    head = _HEAD.format(
        untracked=f"from trackdsl.notebook.values import untracked as {_UNTRACKED}\n" if program.is_split else "",
        name=opened.run.name, version=__version__, tracked=TRACKED, future=f"{future}\n" if future else "",
        omitted="".join(
            [f"# Differs from the notebook: {' '.join(one.split())}\n" for one in program.omitted]
            + [f"# Left out: {one}\n" for one in commands]
        ),
    )  # fmt: skip
    head += "".join(code for name, code in _DEFINED.items() if name in program.read)
    if not any(map(awaits, blocks)):
        return f"{head}{body}\n", program.omitted
    return f"{head}{in_main(body)}\n\n\n__import__('asyncio').run(_main())\n", program.omitted


class _Program:
    """Collects the code of a program.

    Args:
        opened: the root run.
        steps: the steps, in order.
        counting: the executions that count.

    Attributes:
        omitted: in what the program differs from what was executed.
        futures: the imports from `__future__`.
        read: the names that the code needs.
        is_split: whether code before the root run must record nothing.
    """

    def __init__(self, opened: Opened, steps: list[Step], counting: Collection[Execution]) -> None:
        self._opened = opened
        self._counting = counting
        self._steps = steps
        self._used = {count for step in steps for counts in step.results.values() for count in counts}
        self.omitted: list[str] = []
        self.futures: dict[str, None] = {}
        self.read: set[str] = set()
        self.is_split = False

    def blocks(self) -> list[str]:
        """The code: what is executed before the root run, and in it."""
        opened, steps = self._opened, self._steps
        first = 0
        if opened.by == BY_CELL:
            first = len(steps) - 1
        elif opened.by == BY_CALL:
            first = next((at for at, step in enumerate(steps) if opens(step, opened)), 0)
        before, inside = self._parts(steps[:first], before=True), self._parts(steps[first:])
        if any(step.execution is not None or step.tracked or step.names.calls for step in steps[:first]):
            self.is_split = True
            before = [f"with {_UNTRACKED}():  # What was recorded here is not of this run.\n{_body(before)}"]
        if opened.by != BY_MAGIC:
            return before + inside
        tags = f", tags={dict(opened.tags)!r}" if opened.tags else ""
        head = f"with _experiment({experiment_of(opened.run)!r}, run_name={opened.run.name!r}{tags})"
        return [f"{head}{' as _root' if opened.values else ''}:\n{_body(inside)}"]

    def _parts(self, steps: Iterable[Step], *, before: bool = False) -> list[str]:
        """The code of each step. A faulty one costs itself.

        Args:
            steps: the steps.
            before: whether they are executed before the root run.
        """
        found = []
        for step in steps:
            if why := _why_omitted(step, self._opened):
                self.omitted.append(f"{_label(step)} {why}")
            if is_long(step.code):
                continue
            try:
                code, imports = _without_future(step.code)
                result = f"Out[{step.number}]" if step.number in self._used else ""
                part = _plain_block(step, code, result) if before else self._block(step, code, result)
                part = "\n".join(filter(None, [assigned(step.results), part]))
                compile(part, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                self.omitted.append(f"{_label(step)} is left out: {format_error(error)}")
                continue
            self.futures.update(dict.fromkeys(imports))
            self.read |= step.names.needed | ({"Out"} if step.results else set())
            found += [part] if part.strip() else []
        return found

    def _block(self, step: Step, code: str, result: str) -> str:
        opened, counting = self._opened, self._counting
        if step.execution is not None:
            experiment = experiment_of(opened.run) if opened.by == BY_CELL else None
            earlier = {} if step.execution in counting else _EARLIER
            return stage_block(step.execution, code, earlier, result, experiment)
        if step.tracked and not any(one in counting for one in step.tracked):
            code = _marked(code)
        if opened.values and opens(step, opened):
            listed = ", ".join(f"{name!r}: {name}" for name in opened.values)
            code = f"{code.rstrip()}\n_root.log_params({{{listed}}})"
        return _plain_block(step, code, result)


def opens(step: Step, opened: Opened) -> bool:
    """Whether a cell has opened the root, by `%experiment` or `start_logging`."""
    if step.execution is not None or not step.position == opened.since > 0:
        return False
    return opened.by == BY_CALL or _EXPERIMENT in step.translated


def nests(step: Step, opened: Opened) -> bool:
    """Whether a cell has opened a run by `%experiment` within a session."""
    later = opened.by == BY_CALL and step.position > opened.since
    return later and _EXPERIMENT in step.translated and "--end" not in step.translated


def _body(parts: list[str]) -> str:
    """The body of a block; each part is indented for itself, as texts of several lines cost the comments."""
    return "\n\n".join(map(indented, parts)) or "    pass"


def _plain_block(step: Step, code: str, result: str) -> str:
    """The code of a step without a run of its own."""
    one = step.execution
    if result:
        code = with_result(code, result)
    if one is not None and one.arguments is not None:
        code = "\n".join(filter(None, [assignments(one.arguments), code]))
    statuses = [each.status for each in ([one] if one is not None else step.tracked)]
    failed = step.failed or any(status != FINISHED for status in statuses)
    exited = step.exited or (one is not None and one.exited)
    return suppressed(code.strip("\n"), FAILED if failed else FINISHED, exited=exited)


def _why_omitted(step: Step, opened: Opened) -> str:
    """In what a step of the program differs from the execution; empty if in nothing that is known."""
    if is_long(step.code):
        return "is left out: it is too long to be read"
    if step.execution is not None and step.execution.status == KILLED:
        return "was interrupted, and runs to its end here"
    if nests(step, opened):
        return "opened a run below this one, which is left out: the runs in it are below this one here"
    return ""


def _label(step: Step) -> str:
    """What a step is called in messages: the name of the stage, or the first line of the cell."""
    if step.execution is not None:
        return f"the cell of {step.execution.name!r}"
    return f"the cell [{step.count}] {mask_text(step.source.strip().partition(chr(10))[0][:60])!r}"


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
