"""The notebooks of `notebooks/`: they run, show what is stored in them, and can be read without running."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trackdsl
from tests.conftest import deliver, end_delivery
from tests.notebooks.stored import (
    NOTEBOOKS,
    ROOT,
    NotebookNode,
    differences,
    execute,
    read,
    same,
    traces_of_the_machine,
)

#: What a notebook needs beyond the libraries that tests need anyway.
_NEEDS = {"06-threads-tasks-clusters": "distributed"}
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.mark.slow
@each_notebook
def test_a_notebook_shows_what_is_stored(path: Path, tmp_path: Path) -> None:
    """A notebook runs from top to bottom in a new folder, and its outputs are those that its file has."""
    if path.stem in _NEEDS:
        pytest.importorskip(_NEEDS[path.stem])
    stored = read(path)
    executed = copy.deepcopy(stored)
    folder = tmp_path / "notebook"
    try:
        execute(executed, path.stem, folder)
    finally:
        end_delivery(folder / "spool")
    assert differences(stored, executed) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", [["marimo", "export", "html", "-o", "page.html"], []], ids=["export", "script"])
def test_the_notebook_of_marimo_runs(command: list[str], tmp_path: Path, sqlite_store: str) -> None:
    """marimo executes all of its cells, as does Python, and the tree of runs is what its first cell draws."""
    pytest.importorskip("marimo")
    environment = {**os.environ, "TRACKDSL_MODE": "online"}  # A cell reads what others have recorded.
    copied = shutil.copy(ROOT / "notebooks/marimo_pipeline.py", tmp_path)  # marimo writes beside a notebook.
    program = [sys.executable, *(["-m", *command] if command else []), str(copied)]
    try:
        done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    finally:
        end_delivery(tmp_path / "spool")
    assert done.returncode == 0, (done.stdout, done.stderr)
    deliver(sqlite_store)
    found = trackdsl.tree("pipeline", tracking_uri=sqlite_store)
    assert sorted(run.name for run in found.children) == ["data", "fit", "sweep"]
    depths = next(run for run in found.children if run.name == "sweep").children
    assert [run.name for run in depths] == [f"depth-{depth}" for depth in range(2, 13, 2)]
    assert all(run.metrics["test_accuracy"] > 0.2 for run in depths)


@each_notebook
def test_a_notebook_can_be_read_without_running(path: Path) -> None:
    """A notebook begins with what the reader will have, and a picture of it; all cells were executed, in order."""
    notebook = read(path)
    top, codes = notebook.cells[0], [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "At the end of this notebook you have" in " ".join(top.source.split())
    assert "](attachment:picture.png)" in top.source
    assert top.attachments["picture.png"]["image/png"]
    assert all(cell.execution_count for cell in codes)
    counts = [cell.execution_count for cell in codes]
    assert counts == sorted(counts)
    assert path.stat().st_size < 500_000


@each_notebook
def test_a_notebook_shows_nothing_of_the_machine(path: Path) -> None:
    """A notebook names neither folders nor hosts of the machine that stored it."""
    assert traces_of_the_machine(read(path)) == []


@each_notebook
def test_every_link_of_a_notebook_leads_somewhere(path: Path) -> None:
    """The target of a relative link exists."""
    texts = [cell.source for cell in read(path).cells if cell.cell_type != "code"]
    targets = re.findall(r"\]\((?!http|attachment:)([^)#]*)", "\n".join(texts))
    assert targets
    assert [target for target in targets if not (path.parent / target).is_file()] == []


def test_traces_are_found() -> None:
    """A file's path in an output is a trace, also in an address; a path without a user's folder is not."""

    def traces(text: str) -> list[str]:
        notebook = read(NOTEBOOKS[0])
        notebook.cells[1].source = text
        return traces_of_the_machine(notebook)

    assert traces("it is at /home/ada/mlflow.db now") == ["/home/ada/mlflow.db"]
    assert traces("file:///tmp/x/mlruns") == ["/tmp/x/mlruns"]  # noqa: S108 - no file is made
    assert traces("fit/root, 3/4 of them") == []


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("fit  FINISHED  170 ms  lr=0.05", "fit FINISHED 1.2 s lr=0.05", True),
        ("acc 0.9123 ▁▃█", "acc 0.91 ▁█", True),
        ("acc 0.9123", "acc 0.8123", False),
        ("took 3 ms  +1 ms", "took 4.2 s  -20 ms", True),
        ("  load │ 5 ms │ 7 ms  +2 ms\n  split │ 3 ms │ 9 ms  +6 ms\nend", "  load │ 5 ms │ 9 ms  +4 ms\nend", True),
        ("  rows │ 5 │ 7  +2\nend", "end", False),
        ("3 runs", "4 runs", False),
        ("FINISHED", "FAILED", False),
        ("at 2026-01-02 03:04:05.6+00:00", "at 2025-11-12 13:14:15", True),
        ("digest 474d565e", "digest 0123abcd", True),
    ],
)
def test_what_differs_each_time_is_no_difference(one: str, other: str, equal: bool) -> None:
    """Times, ids and curves may differ, numbers a little, and nothing else."""
    assert same(one, other) is equal


def test_another_output_is_a_difference() -> None:
    """A cell that prints something else, or shows one thing less, is found."""
    stored = read(NOTEBOOKS[0])
    assert differences(stored, copy.deepcopy(stored)) == []
    assert differences(stored, _without_an_output(stored))
    other = copy.deepcopy(stored)
    printed = [output for cell in other.cells for output in cell.get("outputs", ()) if "data" in output]
    printed[0].data["text/plain"] += " and more"
    assert len(differences(stored, other)) == 1


def _without_an_output(notebook: NotebookNode) -> NotebookNode:
    fewer = copy.deepcopy(notebook)
    next(cell for cell in fewer.cells if cell.get("outputs")).outputs = []
    return fewer
