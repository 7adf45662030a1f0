"""Which executions the variables of a cell come from, and what is stale or out of order."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.notebooks.kernels import Kernel

INPUTS, STALE, ORDER = "trackdsl.inputs", "trackdsl.stale_inputs", "trackdsl.out_of_order"


def _inputs(kernel: Kernel, name: str) -> list[str]:
    """The names of the stages that the last run of a name has as inputs."""
    names = {run.id: run.name for run in kernel.recorded()}
    ids = [run for run in kernel.recorded() if run.name == name][-1].tags.get(INPUTS, "")
    return [names[id_] for id_ in ids.split(",") if id_]


def test_inputs_are_executions(kernel: Kernel) -> None:
    """A variable comes from the cell that wrote it, also through cells without a magic and in expressions."""
    kernel.ok("import math")
    kernel.ok("%%stage load\ndf = [1, 2]", cell="a")
    kernel.ok("%%stage other\nq = 1", cell="b")
    kernel.ok("rows = len(df)")
    kernel.ok("%%stage fit n=rows\nmodel = math.sqrt(n)", cell="c")
    kernel.ok("%%stage score --metrics q\nprint(model)", cell="d")
    assert _inputs(kernel, "load") == []
    assert _inputs(kernel, "fit") == ["load"]
    assert sorted(_inputs(kernel, "score")) == ["fit", "other"]


def test_a_cell_without_a_magic_takes_a_variable_over(kernel: Kernel) -> None:
    """A variable that a cell without a magic writes has no input; a cell that changes an object is one."""
    kernel.ok("%%stage load\ndf = [1]", cell="a")
    kernel.ok("%%stage change\ndf[0] = 2", cell="b")
    kernel.ok("%%stage one\nx = df", cell="c")
    kernel.ok("df = [3]")
    kernel.ok("%%stage two\nx = df", cell="d")
    assert sorted(_inputs(kernel, "one")) == ["change", "load"]
    assert _inputs(kernel, "two") == []


def test_what_a_function_reads(kernel: Kernel) -> None:
    """A cell that calls a function needs what the function reads, as it is when it is called."""
    kernel.ok("def scaled(x): return x * factor")
    kernel.ok("%%stage factors\nfactor = 2", cell="a")
    kernel.ok("%%stage fit\ny = scaled(1)", cell="b")
    assert _inputs(kernel, "fit") == ["factors"]


def test_a_value_of_tracked(kernel: Kernel) -> None:
    """What `%tracked` returns comes from its run, which has inputs too, and may be stale."""
    kernel.ok("def train(rows): return rows * 2")
    kernel.ok("%%stage load\nrows = 3", cell="a")
    kernel.ok("model = %tracked train rows", cell="b")
    kernel.ok("%%stage score\nx = model", cell="c")
    assert _inputs(kernel, "train") == ["load"]
    assert _inputs(kernel, "score") == ["train"]
    kernel.ok("model = %tracked train rows+1", cell="b")
    kernel.ok("%%stage load\nrows = 4", cell="a")
    kernel.ok("%%stage score\nx = model", cell="c")
    assert _inputs(kernel, "train") == ["load"]
    assert "trackdsl.cell" in kernel.recorded()[2].tags
    assert kernel.recorded()[-1].tags[STALE] == "model"


def test_a_cell_is_no_input_of_itself(kernel: Kernel) -> None:
    """A cell that changes an object, executed again, is neither stale nor twice an input of others."""
    kernel.ok("%%stage load\ndf = {}", cell="a")
    for _ in range(3):
        kernel.ok("%%stage change\ndf['n'] = 1", cell="b")
        assert _inputs(kernel, "change") == ["load"]
    assert "stale" not in kernel.ok("%%stage fit\nx = df", cell="c")
    assert _inputs(kernel, "fit") == ["load", "change"]


def test_a_failed_cell_wrote_what_it_got_to(kernel: Kernel) -> None:
    """If a cell failed, only the variables that it wrote before count."""
    kernel.ok("%%stage load\na = [1]\nb = [2]", cell="a")
    assert kernel.run("%%stage bad\na = [3]\n1 / 0\nb = [4]", cell="b").status == "error"
    kernel.ok("%%stage reads_a\nx = a", cell="c")
    kernel.ok("%%stage reads_b\nx = b", cell="d")
    assert (_inputs(kernel, "reads_a"), _inputs(kernel, "reads_b")) == (["bad"], ["load"])


def test_stale_when_executed_again(kernel: Kernel) -> None:
    """An input is stale if its cell was executed again without writing it, or if an input of it was."""
    kernel.ok("%%stage load\ndf = [1]", cell="a")
    kernel.ok("%%stage features\nx = df", cell="b")
    kernel.ok("%%stage load\ndf = [2]", cell="a")
    text = kernel.ok("%%stage fit\ny = x", cell="c")
    assert "stale: x (through features: load was executed again)" in text
    assert kernel.one("fit").tags[STALE] == "x"
    kernel.ok("%%stage features\nx = df", cell="b")
    kernel.ok("%%stage fit\ny = x", cell="c")
    assert STALE not in kernel.recorded()[-1].tags
    kernel.ok("%trackdsl undo")
    kernel.ok("%trackdsl undo")
    assert "features was taken back" in kernel.ok("%%stage fit\ny = x", cell="c")


def _saved(path: Path, **cells: str) -> None:
    """Save a notebook; later than everything that was executed, as the clock of files is coarse."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    now = time.time_ns()

    def saved() -> bool:
        text = {"cells": [{"id": id_, "source": source, "cell_type": "code"} for id_, source in cells.items()]}
        path.write_text(json.dumps(text), encoding="utf-8")
        return path.stat().st_mtime_ns > max(now, before)

    wait_until(saved, "a later time of the file")


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ({"a": "%%stage load\ndf = [1]", "b": "%%stage fit\ny = df"}, None),
        ({"a": "%%stage load\ndf = [7]", "b": "%%stage fit\ny = df"}, "the cell of load was edited"),
        ({"b": "%%stage fit\ny = df"}, "the cell of load is gone"),
        ({"a": "anything"}, None),  # It does not have the cell that is executed, so it is another notebook.
    ],
)
def test_stale_when_edited_or_gone(kernel: Kernel, tmp_path: Path, cells: dict[str, str], why: str | None) -> None:
    """The notebook's file shows whether the cell of an input was edited or removed after its execution."""
    path = tmp_path / "note.ipynb"
    kernel.ok(f"__vsc_ipynb_file__ = {str(path)!r}")
    kernel.ok("%%stage load\ndf = [1]", cell="a")
    _saved(path, **cells)
    text = kernel.ok("%%stage fit\ny = df", cell="b")
    assert kernel.one("fit").tags.get(STALE) == ("df" if why else None)
    assert (f"stale: df ({why})" in text) == bool(why)
    assert json.loads(kernel.one("fit").tags["trackdsl.cell"])["notebook"] == str(path)


def test_a_file_that_is_older_than_the_execution(kernel: Kernel, tmp_path: Path) -> None:
    """An edited cell that was executed before it was saved is not taken for one that was edited since."""
    path = tmp_path / "note.ipynb"
    _saved(path, a="%%stage load\ndf = [0]", b="%%stage fit\ny = df")
    kernel.ok(f"__vsc_ipynb_file__ = {str(path)!r}")
    kernel.ok("%%stage load\ndf = [1]", cell="a")
    kernel.ok("%%stage fit\ny = df", cell="b")
    assert STALE not in kernel.one("fit").tags


def test_how_a_cell_is_written(kernel: Kernel, tmp_path: Path) -> None:
    """Spaces in the line of a magic, and lines above it, do not make a cell an edited one."""
    path = tmp_path / "note.ipynb"
    load = "\n%%time\n%%stage   load  n=1 \ndf = [1]\n"
    kernel.ok(f"__vsc_ipynb_file__ = {str(path)!r}")
    kernel.ok(load, cell="a")
    _saved(path, a=load, b="%%stage fit\ny = df")
    kernel.ok("%%stage fit\ny = df", cell="b")
    assert _inputs(kernel, "fit") == ["load"]
    assert STALE not in kernel.one("fit").tags


def test_out_of_order(kernel: Kernel, tmp_path: Path) -> None:
    """An input from a cell further down the page is reported; the file may be older than the execution."""
    path = tmp_path / "note.ipynb"
    first, second = "%%stage use\ny = x", "%%stage make\nx = 1"
    _saved(path, a=first, b=second)
    kernel.ok(f"__vsc_ipynb_file__ = {str(path)!r}")
    kernel.ok(second, cell="b")
    assert "out of order: x" in kernel.ok(first, cell="a")
    assert kernel.one("use").tags[ORDER] == "x"
    assert STALE not in kernel.one("use").tags


def test_out_of_order_without_a_magic(kernel: Kernel, tmp_path: Path) -> None:
    """A variable that a cell without a magic wrote is reported too, once that is further down the page."""
    path = tmp_path / "note.ipynb"
    first, plain, above = "%%stage use\ny = x, z", "x = 1", "z = 2"
    _saved(path, c=above, a=first, b=plain)
    kernel.ok(f"__vsc_ipynb_file__ = {str(path)!r}")
    kernel.ok(plain, cell="b")
    kernel.ok(above, cell="c")
    assert "out of order: x of" in kernel.ok(first, cell="a")
    assert kernel.one("use").tags[ORDER] == "x"


def test_variables_in_commands(kernel: Kernel) -> None:
    """Variables that IPython fills into a command, and what a cell reads below another magic, are inputs."""
    kernel.ok("%%stage load\nv = 1")
    kernel.ok("%%stage fit\nout = !echo {v}")
    kernel.ok("%%stage more\n%%time\n!echo hi\nx = v")
    assert _inputs(kernel, "fit") == _inputs(kernel, "more") == ["load"]


def test_variables_that_functions_write(kernel: Kernel) -> None:
    """A variable that a function writes by `global` comes from what the function reads."""
    kernel.ok("def h():\n    global g\n    g = k")
    kernel.ok("%%stage load\nk = 1", cell="a")
    kernel.ok("h()")
    kernel.ok("%%stage fit\nx = g", cell="b")
    assert _inputs(kernel, "fit") == ["load"]
    kernel.ok("%%stage load\nk = 2", cell="a")
    kernel.ok("%%stage fit\nx = g", cell="b")
    assert kernel.recorded()[-1].tags[STALE] == "g"


def test_a_long_cell_says_what_it_leaves_out(kernel: Kernel) -> None:
    """A cell that is too long to be read has a tag that says so, and the program of the root too."""
    kernel.ok(f"%%stage long\ntext = '{'x' * 200_000}'\nn = 1")
    kernel.ok("%%stage fit --metrics m\nm = len(text)")
    kernel.ok("%experiment --end")
    assert "200,000 characters" in kernel.one("long").tags["trackdsl.omitted.cell"]
    root = next(run for run in kernel.recorded() if run.parent is None)
    assert "too long" in root.tags["trackdsl.omitted.reproduce.py"]
    assert "# Differs from the notebook: the cell of 'long'" in root.artifacts["reproduce.py"]


def test_a_reset_forgets(kernel: Kernel) -> None:
    """After `%reset` no variable has an input."""
    kernel.ok("%%stage load\ndf = [1]", cell="a")
    kernel.ok("%reset -f")
    kernel.ok("df = 1")
    kernel.ok("%%stage fit\ny = df", cell="b")
    assert _inputs(kernel, "fit") == []
