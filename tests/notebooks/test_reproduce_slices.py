"""The steps that the last results need, of many small notebooks: they give the same variable `m`, and are no others."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.notebooks.slices import SETTINGS, Notebook
from trackdsl.notebook.names import Names, names_of, parsed, with_expressions

_SET = f"import {SETTINGS} as s\n"
_READ = f"%%stage last\nimport {SETTINGS} as s\nm = (s.value, s.current.value, list(s.path), dict(s.table))"

_SETTINGS_OF_MODULES = {
    "in the cell of the import": [_SET + "s.value = 3"],
    "on the line of the import": [f"import {SETTINGS} as s; s.path.insert(0, 'a')"],
    "by a function of the import": [_SET + "s.set_value(3)"],
    "by a name of the import": [f"from {SETTINGS} import table\ntable['a'] = 1"],
    "by a function's name": [f"from {SETTINGS} import set_value\nset_value(4)"],
    "in two cells": [f"import {SETTINGS} as s", "s.value = 5"],
    "by a function": [_SET + "def set_it():\n    s.set_value(6)\nset_it()"],
    "by a function that imports": [f"def set_it():\n    import {SETTINGS} as own\n    own.value = 7\nset_it()"],
    "by a function that imports, and calls": [
        f"def set_it():\n    from {SETTINGS} import set_value\n    set_value(7)", "set_it()"
    ],
    "in a comprehension": [_SET + "[s.path.append(one) for one in 'abc']"],
    "in an expression": [_SET + "old = s.set_value(8)"],
    "in a condition": [_SET + "if s.table.setdefault('a', 1): pass"],
    "by another name": [_SET + "p = s.path\np.append(1)"],
    "by another name in another cell": [_SET + "p = s.path", "p.append(1)"],
    "of an object that a function gets": [_SET + "c = s.get_current()\nc.value = 9"],
    "by __import__": [f"__import__('{SETTINGS}').value = 2"],
    "by deleting": [_SET + "s.table['a'] = 1", "del s.table['a']\ns.table['b'] = 2"],
    "in a stage that was edited": [f"%%stage a\n{_SET}s.value = 3", "%%stage a\nx = 1"],
    "in a lambda": [_SET + "f = lambda: s.set_value(1)\nf()"],
}  # fmt: skip


@pytest.mark.parametrize("name", _SETTINGS_OF_MODULES)
def test_settings_of_modules(name: str) -> None:
    """Cells that set something of a module are needed, wherever the module was imported."""
    notebook = Notebook(*_SETTINGS_OF_MODULES[name], _READ)
    assert notebook.reproduced()["m"] == notebook.namespace["m"] != (0, 0, [], {}), notebook.needed()


_LOG = "log = []"
_TWICE = "%%stage last\nm = list(log)"
_GROWS = "%%stage a\n{}\nn = len(log)"
_SIDE_EFFECTS = {
    "a function": "def grow(): log.append(1)\ngrow()",
    "a lambda": "grow = lambda: log.append(1)\ngrow()",
    "a lambda that is called at once": "(lambda: log.append(1))()",
    "a lambda in a list": "every = [lambda: log.append(1)]\nevery[0]()",
    "a lambda that is passed on": "list(map(lambda x: log.append(x), [1, 2]))",
    "a lambda that is a key": "sorted([1, 2], key=lambda x: log.append(x) or x)",
    "a lambda in a dictionary": "every = {'a': lambda: log.append(1)}\nevery['a']()",
    "a lambda in a call of a local name": "for f in [lambda: log.append(1)]: f()",
    "a function in a list": "def grow(): log.append(1)\nevery = [grow]\nevery[0]()",
    "a function with another name": "def grow(): log.append(1)\nother = grow\nother()",
    "a partial function": "from functools import partial\ndef grow(x): log.append(x)\np = partial(grow, 1)\np()",
    "a method": "class A:\n    def grow(self): log.append(1)\na = A()\na.grow()",
    "a method of a new object": "class A:\n    def grow(self): log.append(1)\nA().grow()",
    "an initialization": "class A:\n    def __init__(self): log.append(1)\nA()",
    "a decorator": "def deco(f):\n    log.append(1)\n    return f\n@deco\ndef g(): pass",
    "a generator": "def grow():\n    log.append(1)\n    yield\nlist(grow())",
    "a function in a function": "def outer():\n    def inner(): log.append(1)\n    inner()\nouter()",
    "a function that is passed on": "def grow(x): log.append(x)\nlist(map(grow, [1, 2]))",
    "a comprehension": "def grow(): log.append(1)\n[grow() for _ in range(2)]",
}


@pytest.mark.parametrize("kind", ["stage", "plain", "defined in another cell", "another name in another cell"])
@pytest.mark.parametrize("name", _SIDE_EFFECTS)
def test_side_effects(name: str, kind: str) -> None:
    """What a function, lambda or method changes when it is called is seen, wherever it was defined."""
    code = _SIDE_EFFECTS[name]
    lines = code.split("\n")
    if kind == "stage":
        cells = [_GROWS.format(code)] * 2
    elif kind == "plain":
        cells = [code] * 2
    elif kind == "defined in another cell":
        cells = ["\n".join(lines[:-1]), lines[-1], lines[-1]]
    else:
        cells = ["\n".join(lines[:-2]), *lines[-2:], lines[-1]]
    try:
        notebook = Notebook(_LOG, *cells, _TWICE)
    except SyntaxError:
        return
    assert notebook.reproduced()["m"] == notebook.namespace["m"], [step.code for step in notebook.needed()]


_STATE = {
    "a loop": ["g = iter(range(9))", "for x in g: break"],
    "a loop in a function": ["g = iter(range(9))\ndef f():\n    for x in g: return x", "f()"],
    "a loop over an item": ["d = {'a': iter(range(9))}\ng = d['a']", "for x in d['a']: break"],
    "a loop over an attribute": [
        "from types import SimpleNamespace\nd = SimpleNamespace(a=iter(range(9)))\ng = d.a", "for x in d.a: break"
    ],
    "a comprehension": ["g = iter(range(9))", "y = [x for x in g if x < 5]"],
    "a generator": ["g = (i for i in range(9))", "y = any(x == 2 for x in g)"],
    "unpacking": ["g = iter(range(9))", "a, b, *c = g"],
    "arguments": ["g = iter(range(9))", "print(*g)"],
    "next": ["g = iter(range(9))", "next(g)"],
    "membership": ["g = iter(range(9))", "found = 3 in g"],
    "a list of it": ["g = iter(range(9))", "y = [*g]"],
    "an object of the notebook": [
        "class C:\n    n = 0\n    def __iter__(self):\n        self.n += 1\n        return iter('a')\n"
        "    def __next__(self): return self.n\ng = C()",
        "for x in g: pass",
    ],
    "a method that often reads": [
        "import queue\nq = queue.Queue()\n[q.put(one) for one in range(9)]",
        "q.get(timeout=1)", "g = iter([q.get(timeout=1)])",
    ],
    "a method of a class of the notebook": [
        "class C:\n    n = 0\n    def mean(self): self.n += 1\n    def __next__(self): return self.n\ng = C()",
        "g.mean()",
    ],
    "a closure": [
        "def make():\n    n = 0\n    def inc():\n        nonlocal n\n        n += 1\n        return n\n    return inc\n"
        "inc = make()",
        "inc()", "g = iter([inc()])",
    ],
    "a bound method": ["x = []\nadd = x.append", "add(1)", "g = iter([len(x)])"],
    "a default": ["def f(x=[]):\n    x.append(1)\n    return len(x)", "f()", "g = iter([f()])"],
    "a default that has a name": ["x = []\ndef f(y=x): y.append(1)", "f()", "g = iter([len(x)])"],
    "an attribute of a function": ["def f(): f.n += 1\nf.n = 0", "f()", "g = iter([f.n])"],
    "a decorated function": [
        "def counted(f):\n    n = 0\n    def inner():\n        nonlocal n\n        n += 1\n        return n\n"
        "    return inner\n"
        "@counted\ndef h(): pass",
        "h()", "g = iter([h()])",
    ],
    "an object that is called": [
        "class C:\n    n = 0\n    def __call__(self): self.n += 1\nc = C()", "c()", "g = iter([c.n])"
    ],
    "a function in a list": [
        "class C:\n    n = 0\n    def __call__(self): self.n += 1\nc = [C()]", "c[0]()", "g = iter([c[0].n])"
    ],
    "print into a file": ["import io\nf = io.StringIO()", "print('a', file=f)", "g = iter([f.getvalue()])"],
    "a name with another value since": ["k = iter(range(9))\ng = k", "for x in k: break", "k = 5"],
    "a variable of a function": ["k = 3\ndef h():\n    global g\n    g = iter([k])", "h()"],
}  # fmt: skip


@pytest.mark.parametrize("stage", [False, True])
@pytest.mark.parametrize("name", _STATE)
def test_objects_that_reading_changes(name: str, stage: bool) -> None:
    """Iterators, functions that keep something, and objects of unusual types are followed where they are only used."""
    first, *rest = _STATE[name]
    if stage and name != "unpacking":  # Nothing is left to unpack again.
        rest = [f"%%stage a\n{code}" for code in rest[:1] for _ in range(2)] + rest[1:]
    notebook = Notebook(first, *rest, "%%stage last\nm = next(g, 'none')")
    assert notebook.reproduced()["m"] == notebook.namespace["m"], [step.code for step in notebook.needed()]


_NOT_NEEDED = {
    "displays": ["import pandas as pd\nt = pd.DataFrame({'a': [1]})", "t.plot; t.head(); t.describe(); t.groupby('a')"],
    "loops over lists": ["t = [1, 2]", "for x in t: print(x)", "print(*t, len(t), 1 in t)"],
    "items of dictionaries": ["t = {'a': 1}", "t.get('a'); [x for x in t.items()]; t['a']"],
    "calls of functions": ["t = 1\ndef f(x): return x", "f(t)"],
    "texts": ["t = 'abc'", "t.split(); t.join('x'); t.count('a'); t.lower()"],
}


@pytest.mark.parametrize("name", _NOT_NEEDED)
def test_cells_that_only_read(name: str) -> None:
    """Cells that only show something are left out."""
    first, *rest = _NOT_NEEDED[name]
    notebook = Notebook(first, *rest, "%%stage last\nm = t")
    assert [step.code for step in notebook.needed()] == [first, "m = t"]


@pytest.mark.parametrize("code", ["for x in t: print(x)", "t.get(1)", "f(k)", "k + t[0]", "sorted(t, key=lambda x: x)"])
def test_executions_that_only_read(code: str) -> None:
    """An execution that a later one supersedes is left out if it has changed nothing."""
    if code.startswith("t.get"):
        code = code.replace("t.", "d.")
    cell = f"%%stage a\n{code}"
    notebook = Notebook("t = [1, 2]\nd = {}\nk = 3\ndef f(x): return x", cell, cell, "%%stage last\nm = t, d, k")
    assert len(notebook.needed()) == (3 if "sorted" not in code else 4)


def test_inputs_through_a_function() -> None:
    """A variable that a function has written comes from what the function has read."""
    notebook = Notebook(
        "def h():\n    global g\n    g = k", "%%stage load\nk = 3", "h()", "%%stage fit\nx = g",
    )  # fmt: skip
    load, fit = notebook.executions
    assert fit.inputs == {"g": (load,)}


def test_names_of_a_cell_and_its_magic() -> None:
    """What a cell says of its names is kept together with what the expressions of its magic say."""
    code = (
        "import os\np = os.path\ndef f(x=[]): os.x()\nf(); y[0] = z; v.append(1)\nlog_metric('a', 1)\nn = 1\nw = v + y"
    )
    names = names_of(parsed(code))
    every = [each.name for each in fields(Names)]
    assert not [each for each in every if not getattr(names, each)]
    both = with_expressions(names, {"a": "[lambda: b]"}, ["c"])
    for each in every:
        if each not in ("literals", "logs"):
            assert set(getattr(both, each)) >= set(getattr(names, each)), each
    assert both.literals == names.literals
    assert both.logs
    assert both.read >= {"b", "c"}
    assert "a" in both.written
