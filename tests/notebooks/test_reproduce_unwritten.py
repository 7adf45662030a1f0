"""Needs that no name in a cell says: methods that operators call, late generators, copies with shared parts, `exec`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.notebooks.slices import Notebook

_CLASS = "class A:\n    n = 0\n    def {}(self{}):\n        A.n += 1\n        return {}\na = A()"
#: The cells before the last, and the expression of the last.
_NEEDED = {
    # What a class of the notebook does without a call.
    "an item": ([_CLASS.format("__getitem__", ", k", "k"), "b = a[1]"], "A.n"),
    "an item with a slice": ([_CLASS.format("__getitem__", ", k", "k"), "b = [a[at] for at in range(2)]"], "A.n"),
    "a missing key": (["from collections import defaultdict\nd = defaultdict(list)", "d['a']"], "len(d)"),
    "a length": ([_CLASS.format("__len__", "", "3"), "b = len(a)"], "A.n"),
    "a truth": ([_CLASS.format("__bool__", "", "True"), "if a:\n    b = 1"], "A.n"),
    "an operator": ([_CLASS.format("__add__", ", one", "one"), "b = a + 1"], "A.n"),
    "a comparison": ([_CLASS.format("__lt__", ", one", "True"), "b = a < 1"], "A.n"),
    "a text": ([_CLASS.format("__str__", "", "'x'"), "b = f'{a}'"], "A.n"),
    "a printed text": ([_CLASS.format("__str__", "", "'x'"), "print(a)"], "A.n"),
    "an iteration": ([_CLASS.format("__iter__", "", "iter(())"), "for b in a: pass"], "A.n"),
    "a property": (
        ["class A:\n    n = 0\n    @property\n    def b(self):\n        A.n += 1\na = A()", "a.b"], "A.n"
    ),
    "an attribute that is missing": ([_CLASS.format("__getattr__", ", k", "k"), "b = a.x"], "A.n"),
    "a block": (
        ["class A:\n    n = 0\n    def __enter__(self): A.n += 1\n    def __exit__(self, *_): A.n += 5\na = A()",
         "with a: pass"], "A.n",
    ),
    "a class below another": (
        ["class A:\n    found = []\n    def __init_subclass__(cls): A.found.append(1)", "class B(A): pass"], "A.found"
    ),
    "a metaclass": (
        ["found = []\nclass A(type):\n    def __new__(cls, *of):\n        found.append(1)\n"
         "        return super().__new__(cls, *of)", "class B(metaclass=A): pass"], "found",
    ),
    "a method of a base, which calls a function": (
        ["class A:\n    def f(self): return g()", "class B(A): pass", "def g(): return 3"], "B().f()"
    ),
    "an object of a class": (["found = []\nclass A: own = found", "A.own.append(1)"], "found"),
    "a decorator that is an attribute": (
        ["from functools import singledispatch as single\n@single\ndef f(x): return 0",
         "@f.register\ndef _(x: int): return 5"], "f(1)",
    ),
    "an operator that draws": (
        ["import random\nrandom.seed(1)\nclass A:\n    def __getitem__(self, k): return random.random()\na = A()",
         "b = a[1]"], "a[0]",
    ),
    # Names that are read late, or written without an assignment.
    "a name in a generator": (["k = 2\ng = (one * k for one in [1, 2])", "k = 5"], "sum(g)"),
    "a name from a comprehension": (["any((k := one) > 1 for one in [1, 2, 3])"], "k"),
    "a name that is deleted": (["k = 3", "del k", "try:\n    r = k\nexcept NameError:\n    r = -1"], "r"),
    "a name of a built-in function": (["max = 5", "list = [1]"], "max + len(list)"),
    "a function of such a name": (["def sum(x): return 77"], "sum([1])"),
    "such a name that is deleted": (["def len(x): return 5", "k = len([])", "del len"], "k + len([1])"),
    "a name of exec": (["k = 1", "exec('k = 2')"], "k"),
    "an object of exec": (["k = [1]", "exec('k.append(2)')"], "k"),
    "an object of eval": (["k = [1]", "eval('k.append(2)')"], "k"),
    "a name of exec that is not written there": (["k = 1", "code = 'k = 2'", "exec(code)"], "k"),
    "names of eval": (["a = 3\nb = 4"], "eval('a + b')"),
    "names of eval that are not written there": (["a = 3", "code = 'a'"], "eval(code)"),
    "a name in globals": (["a = 3"], "globals()['a']"),
    "names in globals": (["a = 3"], "'{a}'.format(**globals())"),
    "names in vars": (["a = 3"], "'{a}'.format_map(vars())"),
    "a name that globals gets": (["globals()['k'] = 3"], "k"),
    "names that globals gets": (["k = 1", "globals().update({'k': 3})"], "k"),
    "names that globals gets in a function": (["def f(**of): globals().update(of)", "f(k=3)"], "k"),
    "a name in a query": (
        ["import pandas as pd\nt = pd.DataFrame({'a': [1, 2]})", "least = 2"], "len(t.query('a >= @least'))"
    ),
    "a name of an import with a star": (["floor = abs", "from math import *"], "floor(2.5)"),
    # Objects that two names hold, or that one holds a part of.
    "two names of an assignment": (["a = b = []", "a.append(1)"], "b"),
    "a copy": (["a = {'x': [1]}\nb = a.copy()", "b['x'].append(2)"], "a"),
    "a copy of copy": (["import copy\na = [[1]]\nb = copy.copy(a)", "b[0].append(2)"], "a"),
    "a sum": (["a = [[1]]\nb = a + [[2]]", "b[0].append(2)"], "a"),
    "a part of a match": (["a = {'x': []}", "match a:\n    case {'x': b}:\n        b.append(1)"], "a"),
    "what a function returns": (["a = []\ndef f(): return a", "f().append(1)"], "a"),
    "an item of what a function returns": (["a = {}\ndef f(k): return a", "f(1)['x'] = 2"], "a"),
    "what a lambda returns": (["a = []\nf = lambda: a", "f().append(1)"], "a"),
    "an argument that a function keeps": (
        ["kept = []\ndef keep(one): kept.append(one)", "a = []", "keep(a)", "kept[0].append(1)"], "a"
    ),
    "a function that a function keeps": (
        ["kept = []\ndef keep(one): kept.append(one)", "a = []\ndef f(): a.append(1)", "keep(f)",
         "for f in kept: f()"], "a",
    ),
    "a lambda that an object keeps": (
        ["from concurrent.futures import Future\nfuture = Future()\na = []",
         "future.add_done_callback(lambda _: a.append(1))", "future.set_result(1)"], "a",
    ),
    "a function that an object keeps": (
        ["class E:\n    def __init__(self): self.kept = []\n    def on(self, f): self.kept.append(f)\n"
         "    def emit(self): self.kept[0]()\ne = E()\na = []", "@e.on\ndef f(): a.append(1)", "e.emit()"], "a",
    ),
    "objects that a class keeps": (
        ["class A:\n    made = []\n    def __init__(self): type(self).made.append(1)", "a = A()"], "A.made"
    ),
    "the dictionary of all variables": (["k = 1\ng = globals()", "g['k'] = 2"], "k"),
    # Files.
    "a file of a mode that is a variable": (
        ["mode = 'w'", "import os\nf = open(os.devnull, mode)\nwritten = f.name"], "open('/dev/null').read() + written"
    ),
    # Settings of modules.
    "setattr": (["import math", "setattr(math, 'of_a_notebook', 4)"], "math.of_a_notebook"),
    "a function that begins with set": (
        ["import numpy as np\nold = np.seterr(all='warn')", "before = np.seterr(over='raise')"], "np.geterr()['over']"
    ),
    "a setting after a star": (["from decimal import *", "getcontext().prec = 4"], "float(Decimal(1) / Decimal(3))"),
    "a function of a module of the user": (["from {module} import add, total", "n = add(3)"], "total()"),
    "a figure": (
        ["import matplotlib.pyplot as plt\nplt.switch_backend('agg')\nplt.close('all')", "plt.figure()",
         "plt.plot([1])"], "len(plt.gca().lines)",
    ),
    "a figure that has a name": (
        ["import matplotlib.pyplot as plt\nplt.switch_backend('agg')\nplt.close('all')", "fig = plt.figure()",
         "plt.plot([1])"], "len(fig.axes)",
    ),
    "how figures look": (
        ["import matplotlib as mpl\nimport matplotlib.pyplot as plt\nmpl.rcdefaults()", "plt.rc('font', size=17)"],
        "mpl.rcParams['font.size']",
    ),
}  # fmt: skip


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that keeps what its functions get."""
    name = f"of_a_user_{tmp_path.name.replace('-', '_')}"
    text = "_kept = []\ndef add(one):\n    _kept.append(one)\n    return len(_kept)\ndef total(): return sum(_kept)\n"
    (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    constants = "SIZES = {'a': 1}\ndef size(name): return SIZES[name]\n"
    (tmp_path / f"{name}_constants.py").write_text(constants, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize("name", _NEEDED)
def test_what_no_name_says(name: str, module: str) -> None:
    """The cells that are needed give the same value again; without those, another one or none."""
    cells, expression = _NEEDED[name]
    notebook = Notebook(*cells_for(cells, module), f"%%stage last\nm = {expression.replace('{module}', module)}")
    sys.modules.pop(module, None)
    assert notebook.reproduced()["m"] == notebook.namespace["m"], [step.code for step in notebook.needed()]
    assert len(notebook.needed()) > 1


def cells_for(cells: list[str], module: str) -> list[str]:
    return [cell.replace("{module}", module) for cell in cells]


_NOT_NEEDED = {
    "a column of a frame": (
        ["import pandas as pd\nt = pd.DataFrame({'a': [1]})", "unused = t.a * 2", "unused = t['a'].mean()"], "len(t)"
    ),
    "a change of a result": (
        ["import numpy as np\na = np.zeros(3)\nb = a + 1", "unused = b\nb[0] = 9"], "float(a.sum())"
    ),
    "a change of a frame that was computed": (
        ["import pandas as pd\nt = pd.DataFrame({'a': [1]})\nu = t * 2", "unused = u['a'] = 9"], "int(t.a.sum())"
    ),
    "an attribute of a class with __getattr__": (
        ["class C(dict):\n    def __getattr__(self, k): return self[k]\nc = C(x=1)", "unused = c.x"], "c.x"
    ),
    "an item of a class": (
        ["class D:\n    def __getitem__(self, k): return k * 2\nd = D()", "unused = d[1]"], "d[2]"
    ),
    "an object of a data class": (
        ["from dataclasses import dataclass\n@dataclass\nclass C:\n    x: int = 1\nc = C()", "unused = c.x + 1",
         "unused = c == c"], "c.x",
    ),
    "a generator that is consumed": (["k = 2\nt = sum(one * k for one in [1, 2])", "k = unused = 5"], "t"),
    "a module of constants": (["import json", "unused = json.loads('1')"], "json.loads('2')"),
    "a module of the user that keeps nothing": (
        ["from {module}_constants import size", "unused = size('a')"], "size('a')"
    ),
    "a list of numbers": (["a = [1, 2]\nb = a + [3]", "unused = b.append(4)"], "sum(a)"),
    "a built-in function": (["unused = len('abc')", "unused = sum([1])"], "len('a')"),
}  # fmt: skip


@pytest.mark.parametrize("name", _NOT_NEEDED)
def test_what_is_not_needed(name: str, module: str) -> None:
    """Cells that read an object, or change another one, are left out."""
    cells, expression = _NOT_NEEDED[name]
    notebook = Notebook(*cells_for(cells, module), f"%%stage last\nm = {expression}")
    needed = [step.code for step in notebook.needed()]
    assert not [code for code in needed if "unused" in code], needed
    assert notebook.reproduced()["m"] == notebook.namespace["m"]
