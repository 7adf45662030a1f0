"""The code of cells as that of a script: without IPython's calls, and with the stages as `with` blocks."""

from __future__ import annotations

import ast
import textwrap
from typing import Any

from trackdsl._runs.exceptions import FINISHED
from trackdsl.errors import TrackdslError
from trackdsl.notebook.arguments import Arguments, parse
from trackdsl.notebook.effects import ANY_NAME, TRACKED
from trackdsl.notebook.executions import Execution
from trackdsl.notebook.names import names_of
from trackdsl.notebook.values import chosen_literals, late_params

#: Magics whose cell is Python.
_PYTHON = ("time", "capture", "prun")
_ASYNC = (ast.Await, ast.AsyncFor, ast.AsyncWith)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def without_ipython(code: str) -> str:
    """Translated code without calls of IPython: our magics become Python, other magics and commands are left out."""
    if "get_ipython()" not in code:
        return code
    try:
        tree = _Translator().visit(ast.parse(code))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module) and (body := getattr(node, "body", None)) == []:
                body.append(ast.Pass())
        return ast.unparse(ast.fix_missing_locations(tree))
    except (SyntaxError, ValueError, RecursionError, TrackdslError):
        return code


class _Translator(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> Any:
        method, arguments = _ipython_call(node.value)
        if method == "run_line_magic" and arguments[:1] == ["tracked"]:
            return self.generic_visit(node)
        if method in ("run_line_magic", "run_cell_magic"):
            python = _python(*arguments)
            return [self.visit(each) for each in ast.parse(python).body]
        return None if method else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> Any:
        method, arguments = _ipython_call(node)
        if method == "run_line_magic" and arguments[:1] == ["tracked"]:
            return ast.parse(_tracked(arguments[1]), mode="eval").body
        if method in ("getoutput", "system") and len(arguments) == 1:
            return ast.parse(f"__import__('subprocess').getoutput({arguments[0]!r}).splitlines()", mode="eval").body
        return self.generic_visit(node)


def _ipython_call(node: ast.AST) -> tuple[str, list[str]]:
    """The method and the texts of `get_ipython().method("text", …)`; empty for anything else."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return "", []
    inner = node.func.value
    if not (isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "get_ipython"):
        return "", []
    texts = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return node.func.attr, texts


def _python(magic: str, line: str = "", cell: str = "") -> str:
    """A magic as Python code; empty if the results do not need it."""
    if magic == "experiment" and not cell:
        return assignments(_of_experiment(line))
    if magic == "time" and not cell:
        return line
    if magic == "capture" and (name := line.partition(" ")[0]).isidentifier():
        head = f"with __import__('IPython.utils.io').utils.io.capture_output() as {name}:"
        return f"{head}\n{indented(cell)}"
    if magic in _PYTHON:
        return cell
    arguments = line.split()
    if magic in ("env", "set_env") and len(arguments) in (1, 2) and "{" not in line and "$" not in line:
        name, _, value = line.partition("=") if "=" in line else line.partition(" ")
        return f"import os as _os\n_os.environ[{name.strip()!r}] = {value.strip()!r}" if value.strip() else ""
    if magic == "cd" and len(arguments) == 1 and arguments[0][0] not in "-$~{":
        return f"import os as _os\n_os.chdir({arguments[0]!r})"
    if magic == "writefile" and arguments:
        mode = "a" if "-a" in arguments[:-1] or "--append" in arguments[:-1] else "w"
        return f"with open({arguments[-1]!r}, {mode!r}) as _file:\n    _file.write({cell!r})"
    return ""


def _of_experiment(line: str) -> Arguments:
    return parse("%experiment", line, {"tags": True, "run-name": True, "end": False, "help": False})


def _tracked(line: str) -> str:
    found = parse("%tracked", line, {"help": False})
    function, *positional = found.positional
    given = [*positional, *(f"{key}={text}" for key, text in found.expressions.items())]
    return f"{TRACKED}({function})({', '.join(given)})"


def assignments(arguments: Arguments) -> str:
    """The statements that assign the expressions of a magic."""
    return "\n".join(f"{key} = {text}" for key, text in arguments.expressions.items())


def stage_block(execution: Execution, code: str, tags: dict[str, str]) -> str:
    """A cell with a magic, as a `with` block that records the same parameters, metrics and values.

    Args:
        execution: its execution; one that failed does not end the script.
        code: the cell, without magics.
        tags: the tags of the run.
    """
    name, arguments = execution.name, execution.arguments
    if arguments is None:
        return code
    body, value = split_value(code)
    if value and execution.body.rstrip().endswith(";"):
        body, value = code, ""
    lines = [*_params_of(execution, arguments), body]
    if value:
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
    options = f", tags={tags!r}" if tags else ""
    block = f"with _stage({name!r}{options}) as _run:\n{inner}"
    return suppressed("\n".join(part for part in (assignments(arguments), block) if part), execution.status)


def _params_of(execution: Execution, arguments: Arguments) -> list[str]:
    """The call that records the parameters which are known when the cell begins."""
    given = {key: key for key in arguments.expressions}
    found = {key: repr(value) for key, value in chosen_literals(arguments, execution.names).items()}
    listed = ", ".join(f"{key!r}: {text}" for key, text in {**found, **given}.items())
    return [f"_run.log_params({{{listed}}})"] if listed else []


def suppressed(code: str, status: str) -> str:
    """Code that continues after an exception, if it raised one in the notebook."""
    return code if status == FINISHED else f"with _suppress(Exception):  # It failed.\n{indented(code)}"


def split_value(code: str) -> tuple[str, str]:
    r"""A cell's code before its last expression, and that expression; empty without one, or if a `;` silences it.

    >>> split_value("x = 1\nx + 1")
    ('x = 1\n', 'x + 1')
    """
    tree = ast.parse(code)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr) or code.rstrip().endswith(";"):
        return code, ""
    value = ast.get_source_segment(code, last.value) or ""
    lines = code.splitlines(keepends=True)
    before = "".join(lines[: last.lineno - 1]) + lines[last.lineno - 1].encode()[: last.col_offset].decode()
    bare = "\n" in value or isinstance(last.value, (ast.Tuple, ast.NamedExpr))
    return before, f"({value})" if bare else value


def indented(code: str) -> str:
    """Code in a block. Texts of several lines keep their content."""
    tree = ast.parse(code)
    if any(isinstance(one, (ast.Constant, ast.JoinedStr)) and _is_long_text(one) for one in ast.walk(tree)):
        # As the body of a block that is taken away again, it is unparsed at this depth.
        block = ast.If(ast.Constant(True), tree.body or [ast.Pass()], [])
        return ast.unparse(ast.fix_missing_locations(ast.Module([block], []))).partition("\n")[2]
    return textwrap.indent(code.rstrip("\n"), "    ")


def _is_long_text(node: ast.Constant | ast.JoinedStr) -> bool:
    return node.end_lineno != node.lineno and (isinstance(node, ast.JoinedStr) or isinstance(node.value, (str, bytes)))


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
    lines = code.splitlines(keepends=True)
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
