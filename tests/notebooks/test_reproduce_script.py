"""`reproduce.py` of many small notebooks, each with something that a reader of code may overlook."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.notebooks.kernels import Kernel
from tests.notebooks.programs import counting, finished, reproduced

#: The cells of each notebook, and the metric `m` that its last stage records.
_NOTEBOOKS = {
    "another name of a list": (["a = [1]", "b = a", "b.append(5)", "%%stage s --metrics m\nm = sum(a)"], 6),
    "a list in a dictionary": (["x = []", "d = {'x': x}", "x += [3]", "%%stage s --metrics m\nm = sum(d['x'])"], 3),
    "a column of a frame": (
        ["import pandas as pd", "t = pd.DataFrame({'a': [1, 2]})", "u = t", "u.loc[0, 'a'] = 7",
         "%%stage s --metrics m\nm = int(t.a.sum())"], 9,
    ),
    "a function that changes an object": (
        ["d = {}\nn = 0", "def f():\n    global n\n    n += 1\n    d['k'] = n", "f()", "f()",
         "%%stage s --metrics m\nm = d['k'] + n"], 4,
    ),
    "a decorator that registers": (
        ["seen = []", "def noted(f):\n    seen.append(len(f.__name__))\n    return f", "@noted\ndef abc(): ...",
         "%%stage s --metrics m\nm = sum(seen)"], 3,
    ),
    "an annotation": (
        ["from typing import Any as Anything", "def f(x: Anything) -> Anything:\n    return x",
         "%%stage s --metrics m\nm: Anything = f(3)"], 3,
    ),
    "names written on one branch": (
        ["n = 2", "if n > 5:\n    n = 3\nfor i in []:\n    n = 4", "%%stage s --metrics m\nm = n"], 2,
    ),
    "names of a pattern": (
        ["match [1, 2]:\n    case [x, *rest]:\n        pass", "%%stage s --metrics m\nm = x + rest[0]"], 3,
    ),
    "names that are not written": (
        ["from math import *", "exec('z = 4')", "%%stage s --metrics m\nm = floor(pi) + z"], 7,
    ),
    "settings of modules": (
        ["import decimal, os", "decimal.getcontext().prec = 3", "%env REPRODUCED=5\nos.environ['ALSO'] = '6'",
         "%%stage s --metrics m\nm = float(1 / decimal.Decimal(3)) + int(os.environ['REPRODUCED'])"], 5.333,
    ),
    "files": (
        ["%%writefile of_a_notebook.py\nvalue = 5", "from of_a_notebook import value",
         "with open('data.txt', 'w') as f:\n    f.write('4')",
         "%%stage s --metrics m\nm = value + len(open('data.txt').read())"], 6,
    ),
    "magics in cells": (
        ["%time v = 3", "%%capture shown\nprint('abc')", "if v:\n    %matplotlib inline",
         "%%stage s --metrics m\n%matplotlib inline\nv?\nm = v + len(shown.stdout)\ndisplay(m)\nm;"], 7,
    ),
    "cells that failed": (
        ["q = [1]", "q.append(2)\n1 / 0", "def f(a):\n    return a", "%tracked f b=3", "%%stage bad\n1 / 0",
         "%%stage s --metrics m\nm = sum(q)"], 3,
    ),
    "values under IPython's names": (
        ["3 * 5", "k = _ + 1", "%%stage a\nk * 2", "None", "%%stage s --metrics m\nm = _ + __ + k"], 63,
    ),
    "values in Out": (["4", "5;", "6", "%%stage s --metrics m\nm = sum(Out.values())"], 10),
    "settings in the cell of the import": (
        ["import decimal; decimal.getcontext().prec = 2", "%env REPRODUCED=7\n%env REPRODUCED={int('3') + 5}",
         "%%stage s --metrics m\nimport os\nm = float(1 / decimal.Decimal(3)) + int(os.environ['REPRODUCED'])"], 8.33,
    ),
    "functions of the same cell": (
        ["data = []", *["%%stage a\ndef grow(): data.append(1)\ngrow(); (lambda: data.append(2))()"] * 2,
         "%%stage s --metrics m\nm = sum(data)"], 6,
    ),
    "commands below magics": (
        ["v = 4", "%%time\n!echo hi\nw = 5",
         "%%stage a\n%%time\n!echo hi\nu = !echo {v} $w", "%%stage b\n%%capture out\n!echo hi\nprint('abc')",
         "%%stage c\n# nothing", "%%stage s --metrics m\nm = int(u[0].replace(' ', '')) + out.stdout.count('abc')"], 46,
    ),
    "stages that exited": (
        ["d = []", "%%stage a\nd.append(1)\nraise SystemExit(2)", "%%stage b\nd.append(2)\nimport sys\nsys.exit()",
         "%%stage c\nd.append(3)\nraise KeyboardInterrupt", "%%stage s --metrics m\nm = sum(d)"], 6,
    ),
    "methods that draw": (
        ["%matplotlib inline\nimport matplotlib.pyplot as plt\nfig, ax = plt.subplots()",
         "ax.plot([1, 2]); ax.hist([1])",
         "import queue\nq = queue.Queue()\nq.put(1); q.put(2)", "q.get()",
         "%%stage s --metrics m\nm = len(ax.lines) + len(ax.patches) + q.get()"], 13,
    ),
    "iterators and closures": (
        ["g = iter(range(9))\ndef make():\n    n = 0\n    def inc():\n        nonlocal n\n        n += 1\n"
         "        return n\n    return inc\ninc = make()",
         *["%%stage a\nfor x in g: break\ninc()"] * 2, "%%stage s --metrics m\nm = next(g) + 10 * inc()"], 32,
    ),
    "options without a variable": (
        ["%%stage s --metrics m,no1 --params p,no2 --artifacts t,no3\nm = p = 8\nt = {'a': 1}"], 8,
    ),
    "a literal that is changed later": (["%%stage s --metrics m\nm = 0\nfor i in range(4):\n    m += i"], 6),
    "a method that a library adds": (
        ["import pandas as pd\nfrom tqdm import tqdm", "tqdm.pandas()",
         "%%stage s --metrics m\nm = int(pd.Series([3]).progress_apply(abs).sum())"], 3,
    ),
    "programs that cells run": (
        ["%%writefile ran.py\nvalue = 4\ndef twice(x): return 2 * x", "%run ran.py",
         "%%stage s --metrics m\nm = value + twice(3)"], 10,
    ),
    "names and objects of exec": (
        ["k = 1\na = [1]", "exec('k = 2\\na.append(k)')", "text = 'k += 1'", "exec(text)",
         "%%stage s --metrics m\nm = k + sum(a) + eval('k')"], 9,
    ),
    "variables of IPython": (
        ["get_ipython().push({'p': 3})\nget_ipython().user_ns['q'] = 4", "t = %time p + q",
         "%%stage s --metrics m\nm = p * q + t"], 19,
    ),
    "names of built-in functions": (
        ["max = 5", "def sum(x): return 70", "%%stage s --metrics m\nm = max + sum([1])"], 75,
    ),
    "classes that register": (
        ["class A:\n    found = []\n    def __init_subclass__(cls): A.found.append(cls)", "class B(A): v = 1",
         "class C(A): v = 20", "%%stage s --metrics m\nm = sum(one.v for one in A.found)"], 21,
    ),
    "methods without a call": (
        ["class A:\n    n = 0\n    def __getitem__(self, k):\n        A.n += 1\n        return k", "a = A()",
         "b = a[3]", "with_b = [a[1], a[2]]", "%%stage s --metrics m\nm = A.n + b"], 6,
    ),
    "earlier executions": (
        ["x = []", *["%%stage s --metrics m\nx.append(1)\nm = len(x)"] * 2], 2,
    ),
}  # fmt: skip
_SEEDED = {
    "of random": (["import random", "random.seed(1)", "r = random.random()"], "random.random()"),
    "by names": (["from random import random, seed", "seed(2)", "r = random()"], "random()"),
    "in a function": (["import random", "def begin(s):\n    random.seed(s)", "begin(3)"], "random.random()"),
    "of NumPy, for scikit-learn": (
        ["import numpy as np", "np.random.seed(4)", "from sklearn.utils import shuffle", "y = shuffle([1, 2, 3])"],
        "float(shuffle([1., 2., 3.])[0] + y[0])",
    ),
}  # fmt: skip


@pytest.mark.slow
def test_programs_of_notebooks(kernel: Kernel, tmp_path: Path) -> None:
    """The program of each notebook records, in a fresh process, what the notebook recorded below its root."""
    here = tmp_path / "notebook"
    here.mkdir()
    programs, expected = {}, {}
    notebooks = {**_NOTEBOOKS}
    for name, (cells, expression) in _SEEDED.items():
        notebooks[name] = ([*cells, f"%%stage s --metrics m\nm = {expression}"], None)
    for at, (name, (cells, result)) in enumerate(notebooks.items()):
        kernel.ok(f"%reset -f\nimport os\nos.chdir({str(here)!r})")
        kernel.ok("%experiment reproduced")
        for number, code in enumerate(cells):
            kernel.run(code, cell=f"{at}-{number}" if code != cells[number - 1] else f"{at}-{number - 1}")
        kernel.ok("%experiment --end")
        root = [run for run in kernel.recorded() if run.parent is None][-1]
        expected[name] = counting(kernel, root)
        if result is not None:
            assert expected[name][-1].metrics["m"] == pytest.approx(result), (name, expected[name])
        programs[name] = root.artifacts["reproduce.py"]
    found = reproduced(programs, tmp_path)
    for name, runs in expected.items():
        assert finished(found[name]) == finished(runs), (name, programs[name])


def test_runs_of_cells_without_a_magic(kernel: Kernel) -> None:
    """Cells that call decorated functions, or record in the root, are in the program; what they do not need is not."""
    kernel.ok("%experiment plain seed=3 --tags team=cv\nfrom trackdsl import log_metric, stage")
    kernel.ok("@stage\ndef f(x):\n    return x")
    kernel.ok("never_needed = 5")
    kernel.ok("f(seed)")
    kernel.ok("print('shown')\nlog_metric('loss', 1)")
    kernel.ok("%experiment --end")
    artifacts = kernel.recorded()[0].artifacts
    program = artifacts["reproduce.py"]
    assert "f(seed)" in program
    assert "log_metric('loss', 1)" in program
    assert "_root.log_params({'seed': seed})" in program
    assert "tags={'team': 'cv'}" in program
    assert "never_needed" not in program
    cells = json.loads(artifacts["session.ipynb"])["cells"]
    assert any(cell["source"].startswith("%experiment plain seed=3") for cell in cells)
    assert [one["outputs"][0]["text"] for one in cells if "shown" in one["source"]] == ["shown\n"]
    assert all(cell["execution_count"] for cell in cells)


def test_a_cell_that_ran_a_function_is_kept_as_written(kernel: Kernel) -> None:
    """`session.ipynb` has `%tracked` and the magics that it needs, so that it can be executed."""
    kernel.ok("%load_ext trackdsl")
    kernel.ok("def f(x):\n    return x")
    kernel.ok("%tracked f 3")
    kernel.ok("%experiment --end")
    cells = json.loads(kernel.recorded()[0].artifacts["session.ipynb"])["cells"]
    assert [cell["source"] for cell in cells[-3:]] == ["%load_ext trackdsl", "def f(x):\n    return x", "%tracked f 3"]


def test_the_execution_count(kernel: Kernel) -> None:
    """The tag `trackdsl.cell` has the number that the notebook shows beside the cell."""
    answer = kernel.run("%%stage counted\n1", cell="a")
    shown = next(m["content"]["execution_count"] for m in answer.messages if m["msg_type"] == "execute_input")
    assert json.loads(kernel.one("counted").tags["trackdsl.cell"])["count"] == shown
