"""Hostile and secret content in a real kernel: inert, bounded and masked in cards, files and terminals."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import all_runs, client, deliver, run_command
from tests.notebooks.kernels import ROOT, Kernel
from tests.notebooks.test_cards import cards

SECRET = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
PASSWORD = "hunter2-hunter2"
LOADED = (
    "import trackdsl\nfrom IPython.display import display\n"
    "class Big:\n    def __repr__(self): return 'y' * 10_000_000\n"
)
CELL = f"""%%stage hostile key='{SECRET}' name="<img src=x onerror=alert(1)>" --metrics acc --returns big
password = '{PASSWORD}'
run = trackdsl.current_run()
run.log_metric('<script>alert(1)</script>', 1)
run.set_tag('\\x1b]0;owned\\x07', '\\x1b[2J\\x1b]8;;http://x\\x07link')
run.log_param('<b>', '\\x1b[31m<i>')
print('token={SECRET}', '\\x1b]0;owned\\x07\\x1b[2J')
acc = 0.5
display(Big())
{{}}
"""
FAILING = f"raise ValueError('postgresql://me:{PASSWORD}@host/db <script>1</script> \\x1b[2J token={SECRET}')"


def hidden(text: str) -> bool:
    return SECRET not in text and PASSWORD not in text


def is_text(html: str) -> bool:
    """Whether no value is markup."""
    return not re.search(r"<script|<img|<i>|<b>x", html)


def is_calm(text: str) -> bool:
    """Whether a terminal obeys nothing in it, except colours."""
    return not re.search(r"\x1b\]|\x1b\[2J|\x07", text)


def execute(kernel: Kernel) -> list[dict[str, Any]]:
    """Execute the cell twice, the second time it fails; returns what their cards showed."""
    kernel.ok("%load_ext trackdsl")
    kernel.ok(LOADED)
    kernel.ok("%experiment churn")
    good, bad = (kernel.run(CELL.format(last), cell="c") for last in ("Big()", FAILING))
    assert (good.status, bad.status) == ("ok", "error")
    return [message["content"]["data"] for answer in (good, bad) for message in cards(answer)]


@pytest.mark.slow
def test_cards_files_and_commands(tmp_path: Path, sqlite_store: str) -> None:
    """Cards, what MLflow has, the artifacts, and what commands print in a terminal."""
    kernel = Kernel(tmp_path, TRACKDSL_TRACKING_URI=sqlite_store, TRACKDSL_MODE="online")
    try:
        shown = execute(kernel)
        kernel.ok("%experiment --end")
        printed = [kernel.ok(f"%trackdsl {command}") for command in ("tree", "last", "compare")]
        kernel.manager.shutdown_kernel()
    finally:
        kernel.end()
    assert len(shown) >= 4
    for data in shown:
        assert is_text(data["text/html"])
        for text in data.values():
            assert hidden(text)
            assert is_calm(text)
            assert len(text) < 30_000
    assert "ValueError" in shown[-1]["text/plain"]
    deliver(sqlite_store)
    mlflow = client(sqlite_store)
    runs = all_runs(sqlite_store)
    for run in runs:
        assert hidden(json.dumps(run.to_dictionary(), default=str)), run.info.run_name
        folder = Path(mlflow.download_artifacts(run.info.run_id, ""))
        files = [path for path in folder.rglob("*") if path.is_file()]
        for file in files:
            text = file.read_text(errors="replace")
            assert hidden(text), file
            assert len(text) < 300_000, file
            if file.name == "output.txt":
                assert is_calm(text), file
        if run.info.run_name == "churn" or not run.data.tags.get("mlflow.parentRunId"):
            session = json.loads((folder / "session.ipynb").read_text())
            assert "\\u001b]" not in json.dumps([cell["outputs"] for cell in session["cells"]])
    printed += [
        run_command(*command, "--tracking-uri", sqlite_store).stdout
        for command in (("ls", "churn", "--superseded"), ("show", "hostile"), ("tree", "notebook", "--superseded"))
    ]
    for text in printed:
        assert hidden(text)
        assert is_calm(text)


def test_a_terminal(tmp_path: Path, sqlite_store: str) -> None:
    """What IPython in a terminal shows below the cells, beside what they print themselves."""
    script = tmp_path / "cells.ipy"
    body = (
        CELL.format("0")
        .replace(f"print('token={SECRET}', '\\x1b]0;owned\\x07\\x1b[2J')", "")
        .replace("display(Big())", "")
    )
    script.write_text(f"%load_ext trackdsl\n{LOADED}get_ipython().run_cell({body!r})\n")
    command = [sys.executable, "-m", "IPython", "--no-banner", "--simple-prompt", str(script)]
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "TRACKDSL_TRACKING_URI": sqlite_store}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert "hostile  FINISHED" in done.stdout, done.stdout + done.stderr
    assert hidden(done.stdout)
    assert is_calm(done.stdout)
