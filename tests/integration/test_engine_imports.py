"""Engines: which of our modules are imported, and when."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import trackdsl
from trackdsl import stage
from trackdsl.testing import capture_runs

def ours():
    return sorted(name.split(".")[-1] for name in sys.modules if name.startswith("trackdsl.distributed."))

before = set(ours())
with capture_runs():
    with stage("first"):
        print(sorted(set(ours()) - before))
        before = set(ours())
        import joblib.parallel
        print(sorted(set(ours()) - before), hasattr(joblib.Parallel.__call__, "__wrapped__"))
    print(hasattr(joblib.Parallel.__call__, "__wrapped__"))
"""


def test_an_engine_is_imported_with_its_library() -> None:
    """A scope imports what follows threads and processes; the rest is imported with its library, and patches it."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    first, library, after = done.stdout.splitlines()
    assert first == "['_processes', '_threads']"
    assert library == "['_joblib'] True"
    assert after == "False"
