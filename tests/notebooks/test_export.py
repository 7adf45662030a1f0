"""What the root of a notebook keeps at its end: a notebook of what counts, and a program that gives the same."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.notebooks.kernels import ROOT, Kernel
from trackdsl.notebook.lines import indented, split_value
from trackdsl.notebook.translation import without_ipython

_RUN = """
import json, runpy, sys
from trackdsl.testing import capture_runs
with capture_runs() as captured:
    runpy.run_path(sys.argv[1], run_name="__main__")
    found = [[r.name, r.parent and r.parent.name, r.params, {k: p[-1].value for k, p in r.metrics.items()},
              sorted(set(r.artifacts) - {"cell.py", "output.txt"})] for r in captured.runs]
print("RUNS" + json.dumps(found))
"""


def _reproduced(program: str, folder: Path) -> list[Any]:
    """The runs that a program records in a fresh process."""
    path = folder / "reproduce.py"
    path.write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(path)], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=folder,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, (done.stderr, program)
    return list(json.loads(done.stdout.partition("RUNS")[2]))


def _counting(kernel: Kernel) -> list[Any]:
    return [
        [run.name, run.parent, run.params, run.metrics,
         sorted(set(run.artifacts) - {"cell.py", "output.txt", "session.ipynb", "reproduce.py"})]
        for run in kernel.recorded() if not run.tags.get("trackdsl.superseded_by")
    ]  # fmt: skip


def _end(kernel: Kernel) -> dict[str, str]:
    kernel.ok("%experiment --end")
    artifacts: dict[str, str] = kernel.recorded()[0].artifacts
    return artifacts


def test_the_program_gives_the_same(kernel: Kernel, tmp_path: Path) -> None:
    """`reproduce.py` gives the runs that count with the same parameters, metrics and files, and nothing superseded."""
    for cell, code in (
        (None, "from __future__ import annotations\nimport random\nimport math as m"),
        (None, "%experiment churn seed=3"),
        (None, "unused = 1\nraise_if_run = open('/nowhere/' + str(unused), 'a') if unused > 1 else 0"),
        ("a", "%%stage load\nrows = [1, 2]\nlen(rows)"),
        ("a", "%%stage load size=4\ntext = '''two\n  lines'''\nrows = list(range(size))\nlen(rows) + len(text)"),
        (None, "%matplotlib inline\ndef scaled(x):\n    '''Text\n    of it.'''\n    return x * factor"),
        (None, "factor = 0.5"),
        (None, "%%time\nhalf = [scaled(x) for x in rows]"),
        (None, "half.append(9)"),
        ("b", "%%stage fit-{kind} kind='rf' lr=seed/2 --metrics acc --artifacts table\n%%time\n# a comment\n"
              "random.seed(seed)\nepochs = 3\nacc = random.random() * lr + sum(half)\ntable = {'x': [1]}"),
        ("c", "%%stage score --returns low,high\nprint('hello')\nm.floor(acc), m.ceil(acc)"),
        (None, "def train(n, lr=1):\n    return {'loss': n * lr}"),
        ("d", "loss = %tracked train len(rows) lr=seed"),
        ("e", "%%stage last\nloss['loss'] + 1"),
        (None, "def check(least):\n    return {'passed': int(acc > least)}"),
        ("f", "%tracked check 2"),
        ("f", "%tracked check 1"),
    ):  # fmt: skip
        kernel.ok(code, cell=cell)
    artifacts = _end(kernel)
    program = artifacts["reproduce.py"]
    assert "unused" not in program

    assert "# a comment" in program
    expected = _counting(kernel)

    assert sorted(_reproduced(program, tmp_path), key=str) == sorted(expected, key=str)


def test_names_are_no_code(kernel: Kernel, tmp_path: Path) -> None:
    """Names of runs stay texts in the program, whatever is in them."""
    name = '"""\'{1/0}\\\n'
    kernel.ok(f"name = {name!r}")
    kernel.ok('%experiment odd --run-name a\'"""{b}\'')
    kernel.ok("%%stage s-{name}\n1", cell="a")
    recorded = [run.name for run in kernel.recorded()]
    assert "{1/0}" in recorded[1]
    runs = _reproduced(_end(kernel)["reproduce.py"], tmp_path)
    assert [run[0] for run in runs] == recorded


def test_a_program_that_awaits(kernel: Kernel, tmp_path: Path) -> None:
    """Cells that await give a program too."""
    kernel.ok("import asyncio\nfrom math import *\ncount: int = 0\nruns = 0")
    kernel.ok("def f():\n    global runs\n    runs += floor(pi)\nf()")
    kernel.ok("%%stage wait --metrics x,runs\nx = await asyncio.sleep(0, 5)", cell="a")
    kernel.ok("%%stage value\nawait asyncio.sleep(0, x + 1)", cell="b")
    program = _end(kernel)["reproduce.py"]
    assert [(name, metrics) for name, _, _, metrics, _ in _reproduced(program, tmp_path)] == [
        ("notebook", {}), ("wait", {"x": 5.0, "runs": 3.0}), ("value", {"value": 6.0}),
    ]  # fmt: skip


def test_the_session_as_a_notebook(kernel: Kernel) -> None:
    """`session.ipynb` has the executions that count and what they need, with outputs and errors; it is valid."""
    kernel.ok("import sys")
    for at in range(2):
        kernel.ok(f"%%stage load\nx = {at}\nprint('printed', x)\nx", cell="a")
    kernel.run("%%stage bad\nraise ValueError(str(x) + sys.platform)", cell="b")
    found = nbformat.reads(_end(kernel)["session.ipynb"], as_version=4)
    nbformat.validate(found)
    assert [cell.source for cell in found.cells] == [
        "import sys", "%%stage load\nx = 1\nprint('printed', x)\nx",
        "%%stage bad\nraise ValueError(str(x) + sys.platform)",
    ]  # fmt: skip
    assert found.cells[1].outputs[0].text == "printed 1\n"
    assert found.cells[1].outputs[1].data["text/plain"] == "1"
    assert found.cells[2].outputs[0].ename == "ValueError"
    assert found.cells[2].metadata.trackdsl["status"] == "FAILED"


def test_secrets_are_masked_in_both(kernel: Kernel) -> None:
    """A secret in a source, a value, printed text or an exception is in neither file."""
    secret = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
    kernel.ok(f"key = '{secret}'")
    kernel.ok(f"%%stage one password='{secret}'\nprint(key)\nkey", cell="a")
    kernel.run(f"%%stage two\nprint(key, '{secret}')\nraise ValueError(key)", cell="b")
    kernel.ok("%%stage three\npassword = 'hunter2-hunter2'", cell="c")
    artifacts = _end(kernel)
    for text in (artifacts["session.ipynb"], artifacts["reproduce.py"]):
        assert "ghp_0123" not in text
        assert "hunter2" not in text
    ast.parse(artifacts["reproduce.py"])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("get_ipython().run_line_magic('matplotlib', 'inline')\nx = 1", "x = 1"),
        ("get_ipython().system('pip install x')", ""),
        ("y = get_ipython().run_line_magic('tracked', 'f a b=1 # c')", "y = _tracked(f)(a, b=1)"),
        ("get_ipython().run_line_magic('experiment', 'churn a=1 --tags b=c')", "a = 1"),
        ("get_ipython().run_cell_magic('time', '', 'z = 1\\n')", "z = 1"),
        ("q = 1", "q = 1"),
        ("get_ipython().user_ns['a'] = 1", "globals()['a'] = 1"),
        ("get_ipython().push({'a': 1})", "globals().update({'a': 1})"),
        ("t = get_ipython().run_line_magic('time', 'f(1)')", "t = f(1)"),
        ("t = get_ipython().run_line_magic('timeit', '-o f(1)')", "t = None"),
        (
            "get_ipython().run_line_magic('run', 'a/b.py')",
            "globals().update(__import__('runpy').run_path('a/b.py', run_name='__main__'))",
        ),
        ("get_ipython().run_line_magic('run', 'b.py -x')", ""),
    ],
)
def test_code_without_ipython(code: str, expected: str) -> None:
    """Calls of IPython become Python, or are left out."""
    assert without_ipython(code) == expected


@pytest.mark.parametrize(
    "code", ["x = 1", "x = '''a\n  b'''", "def f():\n    '''d\n    e'''\n\nf()", "x = f'''{1}\n b'''"]
)
def test_indented_code_means_the_same(code: str) -> None:
    """Code in a block is the same code, whatever texts it has."""
    block = ast.parse(f"if True:\n{indented(code)}").body[0]
    assert isinstance(block, ast.If)
    assert [ast.dump(one) for one in block.body] == [ast.dump(one) for one in ast.parse(code).body]


def test_the_last_expression() -> None:
    """The last expression is split off, unless a semicolon silences it."""
    assert split_value("a = 1; ä = 2; a + ä") == ("a = 1; ä = 2; ", "a + ä")
    assert split_value("f(1,\n  2)") == ("", "(f(1,\n  2))")
    assert split_value("f(1);") == ("f(1);", "")
    assert split_value("x = 1") == ("x = 1", "")
