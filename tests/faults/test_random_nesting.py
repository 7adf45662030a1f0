"""Threads of tasks in several processes, nesting runs at random: every run is where the model says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import all_runs, deliver
from tests.faults import random_nesting_program


@pytest.mark.long
@pytest.mark.slow
def test_threads_of_tasks_in_processes(sqlite_store: str) -> None:
    """16 threads of 16 tasks in each of 3 processes: parents, parameters, metrics, tags, statuses as the model says."""
    done = subprocess.run(
        [sys.executable, random_nesting_program.__file__], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    assert done.returncode == 0, done.stderr
    deliver()
    runs = all_runs(sqlite_store)
    by_id = {run.info.run_id: run for run in runs}
    found = {}
    for run in runs:
        parent = by_id.get(run.data.tags.get("mlflow.parentRunId"))
        if parent is None:
            assert run.info.run_name == "soak"
            assert run.info.status == "FINISHED"
            continue
        key = run.data.params["key"]
        assert key not in found
        of = parent.data.params.get("key", parent.info.run_name)
        found[key] = (of, run.info.status, dict(run.data.metrics), run.data.tags.get("who"))
    assert found == _model()


def _model() -> dict[str, tuple[str, str, dict[str, float], str | None]]:
    """By the key of every run below the root: the key of its parent, its status, metrics and tag."""
    expected: dict[str, tuple[str, str, dict[str, float], str | None]] = {}
    for method in random_nesting_program.METHODS:
        expected[method] = ("soak", "FINISHED", {}, None)
        for task in (task for thread in random_nesting_program.plans(method) for task in thread):
            for planned, parent in task.walk(method):
                numbers = {"value": float(planned.value), "end": float(planned.value)}
                expected[planned.key] = (parent, "FAILED" if planned.fails else "FINISHED", numbers, planned.key)
    return expected
