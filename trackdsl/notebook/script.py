"""The code of cells as that of a script: the stages are `with` blocks."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from trackdsl._runs.exceptions import FINISHED
from trackdsl.notebook.arguments import Arguments
from trackdsl.notebook.effects import ANY_NAME
from trackdsl.notebook.executions import Execution
from trackdsl.notebook.lines import indented, is_silenced, lines_of, split_value
from trackdsl.notebook.names import names_of
from trackdsl.notebook.translation import assignments
from trackdsl.notebook.values import chosen_literals, late_params

_ASYNC = (ast.Await, ast.AsyncFor, ast.AsyncWith)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def stage_block(
    execution: Execution, code: str, tags: Mapping[str, str], result: str = "", experiment: str | None = None
) -> str:
    """A cell with a magic, as a `with` block that records the same parameters, metrics and values.

    Args:
        execution: its execution; one that failed does not end the script.
        code: the cell, without magics.
        tags: tags of the run, besides those of the magic.
        result: what the value of the last expression is assigned to, for cells that use it.
        experiment: the MLflow experiment of a cell that is a root run; None for a stage.
    """
    name, arguments = execution.name, execution.arguments
    if arguments is None:
        return code
    body, value = split_value(code)
    if value and code != execution.body and is_silenced(execution.body):
        body, value = code, ""
    lines = [*_params_of(execution, arguments), body]
    if value:
        if result:
            lines.append(f"{result} = {value}")
            value = result
        names = arguments.names("returns")
        call = f"_record_value(_run, {name!r}, {value}{f', {names!r}' if names else ''})"
        lines.append(value if "no-capture" in arguments.options else call)
    late = () if arguments.options.get("params") == "none" else late_params(arguments, execution.names)
    for call, listed in (
        ("_run.log_metrics(", arguments.names("metrics")),
        ("_record_artifacts(_run, ", arguments.names("artifacts")),
        ("_run.log_params(", late),
    ):
        if known := [each for each in listed if each not in execution.missing]:
            lines.append(call + "{" + ", ".join(f"{each!r}: {each}" for each in known) + "})")
    inner = indented("\n".join(line for line in lines if line.strip()) or "pass")
    tags = {**arguments.tags(), **tags}
    options = f", tags={tags!r}" if tags else ""
    call = f"_stage({name!r}" if experiment is None else f"_experiment({experiment!r}, run_name={name!r}"
    block = f"with {call}{options}) as _run:\n{inner}"
    whole = "\n".join(part for part in (assignments(arguments), block) if part)
    return suppressed(whole, execution.status, exited=execution.exited)


def _params_of(execution: Execution, arguments: Arguments) -> list[str]:
    """The call that records the parameters which are known when the cell begins."""
    given = {key: key for key in arguments.expressions}
    found = {key: repr(value) for key, value in chosen_literals(arguments, execution.names).items()}
    listed = ", ".join(f"{key!r}: {text}" for key, text in {**found, **given}.items())
    return [f"_run.log_params({{{listed}}})"] if listed else []


def suppressed(code: str, status: str, *, exited: bool = False) -> str:
    """Code that continues after an exception, if it raised one in the notebook.

    Args:
        code: the code.
        status: how it ended.
        exited: whether it ended by an exception such as `SystemExit` or `KeyboardInterrupt`.
    """
    if status == FINISHED and not exited:
        return code
    kinds = "Exception, SystemExit, KeyboardInterrupt" if exited else "Exception"
    return f"with _suppress({kinds}):  # It {'ended here' if exited else 'failed'}.\n{indented(code)}"


def with_result(code: str, result: str) -> str:
    """A cell's code that assigns the value of its last expression."""
    body, value = split_value(code)
    return f"{body}{result} = {value}" if value else code


def awaits(code: str) -> bool:
    """Whether code awaits at top level."""
    waiting: list[ast.AST] = [ast.parse(code)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _ASYNC):
            return True
        if not isinstance(node, _SCOPES):
            waiting += ast.iter_child_nodes(node)
    return False


def in_main(code: str) -> str:
    """Code as a coroutine function `_main`. Its variables stay global, as functions of the notebook may write them."""
    tree = ast.parse(code)
    stars = [one for one in ast.walk(tree) if isinstance(one, ast.ImportFrom) and one.names[0].name == "*"]
    lines = lines_of(code)
    for star in stars:  # These are allowed at top level only.
        for at in range(star.lineno - 1, star.end_lineno or star.lineno):
            lines[at] = f"{' ' * star.col_offset}pass\n"
    typed = {
        one.target.id for one in ast.walk(tree) if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    }
    names = sorted(names_of(tree).written - typed - {ANY_NAME})
    head = "".join(f"{line}\n" for line in dict.fromkeys(map(ast.unparse, stars)))
    shared = "".join(f"    global {', '.join(names[at : at + 8])}\n" for at in range(0, len(names), 8))
    return f"{head}async def _main():\n{shared}{indented(''.join(lines))}"
