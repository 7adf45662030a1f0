"""The code of cells as that of a program: magics and commands as Python, faulty cells, long ones."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trackdsl.notebook.arguments import parse
from trackdsl.notebook.executions import Execution
from trackdsl.notebook.export import commands_of
from trackdsl.notebook.lines import indented, is_silenced, split_value
from trackdsl.notebook.magics import _STAGE
from trackdsl.notebook.names import MAX_CELL, names_in
from trackdsl.notebook.program import script
from trackdsl.notebook.roots import Opened
from trackdsl.notebook.steps import Step
from trackdsl.notebook.translation import FILLED, python_of

_CELLS = {
    "a command below a magic": ("%%time\n!echo hi\nm = 3", 3),
    "a line magic below a magic": ("%%time\n%matplotlib inline\nm = 4", 4),
    "a help line below a magic": ("%%time\nstr?\nm = 4", 4),
    "two magics": ("%%time\n%%capture out\nprint('abc')\nm = 5", 5),
    "two magics, with a command": ("%%capture out\n%%time\n!echo hi\nm = 5", 5),
    "a magic with options": ("%%time --no-raise-error\n!echo hi\nm = 6", 6),
    "prun": ("%%prun -q\n!echo hi\nm = 7\nm", 7),
    "captured text": ("%%capture --no-stderr out\nprint('abc')\nm = 1", 1),
    "text that is not captured": ("%%capture\nprint('abc')\nm = 1", 1),
    "output of a command": ("m = !echo 8", ["8"]),
    "a variable in a command": ("v = 7\nm = !echo {v}", ["7"]),
    "a name in a command": ("v = 7\nm = !echo $v", ["7"]),
    "an attribute in a command": ("v = 7\nm = !echo $v.real x", ["7 x"]),
    "an expression in a command": ("v = 7\nm = !echo {v + 1:03d}", ["008"]),
    "no variable in a command": ("m = !echo abc | awk '{print $1}'", ["abc"]),
    "an unknown name in a command": ("m = !echo a${HOME_X}$HOME_X", ["a"]),
    "a variable in a command below a magic": ("%%time\nv = 7\nm = !echo {v}", ["7"]),
    "env": ("%env REPRODUCE_X=3\nimport os\nm = os.environ['REPRODUCE_X']", "3"),
    "env with spaces": ("%env REPRODUCE_X=--a --b c\nimport os\nm = os.environ['REPRODUCE_X']", "--a --b c"),
    "env without an equals sign": ("%env REPRODUCE_X 3 4\nimport os\nm = os.environ['REPRODUCE_X']", "3 4"),
    "env with a variable": ("v = 2\n%env REPRODUCE_X={v}\nimport os\nm = os.environ['REPRODUCE_X']", "2"),
    "set_env with a variable": ("v = 2\n%set_env REPRODUCE_X $v\nimport os\nm = os.environ['REPRODUCE_X']", "2"),
    "cd": ("%cd -q sub\nimport os\nm = os.path.basename(os.getcwd())", "sub"),
    "cd with quotes": ("%cd 'sub'\nimport os\nm = os.path.basename(os.getcwd())", "sub"),
    "cd with a variable": ("v = 'sub'\n%cd {v}\nimport os\nm = os.path.basename(os.getcwd())", "sub"),
}


def _filled(text: Any, written: str) -> str:
    try:
        return str(text())
    except Exception:
        return written


@pytest.mark.parametrize("name", _CELLS)
def test_cells_with_magics(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell with magics and commands is Python that leaves the same variable, and its names are known."""
    cell, expected = _CELLS[name]
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPRODUCE_X", "")
    code = python_of(cell)
    namespace: dict[str, Any] = {FILLED: _filled}
    exec(code, namespace)  # noqa: S102
    assert namespace["m"] == expected
    assert "get_ipython" not in code
    names = names_in(code)
    assert "m" in names.written
    assert ("v" in names.read) == ("v = " in cell)
    assert ("out" in names.written) == ("out\n" in cell)
    assert os.getcwd()


@pytest.mark.parametrize(
    ("cell", "silenced"),
    [
        ("3  ;  # c", True), ("3;\n# c\n", True), ("3; \n\n", True), ("(3) ;", True), ("x = 1; 3", False),
        ("3  # ;", False), ("';'", False), ("'; # c'", False), ("f(1,\n 2);# c", True), ("3\n# ;", False),
        ("!ls\n3;", True), ("!ls\n3 ; # c", True), ("!ls\n'; # c'", False),
    ],
)  # fmt: skip
def test_silenced_values(cell: str, silenced: bool) -> None:
    """A semicolon after the last expression silences its value, also before a comment."""
    assert is_silenced(cell) == silenced
    if "!" not in cell:
        assert (not split_value(cell)[1]) == silenced


def test_lines_that_python_does_not_split() -> None:
    """Form feeds and other separators of lines, which are none for Python, do not move the last expression."""
    for separator in "\x0b\x0c\x1c\u2028\x85":
        assert split_value(f"x = '{separator}'\r\nx + 1") == (f"x = '{separator}'\r\n", "x + 1")


def test_a_long_line() -> None:
    """The last expression of a line with millions of characters is found at once."""
    text = "x" * 3_000_000
    assert split_value(f"a = '{text}'; a\n") == (f"a = '{text}'; ", "a")
    assert split_value(f"'{text}'") == ("", f"'{text}'")


def test_the_names_of_a_long_cell() -> None:
    """A cell that is too long to be read may write any name."""
    assert names_in(f"a = '{'x' * MAX_CELL}'").written == {"*"}


def test_a_block_without_statements() -> None:
    """Code that is only a comment is a valid block."""
    for code in ("# nothing yet", "\n\n# a\n  # b\n", "", "'''a\nb'''"):
        ast.parse(f"if True:\n{indented(code)}")


def _step(body: str, line: str = "s", **given: Any) -> Step:
    code = python_of(body)
    execution = Execution(("root", line, line), "1", 1, f"%%stage {line}\n{body}", body, status="FINISHED")
    execution.names = names_in(code)
    execution.arguments = parse("%%stage", line, _STAGE)
    for key, value in given.items():
        setattr(execution, key, value)
    return Step(code, execution.names, execution)


def _program(*steps: Step) -> tuple[str, list[str]]:
    run: Any = SimpleNamespace(name="r", experiment="e", id="root")
    return script(Opened(run, 0), steps, [step.execution for step in steps if step.execution is not None])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("# nothing yet", ""), ("%%bash\necho hi", ""), ("!echo hi", ""), ("x = (", "never closed"),
        ("nonlocal x", "nonlocal"), ("return 3", "return"), ("x = 1\nglobal x", "global"), ("yield 3", "syntax"),
        ("x = '\0'", "null bytes"), (f"x = '{'x' * MAX_CELL}'", "too long"), ("%%time\n!echo hi\nx = 1", ""),
        ("%%html\n<b>", ""), ("f'''{1}\n  a'''", ""), ("%%timeit\n!echo hi\nx = 1", ""), ("%%capture\n# none", ""),
    ],
)  # fmt: skip
def test_a_faulty_cell_costs_itself(body: str, reason: str) -> None:
    """Cells that are no Python, or too long, are left out, and the program names them; the others are there."""
    program, omitted = _program(_step("a = 1", "one"), _step(body, "odd"), _step("b = 2", "two"))
    compile(program, "program", "exec")
    assert "a = 1" in program
    assert "b = 2" in program
    assert ("# Differs from the notebook: the cell of 'odd'" in program) == bool(reason)
    if reason:
        (only,) = omitted
        assert only.startswith("the cell of 'odd' is left out")
        assert reason in only
    else:
        assert not omitted
        assert "_stage('odd')" in program


@pytest.mark.parametrize(
    ("status", "exited"), [("FAILED", False), ("FAILED", True), ("KILLED", True), ("FINISHED", True)]
)
def test_stages_that_did_not_end_normally(status: str, exited: bool) -> None:
    """A program continues after a stage that ended by an exception, `SystemExit` or an interrupt."""
    program, omitted = _program(_step("a = 1", "one", status=status, exited=exited))
    assert ("_suppress(Exception, SystemExit, KeyboardInterrupt)" in program) == exited
    assert "_suppress(Exception" in program
    assert bool(omitted) == (status == "KILLED")


def test_commands_that_are_left_out() -> None:
    """The program lists commands, and magics that execute other code, as these may have changed files or names."""
    steps = [
        Step("", names_in(""), source="!echo 5 > f.txt\n%matplotlib inline\nx = 5\nif x:\n    !ls"),
        Step("", names_in(""), source="%%bash\necho 1"), Step("", names_in(""), source="%run helper.py -x"),
        Step("", names_in(""), source="%run other.py\nt = %timeit -o 1"),
        Step("", names_in(""), source="y = '!no'\nz = 5 % run\n%%time"), _step("!echo {x}\na = 1"),
        Step("", names_in(""), source="!ls"),
    ]  # fmt: skip
    found = commands_of(steps)
    assert found == ["!echo 5 > f.txt", "!ls", "%%bash", "%run helper.py -x", "t = %timeit -o 1", "!echo {x}"]
    run: Any = SimpleNamespace(name="r", experiment="e", id="root")
    program, omitted = script(Opened(run, 0), steps[-2:], [], found)
    compile(program, "program", "exec")
    assert "# Left out: !echo 5 > f.txt\n# Left out: !ls\n" in program
    assert not omitted
