"""The reports that delivery makes of root runs, after everything else is delivered."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server, client, sync, wait_until
from tests.failing_sink import Faults, deliver_with_faults, worker_of
from tests.memory_store import Crash
from trackdsl import experiment, log_metric, stage
from trackdsl.delivery.process._stores import open_store
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.journal import _target
from trackdsl.store_format.root_runs import left

PATH = "trackdsl/report.html"


@pytest.fixture(autouse=True)
def on(monkeypatch: pytest.MonkeyPatch, sqlite_store: str) -> None:
    """Reports are made, in a database."""
    monkeypatch.setenv("TRACKDSL_REPORTS", "1")
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", sqlite_store)


def record(children: int = 2) -> str:
    """Record a root run with this many children; returns its id."""
    with experiment("churn", run_name="pipeline") as run:
        for number in range(children):
            with stage(f"step-{number}"):
                for epoch in range(3):
                    log_metric("loss", 1 / (epoch + 1), epoch)
    _target.close_all()
    return run.id


def page_of(uri: str, run_id: str) -> str | None:
    """The report of a run; None if it has none."""
    path = Path(client(uri).get_run(run_id).info.artifact_uri, PATH)
    return path.read_text() if path.exists() else None


@pytest.mark.usefixtures("no_pauses")
def test_which_runs_have_a_report(sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root runs with two children or more have one, without those that are superseded; `reports` turns it off."""
    spool = tmp_path / "spool"
    ids = [record(2), record(1)]
    with experiment("churn", run_name="notebook") as run:
        for name in ("first", "second"):
            with stage(name) as cell:
                cell.set_tag("trackdsl.superseded_by", {"first": "0" * 32, "second": ""}[name])
    _target.close_all()
    ids.append(run.id)
    monkeypatch.setenv("TRACKDSL_REPORTS", "0")
    ids.append(record(2))
    deliver_with_faults(spool, sqlite_store, Faults())
    pages = [page_of(sqlite_store, run_id) for run_id in ids]
    assert [page is not None for page in pages] == [True, False, False, False]
    assert "3 runs" in str(pages[0])
    assert "step-1" in str(pages[0])
    children = client(sqlite_store).search_runs(["1"], f"tags.`mlflow.parentRunId` = '{ids[0]}'")
    assert all(page_of(sqlite_store, child.info.run_id) is None for child in children)


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("apart", [1, 10, 7])
def test_long_curves_are_read_in_part(apart: int, sqlite_store: str, tmp_path: Path) -> None:
    """From a curve of thousands of points, a few hundred are read at even distances, with steps of any distance."""
    with experiment("churn") as run:
        for number in range(5000):
            log_metric("loss", float(number), number * apart)
    _target.close_all()
    deliver_with_faults(tmp_path / "spool", sqlite_store, Faults())
    sink = open_store(sqlite_store, str(tmp_path), own=True)
    found = sorted(sink.points(run.id, "loss", 200))
    assert 100 <= len(found) <= 400
    gaps = {later[0] - earlier[0] for earlier, later in itertools.pairwise(found)}
    assert len(gaps) == 1
    assert len(sink.points(run.id, "loss", 5000)) == 5000
    sink.close()


@pytest.mark.usefixtures("no_pauses")
def test_a_program_that_waits_comes_first(sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that is being made is given up when a program begins to wait, and is made when it no longer waits."""
    run_id = record()
    faults = Faults()
    worker = worker_of(tmp_path / "spool", sqlite_store, faults)
    monkeypatch.setattr(worker, "awaited", lambda: "points" in faults.names)
    wait_until(lambda: not worker.round() and "points" in faults.names, "the report to be begun")
    assert not worker.round()
    assert "write_text" not in faults.names
    assert not worker.idle()
    assert page_of(sqlite_store, run_id) is None
    monkeypatch.undo()
    monkeypatch.setenv("TRACKDSL_SPOOL", str(tmp_path / "spool"))
    wait_until(lambda: not worker.round() and worker.idle(), "the report")
    worker.close()
    assert page_of(sqlite_store, run_id) is not None


@pytest.mark.slow
@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("fault", [Unavailable, Crash])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["tree", "points", "list_files", "write_text"])
def test_a_fault_while_a_report_is_made(
    name: str, fault: type[BaseException], done: bool, sqlite_store: str, tmp_path: Path
) -> None:
    """Whether the store fails or delivery is killed, the report is made by the next attempt, and nothing is left."""
    run_id = record()
    faults = Faults()
    names = _CallsByName(name, fault, done)
    faults.at = names  # type: ignore[assignment]
    names.faults = faults
    deliver_with_faults(tmp_path / "spool", sqlite_store, faults)
    assert names.raised
    assert page_of(sqlite_store, run_id) is not None
    assert not left(tmp_path / "spool")


class _CallsByName(dict[int, Any]):
    """The fault of the first call of a name."""

    def __init__(self, name: str, fault: Any, done: bool) -> None:
        super().__init__()
        self.faults: Faults
        self.raised = False
        self._name, self._fault = name, (fault, done)

    def get(self, _number: int, default: Any = None) -> Any:
        if self.raised or self.faults.names[-1] != self._name:
            return default
        self.raised = True
        return self._fault


PROGRAM = """
from trackdsl import experiment, stage
with experiment("churn", run_name="pipeline") as run:
    for name in ("load", "train"):
        with stage(name): pass
print(run.id)
"""


@pytest.mark.slow
def test_the_delivery_process_imports_no_mlflow_for_it(sqlite_store: str, tmp_path: Path) -> None:
    """The report of a run in a database is made and written without MLflow."""
    run_id = record()
    code = (
        "import sys; from pathlib import Path; from trackdsl.delivery import service\n"
        "service._LINGER = 0.0\n"
        "service.main(Path(sys.argv[1])); print('mlflow' in sys.modules)"
    )
    spool = tmp_path / "spool"
    done = subprocess.run([sys.executable, "-c", code, str(spool)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n", done.stderr
    assert page_of(sqlite_store, run_id) is not None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "plugin"])
def test_at_a_server(kind: str, own_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs at a tracking server have their reports too, with and without the plugin there."""
    own_server.options = ("--app-name", "trackdsl") if kind == "plugin" else ()
    own_server.start()
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", own_server.uri)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert sync().returncode == 0
    found = client(own_server.uri).search_runs(["1"], f"tags.`trackdsl.id` = '{done.stdout.strip()}'")[0]
    content = client(own_server.uri).download_artifacts(found.info.run_id, PATH, str(tmp_path))
    assert "train" in Path(content).read_text()
