"""Journals that are deleted, lose segments, or whose notes are torn, and when their data reaches the disk."""

from __future__ import annotations

import contextlib
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.delivery_settings import ChangeLimits
from tests.integration.test_journal import DELETIONS
from tests.memory_store import Crash, MemoryStore, deliver_to
from trackdsl import experiment, stage
from trackdsl.delivery.process import _durability
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.state._ledger import journal_ledger
from trackdsl.delivery.state._run_map import DeliveredRun, RunMap
from trackdsl.journal import _format, _target
from trackdsl.journal._segments import segments
from trackdsl.journal._spool import journals
from trackdsl.journal._writer import Writer
from trackdsl.store_format import losses as _losses
from trackdsl.store_format.known_runs import read_runs
from trackdsl.store_format.ledger import NAME, RUN, frame


def test_a_torn_note_of_a_run_swallows_no_other(tmp_path: Path) -> None:
    """A note on a run that a power cut tore is passed over, and the next one is read."""
    RunMap(journal_ledger(tmp_path)).add(b"a" * 16, DeliveredRun("r1", "0"))
    with open(tmp_path / NAME, "ab") as file:
        file.write(frame([RUN.change(b"b" * 16, ("r2", "0", "o", True))])[:-1])
    RunMap(journal_ledger(tmp_path)).add(b"c" * 16, DeliveredRun("r3", "0"))
    assert [run.run_id for _, run in read_runs(tmp_path)] == ["r1", "r3"]


def test_every_segment_is_brought_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a program fills several segments between two syncs, all are synced."""
    synced: set[str] = set()
    monkeypatch.setattr(_durability, "_sync", lambda path: synced.add(path.name))
    writer = Writer.create(tmp_path / "journal")
    durability = _durability.Durability(tmp_path)
    durability.sync([writer.directory])
    while len(segments(writer.directory)) < 4:
        writer.append(b"x" * 10_000)
    synced.clear()
    durability.sync([writer.directory])
    assert {f"{number:06d}.seg" for number in segments(writer.directory)} <= synced
    synced.clear()
    durability.sync([writer.directory])
    assert {name for name in synced if name.endswith(".seg")} == {"000004.seg"}
    writer.close()


@pytest.mark.usefixtures("each_kind_of_store")
def test_a_slow_store_delays_no_sync(spool: Path) -> None:
    """Journals are synced while the store keeps the worker waiting."""
    synced = threading.Event()
    store = MemoryStore()
    waits: list[bool] = []
    worker = Worker(spool, store.open)
    before = _durability._sync

    def slow(method: str, *_: Any) -> None:
        if method == "create_run":
            synced.clear()
            waits.append(synced.wait(20))

    store.before = slow
    with stage("s"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(_durability, "_sync", lambda path: (before(path), synced.set()))
        worker.round()
        worker.close()
    assert waits == [True]


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
@pytest.mark.parametrize("kind", [kind for kind in DELETIONS if kind != "a copy instead of it"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_deleted_journal_leaves_every_run_once(spool: Path, kind: str, restarted: bool) -> None:
    """A journal is deleted in the middle of delivery: resumed runs are there once, and end as they should."""
    store = MemoryStore()
    worker = Worker(spool, store.open)
    with experiment("e", run_name="outer") as outer:
        with stage("before"):
            pass
        with stage("inner") as inner:
            inner.log_metric("a", 1)
            worker.round()
            inner.log_metric("b", 1)
            assert outer.target.writer is not None
            DELETIONS[kind](outer.target.writer.directory)
            for _ in range(3):
                worker.round()
            if restarted:
                worker.close()
                worker = Worker(spool, store.open)
            outer.target.check()
            for _ in range(3):
                worker.round()
            inner.log_metric("c", 1)
            wait_until(lambda: [worker.round()] and store.named("inner").status == "RUNNING", "the run to be resumed")
        with stage("after"):
            pass
    for _ in range(3):
        worker.round()
    worker.close()
    _target.close_all()
    deliver_to(store, spool)
    assert {run.name: run.status for run in store.runs.values()} == dict.fromkeys(
        ("outer", "before", "inner", "after"), "FINISHED"
    )
    assert len(store.runs) == 4
    keys = {point[0] for point in store.named("inner").points}
    assert {"a", "c"} <= keys
    for name in ("outer", "inner"):
        assert "when the journal was deleted" in store.named(name).tags["trackdsl.lost_events"]
        assert "trackdsl.ended" not in store.named(name).tags
    parents = {run.name: run.tags.get("mlflow.parentRunId") for run in store.runs.values()}
    (outer_id,) = (run_id for run_id, run in store.runs.items() if run.name == "outer")
    assert parents == {"outer": None, "before": outer_id, "inner": outer_id, "after": outer_id}


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
def test_a_run_whose_end_was_in_a_deleted_journal_is_ended(spool: Path) -> None:
    """A run that ended before its program noticed the deletion does not stay RUNNING for ever."""
    store = MemoryStore()
    worker = Worker(spool, store.open)
    with stage("outer") as outer:
        with stage("lost"):
            worker.round()
            assert outer.target.writer is not None
            journal = outer.target.writer.directory
            journal.rename(journal.with_name(f".{journal.name}"))
            worker.close()
            worker = Worker(spool, store.open)
            shutil.rmtree(journal.with_name(f".{journal.name}"))
        outer.target.check()
        worker.round()
    worker.round()
    worker.close()
    assert store.named("outer").status == "FINISHED"


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
@pytest.mark.parametrize("last", ["inner", "outer"])
@pytest.mark.parametrize("what", ["spool", "journal"])
def test_a_run_that_nobody_else_remembers_is_ended(spool: Path, last: str, what: str) -> None:
    """Runs that end after their journal or the whole spool was deleted, and before that is noticed, are ended."""
    store = MemoryStore()
    worker = Worker(spool, store.open)
    with experiment("e", run_name="outer") as outer:
        with stage("inner"):
            worker.round()
            assert {run.status for run in store.runs.values()} == {"RUNNING"}
            assert outer.target.writer is not None
            shutil.rmtree(spool if what == "spool" else outer.target.writer.directory)
            worker.close()
        if last == "inner":
            outer.target.check()
    _target.check_all()
    _target.close_all()
    deliver_to(store, spool)
    assert {run.name: run.status for run in store.runs.values()} == {"outer": "FINISHED", "inner": "FINISHED"}
    assert len(store.runs) == 2
    assert "when the journal was deleted" in store.named("inner").tags["trackdsl.lost_events"]
    (outer_id,) = (run_id for run_id, held in store.runs.items() if held.name == "outer")
    assert store.named("inner").tags["mlflow.parentRunId"] == outer_id
    assert "trackdsl.ended" not in store.named("inner").tags


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
def test_runs_that_were_delivered_do_not_come_back(spool: Path) -> None:
    """Where the spool is deleted after all was seen to be in it, no new one is made for runs that had ended."""
    store = MemoryStore()
    with stage("s") as run:
        pass
    deliver_to(store, spool)
    run.target.check()
    shutil.rmtree(spool)
    _target.check_all()
    assert not spool.exists()
    assert store.named("s").status == "FINISHED"


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
def test_what_was_delivered_and_removed_is_no_gap_without_the_note(
    spool: Path, change_limits: ChangeLimits, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the note of how far delivery has come is lost, the segments that it removed do not count as missing."""
    change_limits(first_segment=4096, largest_segment=4096)
    store = MemoryStore()
    with stage("s") as run:
        for step in range(3000):
            run.log_metric("m", 1, step=step)
        worker = Worker(spool, store.open)
        for _ in range(3):
            worker.round()
        worker.close()
        (journal,) = journals(spool)
        assert segments(journal)[0] > 1
        (journal / "progress").write_bytes(bytes(_format.PROGRESS_SIZE))
        run.log_metric("m", 1, step=3000)
    _target.close_all()
    deliver_to(store, spool)
    held = store.named("s")
    assert (len(held.points), held.status) == (3001, "FINISHED")
    assert not any("missing" in tag for tag in held.tags)
    assert "is missing" not in caplog.text


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
def test_a_gap_is_reported_once_whenever_delivery_dies(spool: Path, change_limits: ChangeLimits) -> None:
    """A missing segment is counted once and tagged on the run, at whatever call to the store delivery is killed."""
    change_limits(first_segment=4096, largest_segment=4096)
    for call in range(1, 12):
        with stage("s") as run:
            for step in range(400):
                run.log_metric("m", 1, step=step)
        _target.close_all()
        (journal,) = journals(spool)
        (journal / "000003.seg").unlink()
        store = MemoryStore({call: (Crash, call % 2 == 0)})
        with contextlib.suppress(Crash):
            deliver_to(store, spool)
        deliver_to(store, spool)
        held = store.named("s")
        assert (held.tags["trackdsl.missing_segments"], held.status) == ("segment 3", "FINISHED")
        assert 0 < len(held.points) < 400
        assert _losses.read(spool)[journal.name].missing == ("segment 3",)
