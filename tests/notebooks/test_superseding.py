"""Executing a cell again: always a new run, which supersedes the one before."""

from __future__ import annotations

import json

import nbformat
import pytest

from tests.notebooks.kernels import Kernel

SUPERSEDES, BY = "trackdsl.supersedes", "trackdsl.superseded_by"


def _current(kernel: Kernel) -> list[str]:
    return [run.name for run in kernel.recorded() if not run.tags.get(BY)]


def test_the_newer_run_supersedes_the_older(kernel: Kernel) -> None:
    """Each execution is a run; the newer names the older, the older the newer, also when the cell was edited."""
    kernel.ok("%experiment churn")
    for lr in (1, 2, 3):
        kernel.ok(f"%%stage fit lr={lr}\nx = lr", cell="c1")
    first, second, third = kernel.recorded()[1:]
    assert (second.tags[SUPERSEDES], third.tags[SUPERSEDES]) == (first.id, second.id)
    assert (first.tags[BY], second.tags[BY]) == (second.id, third.id)
    assert SUPERSEDES not in first.tags
    assert BY not in third.tags


@pytest.mark.parametrize("cells", [("c1", "c2"), (None, None)])
def test_what_is_the_same_cell(kernel: Kernel, cells: tuple[str | None, str | None]) -> None:
    """The cell's id identifies it, or else the stage's name. Another name is another stage, and so is another root."""
    kernel.ok("%experiment churn")
    kernel.ok("%%stage a\n1;", cell=cells[0])
    kernel.ok("%%stage b\n1;", cell=cells[1])
    kernel.ok("%%stage a\n1;", cell=cells[1])
    assert _current(kernel) == (["notebook", "a", "b", "a"] if cells[0] else ["notebook", "b", "a"])
    kernel.ok("%experiment churn")
    kernel.ok("%%stage b\n1;", cell=cells[1])
    assert _current(kernel)[-2:] == ["notebook", "b"]
    assert _current(kernel).count("b") == 2


def test_keep_keeps_both(kernel: Kernel) -> None:
    """Executions with `--keep` stay beside each other, and an execution without it supersedes none of them."""
    for lr in (1, 2):
        kernel.ok(f"%%stage fit lr={lr} --keep\n1;", cell="c")
    kernel.ok("%%stage fit lr=3\n1;", cell="c")
    kernel.ok("%%stage fit lr=4\n1;", cell="c")
    assert [run.params["lr"] for run in kernel.recorded()[1:] if BY not in run.tags] == [1, 2, 4]


def test_calls_within_one_execution_stay_together(kernel: Kernel) -> None:
    """Runs of one execution of a cell are all kept; the next execution supersedes all of them."""
    kernel.ok("def f(n): return n")
    loop = "for n in range(3):\n    get_ipython().run_line_magic('tracked', 'f n')"
    kernel.ok(loop, cell="c")
    assert _current(kernel) == ["notebook", "f", "f", "f"]
    kernel.ok(loop, cell="c")
    assert _current(kernel) == ["notebook", "f", "f", "f"]
    assert len(kernel.recorded()) == 7


def test_undo_takes_the_last_execution_back(kernel: Kernel) -> None:
    """`%trackdsl undo` marks the last run as deleted; the one before counts again, and is superseded by the next."""
    for lr in (1, 2):
        kernel.ok(f"%%stage fit lr={lr}\n1;", cell="c")
    assert "counts again" in kernel.ok("%trackdsl undo")
    first, second = kernel.recorded()[1:]
    assert (first.tags[BY], second.tags[BY], second.tags["trackdsl.deleted"]) == ("", first.id, "true")
    kernel.ok("%%stage fit lr=3\n1;", cell="c")
    assert [run.params["lr"] for run in kernel.recorded()[1:] if not run.tags.get(BY)] == [3]


@pytest.mark.slow
def test_twenty_executions_of_fifty_stages(kernel: Kernel) -> None:
    """Fifty stages executed twenty times leave fifty that count."""
    kernel.ok("%experiment churn")
    for _ in range(20):
        ids = [kernel.send(f"%%stage s{at} --quiet\nx = {at}", cell=f"c{at}") for at in range(50)]
        for id_ in ids:
            assert kernel.answer(id_).status == "ok"
    assert len(kernel.recorded()) == 1001
    assert _current(kernel) == ["notebook", *(f"s{at}" for at in range(50))]


@pytest.mark.slow
def test_the_files_of_a_notebook_stay_small(kernel: Kernel) -> None:
    """With cards, the notebook's file and `session.ipynb` are below 1 MB, as only the last executions are in them."""
    kernel.ok("%experiment churn\nfrom trackdsl import log_metric, steps")
    outputs = {}
    for again in range(20):
        code = (
            "%%stage s{0} lr={1} --metrics acc\nfor step in steps(range(200)):\n"
            "    log_metric('loss', 1 / (step + {1}))\nprint('x' * 200)\nacc = {1} / 20"
        )
        ids = {at: kernel.send(code.format(at, again + 1), cell=f"c{at}") for at in range(50)}
        for at, id_ in ids.items():
            answer = kernel.answer(id_)
            assert answer.status == "ok"
            outputs[at] = answer.outputs()
    cells = [nbformat.v4.new_code_cell(code.format(at, 20), outputs=outputs[at]) for at in outputs]
    file = nbformat.writes(nbformat.from_dict(nbformat.v4.new_notebook(cells=cells)))
    assert file.count("<details>") == 50
    assert len(file) < 1_000_000
    kernel.ok("%experiment --end")
    root, *stages = [run for run in kernel.recorded() if not run.tags.get(BY)]
    assert len(stages) == 50
    cells = json.loads(root.artifacts["session.ipynb"])["cells"]
    assert len([cell for cell in cells if "trackdsl" in cell["metadata"]]) == 50
