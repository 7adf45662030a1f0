"""The files of roots that `start_logging` or `%%experiment` has begun, and that their programs record the same tree."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest

from tests.notebooks.kernels import Kernel
from tests.notebooks.programs import counting, finished, reproduced

_BEGIN = (
    "from trackdsl import start_logging, stop_logging, stage, log_metric\nrun = start_logging('one', project='vision')"
)
_LAST = "%%stage s --metrics m\nm = "
_SESSIONS = {
    "stages, functions and the root itself": [
        _BEGIN, "@stage\ndef f(x):\n    log_metric('fx', x)", "x = 3", "f(x)", "run.log_metric('loss', 0.5)",
        "%%stage fit lr=0.1*x --metrics m\nm = lr * x", "stop_logging()",
    ],
    "not ended by the user": [_BEGIN, "k = 4", f"{_LAST}k"],
    "with a configuration": [
        "import trackdsl", "trackdsl.start_logging('base', config={'experiment_name': 'exp', 'tags': {'t': 1}})",
        f"{_LAST}2", "x = 9\ntrackdsl.stop_logging(status='FAILED', reason='bad')",
    ],
    "another one, with an object of the first": [
        f"{_BEGIN}\ndata = [1]", "%%stage grow --metrics m\ndata.append(2)\nm = sum(data)",
        "run = start_logging('two')", f"{_LAST}sum(data)", "stop_logging()",
    ],
    "begun before the magics were loaded": [
        "%unload_ext trackdsl", _BEGIN, "d = 5", "%load_ext trackdsl", f"{_LAST}d", "stop_logging()"
    ],
    "with await": ["import asyncio", _BEGIN, f"{_LAST}await asyncio.sleep(0, 5)", "stop_logging()"],
    "in a function": [
        "import trackdsl\ndef begin():\n    return trackdsl.start_logging('one')", "begin()", f"{_LAST}4",
        "trackdsl.stop_logging()",
    ],
    "in one cell": [f"{_BEGIN}\nrun.log_metric('a', 1)\nstop_logging()"],
    "stages executed again": [_BEGIN, *[f"%%stage a\nx = {n}" for n in (1, 2)], f"{_LAST}x", "stop_logging()"],
    "%tracked": [_BEGIN, "def f(a): return {'v': a}", "r = %tracked f 4", f"{_LAST}r['v']", "stop_logging()"],
    "variables of another root": [
        "%%stage load\nrows = [1, 2, 3]\nlen(rows)", "%experiment --end", _BEGIN, f"{_LAST}sum(rows)", "stop_logging()"
    ],
    "%experiment after it": [
        _BEGIN, f"{_LAST}1", "stop_logging()", "%experiment churn", f"{_LAST}2", "%experiment --end"
    ],
}  # fmt: skip
_CELLS = {
    "parameters, tags, metrics and a value": [
        "x = 4", "%%experiment churn lr=0.1*x --metrics m --tags a=b --run-name r1\ndepth = 3\nm = lr * depth\nm + 1"
    ],
    "stages in it, and variables of another root": [
        "%%stage load\nrows = [1, 2, 3]\nlen(rows)", "import trackdsl", "@trackdsl.stage\ndef f(x): return x",
        "q = f(3)", "%experiment --end",
        "%%experiment churn\nwith trackdsl.stage('inner') as r:\n    r.log_metric('v', sum(rows) + f(q))",
    ],
    "a template": ["model = 'rf'", "%%experiment churn-{model} k=2\nk * 3"],
    "with await": ["import asyncio", "%%experiment churn --metrics m\nm = await asyncio.sleep(0, 3)"],
    "no name": ["%%experiment --metrics m\nm = 3"],
    "executed again": ["L = []", *["%%experiment churn --metrics m\nL.append(1)\nm = len(L)"] * 2],
    "with another root open": [
        "%experiment outer", "z = 3", "%%stage st --metrics m\nm = y = z", "%%experiment churn --metrics m\nm = z + y",
        "%experiment --end",
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sessions", "cells"])
def test_the_programs_record_the_same_tree(kernel: Kernel, tmp_path: Path, kind: str) -> None:
    """In a fresh process, each program records the runs that count below its root, and no other root."""
    programs, expected = {}, {}
    for name, cells in (_SESSIONS if kind == "sessions" else _CELLS).items():
        kernel.ok("%experiment --end\n%reset -f")
        before = {run.id for run in kernel.recorded()}
        for code in cells:
            first = code.partition("\n")[0]  # The cell of a magic is executed again by the same line.
            kernel.ok(code, cell=f"{name} {first}")
        kernel.ok("__import__('trackdsl').stop_logging()")
        for run in kernel.recorded():
            counts = not run.tags.get("trackdsl.superseded_by")
            if run.parent is None and run.id not in before and counts:
                key = f"{name}: {run.name} {run.id}"
                assert "session.ipynb" in run.artifacts, key
                nbformat.validate(nbformat.reads(run.artifacts["session.ipynb"], as_version=4))
                programs[key], expected[key] = run.artifacts["reproduce.py"], counting(kernel, run)
    found = reproduced(programs, tmp_path)
    for key, runs in expected.items():
        assert "Differs" not in programs[key], (key, programs[key])
        assert [run for run in found[key] if run.parent is None] == [run for run in runs if run.parent is None], key
        assert finished(found[key]) == finished(runs), (key, programs[key])
    assert len(programs) >= len(_SESSIONS if kind == "sessions" else _CELLS)


def test_the_notebook_of_a_session(kernel: Kernel) -> None:
    """`session.ipynb` has the calls that begin and end the session, and not what nothing needs."""
    for code in (_BEGIN, "unused = 1", "print('shown')\nlog_metric('loss', 1)", f"{_LAST}3", "stop_logging()"):
        kernel.ok(code)
    artifacts = kernel.recorded()[0].artifacts
    cells = json.loads(artifacts["session.ipynb"])["cells"]
    assert [cell["source"] for cell in cells] == [
        _BEGIN, "print('shown')\nlog_metric('loss', 1)", f"{_LAST}3", "stop_logging()"
    ]  # fmt: skip
    assert cells[1]["outputs"][0]["text"] == "shown\n"
    assert "_experiment('" not in artifacts["reproduce.py"]
    assert artifacts["reproduce.py"].count("start_logging('one'") == 1


def test_an_experiment_within_a_session(kernel: Kernel) -> None:
    """A program says that it has no run for `%experiment` within a session, and so does the root run."""
    for code in (_BEGIN, "%experiment churn lr=3", f"{_LAST}2", "%experiment --end", "stop_logging()"):
        kernel.ok(code)
    root = kernel.one("one")
    assert "# Differs from the notebook: the cell [" in root.artifacts["reproduce.py"]
    assert "'%experiment churn lr=3' opened a run below this one" in root.artifacts["reproduce.py"]
    assert "opened a run below this one" in root.tags["trackdsl.omitted.reproduce.py"]


def test_a_failed_cell_has_no_program(kernel: Kernel) -> None:
    """`%%experiment` of a cell that failed keeps the notebook alone."""
    kernel.run("%%experiment churn\n1 / 0")
    artifacts = kernel.recorded()[0].artifacts
    assert "ZeroDivisionError" in artifacts["session.ipynb"]
    assert "reproduce.py" not in artifacts


def test_the_end_of_the_kernel_writes_both(tmp_path: Path) -> None:
    """A session that is open when the kernel ends gets both files then."""
    kernel = Kernel(tmp_path, TRACKDSL_SPOOL=str(tmp_path / "spool"), TRACKDSL_MODE="offline")
    try:
        kernel.ok("%load_ext trackdsl\nfrom trackdsl import start_logging\nstart_logging('one')")
        kernel.ok(f"{_LAST}3")
        kernel.manager.shutdown_kernel()
    finally:
        kernel.end()
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "spool" in path.parts)
    assert b"session.ipynb" in kept
    assert b"reproduce.py" in kept
