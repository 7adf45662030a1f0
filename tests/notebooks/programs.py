"""Runs `reproduce.py` of notebooks in a fresh process, and says what is recorded there and in the kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.notebooks.kernels import ROOT, Kernel

_RUN = """
import json, os, runpy, sys
from trackdsl.testing import capture_runs
found = {}
for path in sys.argv[1:]:
    os.chdir(os.path.dirname(path))
    with capture_runs() as captured:
        runpy.run_path(path, run_name="__main__")
        __import__("trackdsl").stop_logging()
        found[path] = [
            [r.name, r.parent and r.parent.name, r.status, {k: str(v) for k, v in r.params.items()},
             {k: p[-1].value for k, p in r.metrics.items()}]
            for r in captured.runs if not r.tags.get("trackdsl.superseded_by")
        ]
print("RUNS" + json.dumps(found))
"""


class Recorded(NamedTuple):
    """A run that counts: its parameters as texts, and the last value of each metric."""

    name: str
    parent: str | None
    status: str
    params: dict[str, str]
    metrics: dict[str, float]


def counting(kernel: Kernel, root: Any) -> list[Recorded]:
    """The runs below a root, and itself, that count in the kernel."""
    return [
        Recorded(run.name, run.parent, run.status, {k: str(v) for k, v in run.params.items()}, run.metrics)
        for run in kernel.recorded() if run.root == root.id and not run.tags.get("trackdsl.superseded_by")
    ]  # fmt: skip


def finished(runs: Iterable[Recorded]) -> list[Recorded]:
    """Those that ended normally. A program leaves out what failed and is not needed."""
    return [run for run in runs if run.status == "FINISHED"]


def reproduced(programs: Mapping[str, str], folder: Path) -> dict[str, list[Recorded]]:
    """The runs that count of each program, by its name. One process executes all, each in a folder of its own."""
    names = {}
    for at, (name, program) in enumerate(programs.items()):
        path = folder / f"program-{at}" / "reproduce.py"
        path.parent.mkdir()
        path.write_text(program, encoding="utf-8")
        names[str(path)] = name
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *names], env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"},
        cwd=folder, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.partition("RUNS")[2])
    return {names[path]: [Recorded(*run) for run in runs] for path, runs in found.items()}
