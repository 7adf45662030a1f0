"""`Run.run_id` waits as long as the run's delivery is alive and does not fail, and no longer."""

from __future__ import annotations

import itertools
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import wait_until
from tests.delivery_settings import ChangeTiming
from trackdsl import RunNotReady, experiment
from trackdsl.delivery.program import _waiting
from trackdsl.journal import _spool, _spool_choice
from trackdsl.journal._lock import FileLock
from trackdsl.store_format import heartbeat, heartbeat_monitor
from trackdsl.store_format.heartbeat import Heartbeat, HeartbeatFile

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def busy() -> FileLock:
    """The lock of a delivery process that is alive, and gets no time from its machine."""
    lock = FileLock(_spool_choice.find() / _spool.LOCK)
    assert lock.acquire()
    return lock


def test_busy_delivery(here: str, busy: FileLock, change_timing: ChangeTiming, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is waited for as long as the delivery process has a heartbeat, however busy it is."""
    change_timing(no_sign=0.5)
    answers: list[str | None] = []
    why_lost = _waiting.RunWatch.why_lost
    monkeypatch.setattr(heartbeat_monitor, "_LOOK_EVERY", 0.0)
    heart = HeartbeatFile(_spool_choice.find())
    count = itertools.count(1)

    def counted(watch: _waiting.RunWatch) -> str | None:
        heart.write(Heartbeat(os.getpid(), next(count), 1, heartbeat.IDLE))
        answers.append(why_lost(watch))
        return answers[-1]

    monkeypatch.setattr(_waiting.RunWatch, "why_lost", counted)
    with experiment("x") as run, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: run.run_id)
        begun = time.monotonic()
        wait_until(lambda: len(answers) > 5 and time.monotonic() - begun > 1.0, "some looks")
        assert set(answers) == {None}
        change_timing(no_sign=60.0)  # Until a thread has taken the lock.
        busy.release()
        assert mlflow.get_run(asked.result()).info.run_name == "x"


def test_delivery_that_hangs(here: str, busy: FileLock, change_timing: ChangeTiming) -> None:
    """A delivery process that does nothing is given up after a while."""
    change_timing(no_progress=0.2)
    with experiment("x") as run, pytest.raises(RunNotReady, match="delivery hangs"):
        assert run.run_id
    busy.release()


def test_delivery_that_does_not_move(here: str, busy: FileLock, change_timing: ChangeTiming) -> None:
    """A delivery process without a heartbeat, such as one that was stopped, is given up."""
    HeartbeatFile(_spool_choice.find()).write(Heartbeat(1 << 30, 1, 1, heartbeat.IDLE))
    change_timing(no_sign=0.2)
    with experiment("x") as run, pytest.raises(RunNotReady, match=r"writes no heartbeat.*delivery\.log"):
        assert run.run_id
    busy.release()


def test_no_delivery(here: str, change_timing: ChangeTiming, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no process can deliver, the message says so, and where to look."""
    monkeypatch.setenv("TRACKDSL_DELIVERY", "process")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    change_timing(no_sign=0.2)
    with experiment("x") as run, pytest.raises(RunNotReady, match=r"no process delivers it.*delivery\.log"):
        assert run.run_id


def test_blocked_run(here: str, change_timing: ChangeTiming) -> None:
    """Nobody waits for a run that is blocked: the error says what is wrong, until it is fixed."""
    change_timing(failing=0.2)
    id_ = mlflow.create_experiment("gone")
    mlflow.delete_experiment(id_)
    with experiment("gone") as run:
        with pytest.raises(RunNotReady, match="restore"):
            assert run.url
        mlflow.MlflowClient()._tracking_client.restore_experiment(id_)
        change_timing(failing=60.0)  # Until delivery has tried again.
        assert run.run_id
