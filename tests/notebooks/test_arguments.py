"""The line of a magic, and the names in the code of a cell: without a kernel."""

from __future__ import annotations

import ast
import keyword
import re
import symtable
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import examples
from trackdsl.errors import OptionError
from trackdsl.notebook.arguments import parse, split
from trackdsl.notebook.effects import FILES, MODULE_FILES
from trackdsl.notebook.executions import Execution
from trackdsl.notebook.names import Names, names_of, parsed
from trackdsl.notebook.provenance import Provenance

OPTIONS = {"metrics": True, "keep": False}
_NAMES = st.from_regex(r"[a-z]{1,6}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=examples(300))
@given(name=_NAMES, values=st.dictionaries(_NAMES, _VALUES, max_size=4), keep=st.booleans(), spaces=st.integers(1, 3))
def test_any_value_can_be_written(name: str, values: dict[str, object], keep: bool, spaces: int) -> None:
    """A value that Python writes out is read as the same value, with any brackets, quotes and spaces."""
    written = [name, *(f"{key}={value!r}" for key, value in values.items()), *(["--keep"] if keep else [])]
    found = parse("%%stage", (" " * spaces).join(written) + "  # and a comment", OPTIONS)
    assert found.positional == (name,)
    assert {key: ast.literal_eval(text) for key, text in found.expressions.items()} == values
    assert ("keep" in found.options) == keep


@settings(max_examples=examples(300))
@given(st.text(max_size=40))
def test_any_line_is_read_or_refused(line: str) -> None:
    """Every line is either read or raises an error that says what is wrong."""
    try:
        parts = list(split("%%stage", line))
        parse("%%stage", line, OPTIONS)
    except OptionError as error:
        said = [str(error)]
    else:
        said = [f"%%stage {part}" for part in parts if part.strip()]
        assert len(said) == len(parts)
    assert all(each.startswith("%%stage") for each in said)


def test_options_with_and_without_equals_sign() -> None:
    """An option takes its value after a space or an equals sign; names in it are separated by commas."""
    for line in ("fit --metrics acc,f1", "--metrics=acc,f1 fit", "fit --metrics 'acc, f1'"):
        assert parse("%%stage", line, OPTIONS).names("metrics") == ("acc", "f1")
    for line in ("fit --metrics", "fit --metrics --keep", "fit --keep=1", "fit a=1 a=2"):
        with pytest.raises(OptionError):
            parse("%%stage", line, OPTIONS)


@pytest.mark.parametrize(
    ("source", "needed", "written"),
    [
        ("x = 1\ny = x + z", "z", "x y"),
        ("x += 1", "x", "x"),
        ("def f(a, b=c): return a + d + f\nf(1)", "c d", "f"),
        ("y = [a for a in b if a > c]", "b c", "y"),
        ("import numpy as np\nfrom os import path\nnp.zeros(path)", "", "np path"),
        ("for i in rows: total = i\nprint(total)", "rows total print", "i total"),
        ("with open(p) as f: text = f.read()", "open p", "f text"),
        ("class A(B):\n    c = 1\n    def m(self): return c, d", "B c d", "A"),
        ("g = lambda q: q + w", "w", "g"),
        ("if flag: v = 1\nv", "flag v", "v"),
        ("try:\n    r = 1\nexcept E as e:\n    r = e\nr", "E", "r"),
        ("%%time\nx = y", "y", "x"),
        ("del old", "old", "old"),
        ("def f():\n    global g\n    g = h", "h", "f"),
        ("(n := m)", "m", "n"),
        ("[(n := a) for a in b]", "b", "n"),
        ("exec('x = y')", "exec y", "x"),
        ("globals()['x'] = globals()['y'] + vars().get('z')", "globals vars y z", "x"),
        ("df.query(f'a > @least or {b}')", "df b least", ""),
        ("x: int = y", "y int", "x"),
    ],
)  # fmt: skip
def test_names_of_code(source: str, needed: str, written: str) -> None:
    """The names that a cell needs from elsewhere and those that it writes are found in its code."""
    names = names_of(parsed(source))
    assert names.needed - {"int", FILES, MODULE_FILES} == set(needed.split()) - {"int"}
    assert names.written == set(written.split())


def test_literals_and_changes() -> None:
    """Literals at top level are parameters; objects that a cell may change are kept apart from those it reads."""
    names = names_of(
        parsed("a = 1\nb, c = 'x', [1, 2]\nd: float = -0.5\ne = a\nif a:\n    f = 1\ndf['n'] = 1\nm.fit(q)")
    )
    assert names.literals == {"a": 1, "b": "x", "c": [1, 2], "d": -0.5}
    assert names.changed == {"df"}
    assert names.called == {"m", "q"}


_CODE = st.lists(
    st.sampled_from([
        "a = b", "b = [c for c in a]", "c += 1", "def f(x, y=a):\n    z = x + c\n    return z", "print(f(a))",
        "import os", "for i in b:\n    c = i", "class K:\n    a = b", "with f(b) as c: a = c", "g = lambda a: a + b",
        "try:\n    a = 1\nexcept ValueError as e:\n    b = e", "{a: b for a, b in c}", "a.b = c", "a[b] = c",
    ]),
    max_size=6,
)  # fmt: skip


@settings(max_examples=examples(200))
@given(_CODE)
def test_names_agree_with_python(lines: list[str]) -> None:
    """Names written at top level are those that Python's own symbol table has as assigned."""
    source = "\n".join(lines)
    table = symtable.symtable(source, "cell", "exec")
    assigned = {one.get_name() for one in table.get_symbols() if one.is_assigned() or one.is_imported()}
    # Python 3.12 inlines comprehensions, whose names are not of the module; `except … as e` is deleted again.
    assert names_of(parsed(source)).written == assigned - {"e"} - ({"__annotations__"})


@given(st.text(max_size=60))
@example("learning rate = 0.1")
def test_any_text_is_no_error(source: str) -> None:
    """Text that is not Python has no names, and other text none but its words."""
    found = names_of(parsed(source))
    assert found.read | found.written <= set(re.findall(r"\w+", unicodedata.normalize("NFKC", source)))
    try:
        compile(source, "cell", "exec", ast.PyCF_ONLY_AST)
    except (SyntaxError, ValueError):
        assert found == Names()


def test_following_many_executions_stays_cheap() -> None:
    """What is known of variables does not grow with repeated executions of the same cells."""
    provenance = Provenance()
    cell = "d{0} = [1]\nfor i in d{0}:\n    last = i\nmodels.append(d{0})\nframes['{0}'] = d{0}\nnumpy.random.seed({0})"
    for again in range(30):
        for at in range(10):
            execution = Execution(("root", f"c{at}", f"s{at}"), str(again), 1, "", "")
            step = provenance.begin("", names_of(parsed(cell.format(at))), execution)
            provenance.end(step)
    assert len(step.after) <= 40
    assert max(map(len, provenance._state.touched.values())) <= 10
    assert max(map(len, provenance._state.objects._held.values())) <= 20
