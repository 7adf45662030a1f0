"""IPython's calls in the code of cells → Python that does the same in a program."""

from __future__ import annotations

import ast
import re
from typing import Any

from trackdsl.errors import TrackdslError
from trackdsl.notebook.arguments import Arguments, parse
from trackdsl.notebook.effects import TRACKED
from trackdsl.notebook.lines import indented

#: What a program calls to fill variables into a command: with the text, and the command as it is written.
FILLED = "_filled"
_FILE = re.compile(r"[\w./-]+\.py")


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


def python_of(cell: str, transform: Any = None) -> str:
    """A cell as Python, as far as it is Python.

    Args:
        cell: as the user wrote it.
        transform: what translates its magics to calls of IPython, if not IPython without the user's settings.
    """
    first, _, rest = cell.lstrip().partition("\n")
    if re.match(r"%%time\s*$", first):  # The cell below keeps its comments.
        return python_of(rest, transform)
    if not set("%!?") & set(cell):
        return cell
    if transform is None:
        from IPython.core.inputtransformer2 import TransformerManager

        transform = TransformerManager().transform_cell
    try:
        return without_ipython(str(transform(cell)))
    except Exception:  # It is not Python. IPython says so.
        return cell


class _Translator(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> Any:
        method, arguments = _ipython_call(node.value)
        if method == "run_line_magic" and arguments[:1] == ["tracked"]:
            return self.generic_visit(node)
        if method in ("run_line_magic", "run_cell_magic"):
            python = _python(*arguments)
            return [self.visit(each) for each in ast.parse(python).body]
        return None if method and method != "push" else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> Any:
        method, arguments = _ipython_call(node)
        if method == "run_line_magic" and arguments[:1] == ["tracked"]:
            return ast.parse(_tracked(arguments[1]), mode="eval").body
        if method == "push" and node.args:
            update = ast.parse("globals().update()", mode="eval").body
            update.args = node.args[:1]  # type: ignore[attr-defined]
            return self.generic_visit(update)
        if method == "run_line_magic" and arguments[:1] == ["time"]:
            return ast.parse(arguments[1], mode="eval").body
        if method in ("run_line_magic", "run_cell_magic"):  # Its value is not known.
            return ast.Constant(None)
        if method in ("getoutput", "system") and len(arguments) == 1:
            code = f"__import__('subprocess').getoutput({filled(arguments[0])}).splitlines()"
            return ast.parse(code, mode="eval").body
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        if node.attr == "user_ns" and ast.unparse(node.value) == "get_ipython()":
            return ast.parse("globals()", mode="eval").body
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
    if magic == "time":
        return python_of(cell) if cell else line
    if magic == "capture" and cell:
        return _captured(line, python_of(cell))
    if magic == "prun" and cell:  # It has no value, whatever its last expression is.
        return f"if True:\n{indented(python_of(cell))}"
    if magic == "timeit" and cell:  # It executes the cell with variables of its own.
        return f"def _timed():\n{indented(python_of(cell))}"
    if magic in ("env", "set_env"):
        return _environment(line)
    if magic == "cd":
        return _directory(line)
    arguments = line.split()
    if magic == "run" and runs_file(line):
        return f"globals().update(__import__('runpy').run_path({arguments[0]!r}, run_name='__main__'))"
    if magic == "writefile" and arguments:
        mode = "a" if "-a" in arguments[:-1] or "--append" in arguments[:-1] else "w"
        return f"with open({arguments[-1]!r}, {mode!r}) as _file:\n    _file.write({cell!r})"
    return ""


def runs_file(line: str) -> bool:
    """Whether `%run` executes a file, without options and arguments."""
    return bool(_FILE.fullmatch(line.strip()))


def _captured(line: str, cell: str) -> str:
    words = line.split()
    names = [f" as {word}" for word in words if word.isidentifier()]
    left = [word[5:] for word in words if word in ("--no-stdout", "--no-stderr", "--no-display")]
    options = ", ".join(f"{each}=False" for each in left)
    head = f"with __import__('IPython.utils.io').utils.io.capture_output({options}){''.join(names[:1])}:"
    return f"{head}\n{indented(cell)}"


def _environment(line: str) -> str:
    """`%env` with a value. Variables in it are filled in."""
    name, split, value = line.partition("=" if "=" in line else " ")
    if not split or not value.strip() or len(name.split()) != 1:
        return ""
    return f"import os as _os\n_os.environ[{filled(name.strip())}] = {filled(value.strip())}"


def _directory(line: str) -> str:
    """`%cd`; empty for the folders that only IPython knows."""
    words = line.split()
    path = " ".join(words[1:] if words[:1] == ["-q"] else words).strip("'\"")
    if path.startswith("-"):
        return ""
    return f"import os as _os\n_os.chdir(_os.path.expanduser({filled(path or '~')}))"


def filled(text: str) -> str:
    """The expression of a command's text in which IPython fills in variables: `{expression}`, `$name`.

    >>> filled("echo hi"), filled("echo $v")
    ("'echo hi'", "_filled(lambda: f'echo {v}', 'echo $v')")
    """
    from IPython.utils.text import DollarFormatter

    parts: list[ast.expr] = []
    plain = ""
    try:
        for literal, field, spec, conversion in DollarFormatter().parse(text):
            parts.append(ast.Constant(literal))
            plain += literal
            if field is not None:
                form = ast.JoinedStr([ast.Constant(spec)]) if spec else None
                value = ast.parse(field.strip(), mode="eval").body
                parts.append(ast.FormattedValue(value, ord(conversion) if conversion else -1, form))
    except (SyntaxError, ValueError):  # As IPython does, for example with `awk '{print $1}'`.
        return repr(text)
    if not any(isinstance(part, ast.FormattedValue) for part in parts):
        return repr(plain)
    return f"{FILLED}(lambda: {ast.unparse(ast.JoinedStr(parts))}, {text!r})"


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
