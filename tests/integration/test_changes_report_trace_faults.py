"""What delivery makes of a root run after its end, and cannot: what changed, the report, the trace."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import client
from tests.failing_sink import Faults, deliver_with_faults
from trackdsl import changes, experiment, stage
from trackdsl.delivery.store._errors import Refused
from trackdsl.delivery.summaries import _what_changed
from trackdsl.errors import QueryError
from trackdsl.journal import _target
from trackdsl.store_format.root_runs import left

MADE = {
    "trackdsl/changes.json": "write_changes",
    "trackdsl/report.html": "make_report",
    "trace": "make_trace",
}


@pytest.fixture(autouse=True)
def on(monkeypatch: pytest.MonkeyPatch, sqlite_store: str) -> None:
    """Switches everything on that delivery makes."""
    for name in ("CHANGES", "REPORTS", "TRACES"):
        monkeypatch.setenv(f"TRACKDSL_{name}", "1")
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", sqlite_store)


def record() -> str:
    with experiment("churn", run_name="pipeline") as run:
        for name in ("load", "train"):
            with stage(name):
                pass
    _target.close_all()
    return run.id


def made_of(uri: str, run_id: str) -> set[str]:
    run = client(uri).get_run(run_id)
    files = {path for path in MADE if Path(run.info.artifact_uri, path).exists()}
    return files | ({"trace"} if "trackdsl.trace" in run.data.tags else set())


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("name", MADE)
def test_a_fault_that_would_occur_again(
    name: str, sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For a fault that would occur again there is one log line, a tag on each run, and the other parts are made."""

    def broken(*_: Any, **__: Any) -> bool:
        raise RuntimeError("a fault with token=hunter2hunter2")

    monkeypatch.setattr(_what_changed, MADE[name], broken)
    ids = [record(), record()]
    with caplog.at_level(logging.WARNING, "trackdsl"):
        deliver_with_faults(tmp_path / "spool", sqlite_store, Faults())
    said = [line.getMessage() for line in caplog.records if "a fault with" in line.getMessage()]
    assert len(said) == 1
    assert f"{name} of run {ids[0]}" in said[0]
    for run_id in ids:
        tag = client(sqlite_store).get_run(run_id).data.tags[f"trackdsl.omitted.{name}"]
        assert tag.startswith("RuntimeError: a fault with")
        assert "hunter2" not in tag
        assert made_of(sqlite_store, run_id) == MADE.keys() - {name}
    assert not left(tmp_path / "spool")
    if name == "trackdsl/changes.json":
        with pytest.raises(QueryError, match=r"could not be written to 'pipeline' .*: RuntimeError: a fault with"):
            changes(ids[0])


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize(("name", "call"), [("trackdsl/changes.json", "write_text"), ("trace", "write_trace")])
def test_what_the_store_refuses(name: str, call: str, sqlite_store: str, tmp_path: Path) -> None:
    """A tag on the run names what the store refused."""
    run_id = record()
    faults = Faults()
    faults.at = _Once(call, faults)  # type: ignore[assignment]
    deliver_with_faults(tmp_path / "spool", sqlite_store, faults)
    tags = client(sqlite_store).get_run(run_id).data.tags
    assert tags[f"trackdsl.omitted.{name}"].startswith("the store refused it: call ")
    assert made_of(sqlite_store, run_id) == MADE.keys() - {name}


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("call", ["points", "list_files"])
def test_a_report_shows_what_the_store_gives(call: str, sqlite_store: str, tmp_path: Path) -> None:
    """A store that refuses to give files or points does not keep the rest off the page."""
    with experiment("churn", run_name="pipeline") as run:
        for name in ("load", "train"):
            with stage(name) as inner:
                inner.log_metric("loss", 1.0)
    _target.close_all()
    faults = Faults()
    faults.at = _Once(call, faults)  # type: ignore[assignment]
    deliver_with_faults(tmp_path / "spool", sqlite_store, faults)
    assert "trackdsl/report.html" in made_of(sqlite_store, run.id)


@pytest.mark.usefixtures("no_pauses")
def test_nothing_is_said_of_a_run_that_is_deleted(
    sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If somebody deletes the run meanwhile, nothing is reported."""
    run_id = record()

    def deleted(*_: Any, **__: Any) -> bool:
        client(sqlite_store).delete_run(run_id)
        raise Refused("there is no such run")

    monkeypatch.setattr(_what_changed, "write_changes", deleted)
    with caplog.at_level(logging.WARNING, "trackdsl"):
        deliver_with_faults(tmp_path / "spool", sqlite_store, Faults())
    assert not [line for line in caplog.records if run_id in line.getMessage()]
    assert not left(tmp_path / "spool")


class _Once(dict[int, Any]):
    """Refuses the first call of a name."""

    def __init__(self, name: str, faults: Faults) -> None:
        super().__init__()
        self._name = name
        self._faults = faults
        self._raised = False

    def get(self, _number: int, default: Any = None) -> Any:
        if self._raised or self._faults.names[-1] != self._name:
            return default
        self._raised = True
        return Refused, False
