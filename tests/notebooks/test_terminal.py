"""IPython in a terminal: what its root run keeps at the end of the session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import all_runs, client, deliver
from tests.notebooks.kernels import ROOT

SESSION = """\
%load_ext trackdsl
%experiment churn
%%stage fit lr=3 --metrics m
m = lr

import trackdsl; print('shown'); trackdsl.log_metric('late', m); 1 / 0
m + 1
"""


def in_terminal(folder: Path, typed: str, **environment: str) -> str:
    """What IPython prints if this is typed; an empty line ends a cell of several lines."""
    command = [sys.executable, "-m", "IPython", "--no-banner", "--simple-prompt", "--colors=NoColor"]
    variables = {**os.environ, "HOME": str(folder), "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(command, cwd=folder, env=variables, input=typed, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("ending", ["%trackdsl Tree\nexit\n", ""], ids=["exit after a typo", "end of input"])
def test_the_files_of_a_session_that_ends(tmp_path: Path, sqlite_store: str, ending: str) -> None:
    """The root run gets `session.ipynb` and `reproduce.py` with all cells; a typo at its end does not fail it."""
    printed = in_terminal(tmp_path, SESSION + ending, TRACKDSL_TRACKING_URI=sqlite_store)
    assert "trackdsl:" not in printed
    deliver(sqlite_store)
    root, fit = all_runs(sqlite_store)
    assert (root.info.run_name, root.info.status, fit.data.metrics) == ("notebook", "FINISHED", {"m": 3.0})
    folder = Path(client(sqlite_store).download_artifacts(root.info.run_id, ""))
    cells = json.loads((folder / "session.ipynb").read_text())["cells"]
    assert [cell["source"].splitlines()[0][:12] for cell in cells] == [
        "%load_ext tr",
        "%experiment ",
        "%%stage fit ",
        "import track",
    ]
    program = (folder / "reproduce.py").read_text()
    assert "with _suppress(Exception):  # It failed.\n        import trackdsl" in program
    done = subprocess.run([sys.executable, folder / "reproduce.py"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
