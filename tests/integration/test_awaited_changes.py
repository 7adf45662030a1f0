"""A comparison right after a run has ended waits for what delivery writes about its program."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trackdsl
from tests.conftest import PATIENCE, all_runs, delivery_pids, end_delivery, wait_until
from trackdsl.errors import QueryError
from trackdsl.journal._waiters import Waiter
from trackdsl.store_format.root_runs import awaiting_changes

pytestmark = pytest.mark.slow

PROGRAM = """
from trackdsl import experiment, stage

@stage
def fit():
    return {number}

@experiment("churn")
def pipeline():
    fit()

pipeline()
"""
COMMAND = (sys.executable, "-m", "trackdsl.cli")


@pytest.fixture
def spool(tmp_path: Path, sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store with a run whose changes are written, and another one whose changes delivery may not write yet."""
    for name, value in {"CHANGES": "1", "MODE": "online", "TRACKING_URI": sqlite_store, "SHOW_URL": "0"}.items():
        monkeypatch.setenv(f"TRACKDSL_{name}", value)
    monkeypatch.setenv("PYTHONPATH", str(Path(trackdsl.__file__).parents[1]))
    spool = tmp_path / "spool"
    ran(1)
    wait_until(lambda: not awaiting_changes(spool), "the changes of the first run")
    with contextlib.closing(Waiter([spool])) as waiter:
        ran(2)
        monkeypatch.setattr(sys.modules[__name__], "waiters", [waiter])
        yield spool
    end_delivery(spool)


#: What delivery gives way to.
waiters: list[Waiter] = []


def ran(number: int) -> None:
    """Run the program, whose stage returns a number."""
    path = Path("program.py")
    path.write_text(PROGRAM.format(number=number))
    os.utime(path, (number, number))
    subprocess.run([sys.executable, path], check=True)


def ids(name: str) -> list[str]:
    """MLflow's ids of the runs with a name, the newest first."""
    found = [run for run in all_runs() if run.info.run_name == name]
    return [run.info.run_id for run in sorted(found, key=lambda run: -run.info.start_time)]


@pytest.mark.parametrize("name", ["pipeline", "fit"])
def test_a_comparison_waits(spool: Path, name: str) -> None:
    """At a terminal a line says that it waits; a child run waits for what its root run keeps."""
    new, old = ids(name)
    assert awaiting_changes(spool) == {ids("pipeline")[0]}
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, "compare", old, new], stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        said = os.read(ours, 1000).decode()
        assert said == "trackdsl: waiting until delivery has written what changed in the program …\r\n"
        assert process.poll() is None
        waiters.pop().close()
        text = process.communicate(timeout=PATIENCE)[0].decode()
    os.close(ours)
    assert process.returncode == 0
    assert "source of __main__.fit" in text
    assert not awaiting_changes(spool)


def test_what_changed_waits(spool: Path) -> None:
    """`changes` waits without a word where there is no terminal, and ends if the delivery process does."""
    with subprocess.Popen([*COMMAND, "changes", "pipeline"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=2)
        end_delivery(spool)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (1, b"")
    assert b"waiting" not in err
    assert b"no delivery process is at work on it. `trackdsl sync` writes it." in err
    with pytest.raises(QueryError, match="is not written yet"):
        trackdsl.changes(ids("pipeline")[0])
    waiters.pop().close()
    subprocess.run([*COMMAND, "sync"], check=True)
    assert not delivery_pids(spool)
    assert [change.name for change in trackdsl.changes(ids("pipeline")[0])] == ["__main__.fit"]
