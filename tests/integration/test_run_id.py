"""`Run.run_id` waits as long as the run's delivery is alive and does not fail, and no longer."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import ChangeTiming, wait_until
from tests.integration.test_mlflow_bridge import here, online  # noqa: F401 - fixtures
from trackdsl import RunNotReady, experiment
from trackdsl.delivery import _waiting
from trackdsl.journal import _spool
from trackdsl.journal._lock import FileLock

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def busy() -> FileLock:
    """The lock of a delivery process that is alive, and gets no time from its machine."""
    lock = FileLock(_spool.find() / _spool.LOCK)
    assert lock.acquire()
    return lock


def test_busy_delivery(here: str, busy: FileLock, change_timing: ChangeTiming, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """However long a delivery process that is alive takes to get to it, the run is waited for."""
    change_timing(no_sign=0.0)
    change_timing(check=0.0)
    answers: list[str | None] = []
    why_lost = _waiting.RunWatch.why_lost

    def counted(watch: _waiting.RunWatch) -> str | None:
        answers.append(why_lost(watch))
        return answers[-1]

    monkeypatch.setattr(_waiting.RunWatch, "why_lost", counted)
    with experiment("x") as run, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: run.run_id)
        wait_until(lambda: len(answers) > 5, "some looks")
        assert set(answers) == {None}
        change_timing(no_sign=60.0)  # Until a thread has taken the lock.
        busy.release()
        assert mlflow.get_run(asked.result()).info.run_name == "x"


def test_delivery_that_hangs(here: str, busy: FileLock, change_timing: ChangeTiming) -> None:  # noqa: F811
    """A delivery process that does nothing at all is given up in the end."""
    change_timing(no_progress=0.2)
    with experiment("x") as run, pytest.raises(RunNotReady, match="delivery hangs"):
        assert run.run_id
    busy.release()


def test_no_delivery(here: str, change_timing: ChangeTiming, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Where no process can deliver, the message says so, and where to look."""
    monkeypatch.setenv("TRACKDSL_DELIVERY", "process")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    change_timing(no_sign=0.2)
    with experiment("x") as run, pytest.raises(RunNotReady, match=r"no process delivers it.*delivery\.log"):
        assert run.run_id


def test_run_that_is_set_aside(here: str, change_timing: ChangeTiming) -> None:  # noqa: F811
    """A run that cannot be made as things are is not waited for: the error says what is wrong, until it is mended."""
    change_timing(failing=0.2)
    id_ = mlflow.create_experiment("gone")
    mlflow.delete_experiment(id_)
    with experiment("gone") as run:
        with pytest.raises(RunNotReady, match="restore"):
            assert run.url
        mlflow.MlflowClient()._tracking_client.restore_experiment(id_)
        change_timing(failing=60.0)  # Until delivery has tried again.
        assert run.run_id
