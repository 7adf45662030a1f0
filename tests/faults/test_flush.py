"""`flush` during and after outages, and where something is lost."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import wait_until
from tests.memory_store import MemoryStore
from trackdsl import errors, experiment, stage
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.program import _waiting
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.delivery.store._sink import GONE
from trackdsl.journal import _spare_segments, _store_target
from trackdsl.journal._spool import journals
from trackdsl.store_format.progress import read_progress


@pytest.fixture
def outage(spool: Path) -> Iterator[tuple[MemoryStore, Worker]]:
    """A store that is away, and a worker, to be driven by the test."""
    store = MemoryStore()

    def away(*_: Any) -> None:
        raise Unavailable("away")

    store.before = away
    worker = Worker(spool, store.open)
    yield store, worker
    worker.close()


@contextlib.contextmanager
def served(worker: Worker) -> Iterator[None]:
    """Deliver from a thread."""
    done = threading.Event()

    def serve() -> None:
        while not done.wait(0.01):
            worker.round()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        worker.close()


@pytest.mark.usefixtures("each_kind_of_store", "nobody_starts")
def test_flush_after_an_outage(outage: tuple[MemoryStore, Worker], spool: Path) -> None:
    """Once the store is back, `flush` waits for the delivery instead of believing an error that was noted before."""
    store, worker = outage
    with stage("s") as run:
        run.log_metric("m", 1)
        (journal,) = journals(spool)
        worker.round()
        progress = read_progress(journal)
        assert progress is not None
        assert progress.blocked_since

        store.before = lambda *_: None
        with served(worker):
            assert trackdsl.flush()
        assert len(store.named("s").points) == 1


@pytest.mark.usefixtures("each_kind_of_store", "nobody_starts")
def test_flush_while_delivery_tries_again(
    outage: tuple[MemoryStore, Worker], spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first try after an outage is under way, `flush` does not take the old error for a new one."""
    store, worker = outage
    looks: list[Path] = []
    with stage("s"):
        worker.round()

        def look(directory: Path) -> Any:
            looks.append(directory)
            return read_progress(directory)

        def slow(method: str, *_: Any) -> None:
            if method == "create_run":
                already = len(looks)
                wait_until(lambda: len(looks) > already + 3 or not thread.is_alive(), "flush to look")

        store.before = slow
        monkeypatch.setattr(_waiting, "read_progress", look)
        flushed: list[bool] = []
        thread = threading.Thread(target=lambda: flushed.append(trackdsl.flush()))
        thread.start()
        wait_until(lambda: worker.round() or flushed, "the delivery")
        thread.join()
        assert flushed == [True]


@pytest.mark.usefixtures("each_kind_of_store", "nobody_starts")
def test_flush_does_not_wait_for_an_outage(outage: tuple[MemoryStore, Worker], spool: Path) -> None:
    """If the store stays unavailable, `flush` ends as soon as that is noted again, and returns False."""
    _, worker = outage
    with stage("s"):
        worker.round()

        with served(worker):
            assert not trackdsl.flush()


@pytest.mark.usefixtures("each_kind_of_store", "nobody_starts")
@pytest.mark.parametrize("waits_for", ["experiment", "artifacts"])
def test_flush_tries_again_what_is_deferred(spool: Path, waits_for: str) -> None:
    """Runs that were blocked and files that were put off are tried once more before `flush` answers."""
    store = MemoryStore()
    away = waits_for == "artifacts"

    def before(method: str, *_: Any) -> None:
        if away and method == "write_artifact":
            raise Unavailable("busy")

    store.before = before
    store.deleted = {"e-gone"} if waits_for == "experiment" else set()
    worker = Worker(spool, store.open)
    with experiment("gone") as run:
        run.log_text("text", "f.txt")
        (journal,) = journals(spool)
        worker.round()
        progress = read_progress(journal)
        assert progress is not None
        assert progress.deferred

        with served(worker):
            assert not trackdsl.flush()
            away, store.deleted = False, set()
            assert trackdsl.flush()
        assert store.named("gone").files == {"f.txt": "text"}


@pytest.mark.usefixtures("nobody_starts")
def test_flush_without_a_spool(spool: Path) -> None:
    """Where the spool is deleted, nothing is known to be delivered."""
    with stage("s") as run:
        run.log_metric("m", 1)
        spool.rename(spool.with_name("gone"))
        assert not trackdsl.flush(0.05)


@pytest.mark.usefixtures("nobody_starts", "git_never_answers")
class TestFlushAfterLoss:
    """`flush` is False once where something is lost, says what in one warning, and is True again afterwards."""

    def check(self, caplog: pytest.LogCaptureFixture, expected: str) -> None:
        assert not trackdsl.flush()
        (said,) = [record.message for record in caplog.records if "is lost:" in record.message]
        assert expected in said
        with stage("again"):
            pass
        assert trackdsl.flush()

    @pytest.mark.usefixtures("each_kind_of_store")
    def test_a_full_disk(self, spool: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """Events that the journal had no room for."""

        def full(*_: Any) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device")

        with served(Worker(spool, MemoryStore().open)), stage("s") as run:
            with monkeypatch.context() as patch:
                patch.setattr(_spare_segments, "allocate", full)
                while not run.lost:
                    run.log_metric("m", 1)
            run.target.writer._retry_at = 0  # type: ignore[union-attr]
            self.check(caplog, "1 event could not be recorded")

    @pytest.mark.usefixtures("each_kind_of_store")
    def test_no_journal(self, spool: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """Events that were recorded while no journal could be made at all."""
        with monkeypatch.context() as patch:
            patch.setattr(_store_target, "find_spool", no_spool)
            with stage("s") as run:
                run.log_metric("m", 1)
            assert not trackdsl.flush()
            assert trackdsl.flush()  # Nothing was recorded since.
        caplog.clear()
        errors.forget_reported()
        with monkeypatch.context() as patch, stage("s") as run:
            run.target._retry_at = 0
            patch.setattr(_store_target, "find_spool", no_spool)
            run.log_metric("m", 1)
        run.target._retry_at = 0
        with served(Worker(spool, MemoryStore().open)):
            self.check(caplog, "events could not be recorded")

    @pytest.mark.usefixtures("each_kind_of_store")
    def test_a_deleted_run(self, spool: Path, caplog: pytest.LogCaptureFixture) -> None:
        """What was recorded for a run that was deleted at the store, which refuses it."""
        store = MemoryStore()
        with served(Worker(spool, store.open)):
            with stage("s") as run:
                assert trackdsl.flush()
                (run_id,) = store.runs
                store.before = refuse_all_of(store, run_id)
                run.log_metric("m", 1)
                assert not trackdsl.flush()
            assert not trackdsl.flush()  # Its end was refused too.
            caplog.clear()
            assert trackdsl.flush()

    @pytest.mark.usefixtures("each_kind_of_store")
    def test_a_damaged_record(self, spool: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A record that was damaged before it was delivered."""
        with stage("s") as run:
            run.log_metric("m", 1)
            run.log_metric("m", 2)
            (journal,) = journals(spool)
            with open(journal / "000001.seg", "r+b") as file:
                content = file.read()
                file.seek(content.rindex(b"\xa1m"))
                file.write(b"\xa1x")
            run.log_metric("m", 3)
            with served(Worker(spool, MemoryStore().open)):
                self.check(caplog, "1 damaged record was skipped")

    @pytest.mark.usefixtures("each_kind_of_store")
    def test_a_deleted_journal(self, spool: Path, caplog: pytest.LogCaptureFixture) -> None:
        """What was not delivered when the journal was deleted."""
        with stage("s") as run:
            run.log_metric("m", 1)
            (journal,) = journals(spool)
            journal.rename(spool / "away")
            with served(Worker(spool, MemoryStore().open)):
                self.check(caplog, journal.name)


def no_spool() -> Path:
    raise OSError(errno.EROFS, "Read-only file system")


def refuse_all_of(store: MemoryStore, run_id: str) -> Callable[..., None]:
    """Let a store behave as MLflow does towards a run that was deleted."""

    def before(method: str, *arguments: Any) -> None:
        if run_id in arguments[:1] and method in ("write", "end_run"):
            store.runs[run_id].status = GONE
            raise Refused("the run is deleted")

    return before
