"""Notebooks of marimo: in its editor a cell is executed again; as a script they are programs."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import all_runs, deliver, free_port, wait_until
from tests.notebooks.kernels import ROOT

pytestmark = pytest.mark.slow
SUPERSEDES, BY = "trackdsl.supersedes", "trackdsl.superseded_by"
NOTEBOOK = """\
import marimo

app = marimo.App()


@app.cell
def _():
    import trackdsl
    trackdsl.start_logging("churn")
    return (trackdsl,)


@app.cell
def _(trackdsl):
    lr = 0.1
    with trackdsl.stage("fit", lr=lr):
        with trackdsl.stage("inner"):
            pass
    return (lr,)


if __name__ == "__main__":
    app.run()
"""


class Editor:
    """A session of marimo's editor, as a browser has it.

    Args:
        port: of its server.
        socket: a connected websocket.
    """

    def __init__(self, port: int, socket: Any) -> None:
        self._port = port
        self._socket = socket
        (ready,) = self._until("kernel-ready")[-1:]
        self.cells: list[str] = ready["cell_ids"]
        self.codes: list[str] = ready["codes"]
        self._post("instantiate", {"objectIds": [], "values": [], "autoRun": True})
        self._until("completed-run")

    def run(self, cell: int, code: str | None = None) -> None:
        """Execute a cell, and those that depend on it."""
        self._post("run", {"cellIds": [self.cells[cell]], "codes": [code or self.codes[cell]]})
        self._until("completed-run")

    def _post(self, what: str, content: dict[str, Any]) -> None:
        answer = requests.post(
            f"http://127.0.0.1:{self._port}/api/kernel/{what}", json=content, timeout=60,
            headers={"Marimo-Session-Id": "test"},
        )  # fmt: skip
        assert answer.ok, answer.text

    def _until(self, what: str) -> list[dict[str, Any]]:
        found = []
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            found.append(message["data"])
            assert "marimo-error" not in json.dumps(message), message
            if message["op"] == what:
                return found


@contextlib.contextmanager
def server_of(folder: Path, mode: str) -> Iterator[int]:
    """Serve the notebook in a folder by `marimo edit` or `marimo run`; yields the port."""
    port = free_port()
    options = ["--no-skew-protection"] if mode == "edit" else []
    command = [sys.executable, "-m", "marimo", mode, "--headless", "--no-token", "--port", str(port)]
    with open(folder / "marimo.log", "w") as log:
        server = subprocess.Popen(
            [*command, *options, "notebook.py"], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: _answers(port), "marimo's server")
        yield port
    finally:
        server.terminate()
        server.wait(60)


@contextlib.contextmanager
def editor(folder: Path) -> Iterator[Editor]:
    """Open the notebook in a folder in marimo's editor."""
    from websockets.sync.client import connect

    with (
        server_of(folder, "edit") as port,
        connect(f"ws://127.0.0.1:{port}/ws?session_id=test", max_size=None) as socket,
    ):
        yield Editor(port, socket)


def _answers(port: int) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"http://127.0.0.1:{port}/health", timeout=10).ok
    return False


@pytest.fixture
def folder(tmp_path: Path, sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", sqlite_store)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "notebook.py").write_text(NOTEBOOK)
    return tmp_path


def test_a_cell_that_is_executed_again(folder: Path, sqlite_store: str) -> None:
    """The newer run of a cell names the older one, also when the cell was edited; a new root supersedes nothing."""
    with editor(folder) as marimo:
        marimo.run(1)
        marimo.run(1, marimo.codes[1].replace("0.1", "0.3"))
        marimo.run(0)  # The other cell depends on it.
    deliver(sqlite_store)
    runs = sorted(all_runs(sqlite_store), key=lambda run: run.data.tags["trackdsl.id"])
    fits = [run for run in runs if run.info.run_name == "fit"]
    ids = [run.data.tags["trackdsl.id"] for run in fits]
    assert [run.data.params["lr"] for run in fits] == ["0.1", "0.1", "0.3", "0.3"]
    assert [run.data.tags.get(SUPERSEDES) for run in fits] == [None, ids[0], ids[1], None]
    assert [run.data.tags.get(BY) for run in fits] == [ids[1], ids[2], None, None]
    cells = {json.loads(run.data.tags["trackdsl.cell"])["id"] for run in fits}
    assert len(cells) == 1
    inner = [run for run in runs if run.info.run_name == "inner"]
    assert len(inner) == 4
    assert not any(SUPERSEDES in run.data.tags or BY in run.data.tags for run in inner)
    roots = [run for run in runs if run.info.run_name == "churn"]
    assert len(roots) == 2
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in fits} == {run.info.run_id for run in roots}


def test_as_a_script(folder: Path, sqlite_store: str) -> None:
    """`python notebook.py` records what the program does, and nothing of cells."""
    done = subprocess.run([sys.executable, "notebook.py"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    deliver(sqlite_store)
    runs = all_runs(sqlite_store)
    assert sorted(run.info.run_name for run in runs) == ["churn", "fit", "inner"]
    assert not any("trackdsl.cell" in run.data.tags for run in runs)


def test_as_an_app(folder: Path, sqlite_store: str) -> None:
    """`marimo run` records what the program does for each visitor, and nothing of cells."""
    from websockets.sync.client import connect

    with (
        server_of(folder, "run") as port,
        connect(f"ws://127.0.0.1:{port}/ws?session_id=test", max_size=None) as socket,
    ):
        while json.loads(socket.recv(timeout=60))["op"] != "completed-run":
            pass
    deliver(sqlite_store)
    runs = all_runs(sqlite_store)
    assert sorted(run.info.run_name for run in runs) == ["churn", "fit", "inner"]
    assert not any("trackdsl.cell" in run.data.tags for run in runs)
