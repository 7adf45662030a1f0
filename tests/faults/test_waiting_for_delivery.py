"""Programs wait for a delivery process as long as it lives and is at work, whatever it has to wait for itself."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from pathlib import Path

import pytest

import trackdsl
from tests.conftest import delivery_pids, wait_until
from tests.delivery_settings import ChangeTiming
from trackdsl import stage
from trackdsl.cli._status import show as show_status
from trackdsl.delivery.program import _waiting
from trackdsl.journal._segments import Position
from trackdsl.store_format import ledger
from trackdsl.store_format.heartbeat import DELIVERING, read_heartbeat
from trackdsl.store_format.heartbeat_monitor import HeartbeatMonitor
from trackdsl.store_format.progress import Progress


@pytest.fixture
def spool(sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The spool of a program that records to a database on this machine."""
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_store)
    return tmp_path / "spool"


class Flush:
    """A `flush` in a thread."""

    def __init__(self) -> None:
        self.answers: list[bool] = []
        self.thread = threading.Thread(target=lambda: self.answers.append(trackdsl.flush()))
        self.thread.start()

    def answer(self) -> bool:
        self.thread.join()
        return self.answers[0]


def test_flush_waits_while_delivery_waits_for_a_lock(
    spool: Path, change_timing: ChangeTiming, capsys: pytest.CaptureFixture[str]
) -> None:
    """While delivery waits for a lock of SQLite, its heart beats, and `flush` waits longer than without a heartbeat.

    `trackdsl status` says what it waits for, before that has failed.
    """
    change_timing(no_sign=3.0)
    with stage("first"):
        pass
    wait_until(trackdsl.flush, "delivery to run")
    lock = sqlite3.connect("mlflow.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    with stage("s"):
        pass
    flush = Flush()

    def waits() -> bool:
        beat = read_heartbeat(spool)
        assert not flush.answers
        return beat is not None and beat.activity == DELIVERING and beat.still > 5.0

    wait_until(waits, "delivery to wait for the lock")
    show_status(None, as_json=False)
    lock.execute("ROLLBACK")
    assert flush.answer()
    assert "(waiting for a store on this machine since " in capsys.readouterr().out


def test_flush_outlives_a_delivery_process(spool: Path) -> None:
    """If the delivery process is killed while a program waits, another one is started."""
    with stage("first"):
        pass
    assert trackdsl.flush()
    lock = sqlite3.connect("mlflow.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    with stage("s"):
        pass
    flush = Flush()
    wait_until(lambda: (beat := read_heartbeat(spool)) is not None and beat.activity == DELIVERING, "delivery to begin")
    killed = delivery_pids(spool)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    lock.execute("ROLLBACK")
    assert flush.answer()
    assert not set(killed) & set(delivery_pids(spool))


def test_flush_gives_up_on_a_process_that_was_stopped(spool: Path, change_timing: ChangeTiming) -> None:
    """`flush` gives up on a stopped process that holds its lock without a heartbeat; once it resumes, all arrives."""
    with stage("first"):
        pass
    assert trackdsl.flush()
    pids = wait_until(lambda: delivery_pids(spool), "the delivery process")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    with stage("s"):
        pass
    change_timing(no_sign=1.0)
    try:
        assert not trackdsl.flush()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    wait_until(trackdsl.flush, "everything to arrive")


@pytest.fixture
def awaited(tmp_path: Path) -> _waiting._AwaitedJournal:
    """A journal that is to be delivered up to some position."""
    directory = tmp_path / "spool" / "journals" / "j"
    directory.mkdir(parents=True)
    return _waiting._AwaitedJournal(directory, Position(1, 100), True, None, failures=2)


@pytest.mark.parametrize("patience", [0.5, 1e9])
def test_a_wait_lasts_as_long_as_there_are_signs(
    awaited: _waiting._AwaitedJournal, patience: float, change_timing: ChangeTiming
) -> None:
    """If nothing delivers and nothing progresses, a wait without a timeout ends after a while."""
    change_timing(no_sign=patience)
    clock = _waiting._Clock(None, HeartbeatMonitor([(awaited.spool, "sqlite:///x.db")]), while_progressing=False)
    assert not clock.is_over([(awaited, Progress(offset=1))])
    if patience < 1:
        wait_until(lambda: clock.is_over([(awaited, Progress(offset=1))]), "the end of the wait", 10)
        assert not clock.is_over([(awaited, Progress(offset=2))])  # It has got on.
        wait_until(lambda: clock.is_over([(awaited, Progress(offset=2))]), "the end of the wait", 10)
        with (awaited.directory / ledger.NAME).open("ab") as file:
            file.write(b"a run that was created")
        assert not clock.is_over([(awaited, Progress(offset=2))])


def test_what_a_wait_expects(awaited: _waiting._AwaitedJournal) -> None:
    """A wait ends if delivery has failed since it began, also for deferred items, not if it had failed before."""
    there, behind = {"segment": 1, "offset": 100}, {"segment": 1, "offset": 99}
    assert awaited.is_reached(Progress(**there))
    assert not awaited.is_reached(Progress(**behind))
    assert not awaited.is_reached(Progress(**there, deferred=1))

    def stalled(*, again: bool = True, **progress: int) -> bool:
        return awaited.is_stalled(Progress(**progress), again=again)

    assert not stalled(**there, deferred=1, failures=2)
    assert stalled(**there, deferred=1, failures=2, again=False)
    assert stalled(**there, deferred=1, failures=3)
    assert not stalled(**behind, deferred=1, failures=2, again=False)
    assert not stalled(**behind, blocked_since=1, failures=2)
    assert stalled(**behind, blocked_since=1, failures=3)
    assert not stalled(**behind, failures=3)
