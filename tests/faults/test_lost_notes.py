"""What delivery has noted is lost, cut or doubtful: the store still gets everything once, and says how runs ended."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import StartProgram
from tests.delivery_settings import ChangeLimits
from tests.memory_store import Crash, MemoryStore, deliver_to
from trackdsl import stage
from trackdsl._core import events
from trackdsl.delivery.batches._compose import Pending
from trackdsl.delivery.journals import _stretch_size
from trackdsl.delivery.process import _durability
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.program import _client
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.journal import _files, _origin, _target
from trackdsl.journal._format import PROGRESS_SIZE
from trackdsl.journal._reader import Reader
from trackdsl.journal._spool import journals
from trackdsl.journal._writer import Writer
from trackdsl.store_format import losses
from trackdsl.store_format.ledger import NAME, RUN, changes_in, frame, latest, read
from trackdsl.store_format.limits import fit_key
from trackdsl.store_format.progress import ProgressFile

ID = b"r" * 16


@pytest.fixture(autouse=True)
def no_pauses(no_pauses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere; besides, git never answers by itself."""
    monkeypatch.setattr(_origin, "ask_git", lambda directory: None)


def points(store: MemoryStore, name: str) -> list[tuple[str, float, int]]:
    return sorted((key, float(value), step) for key, value, _, step in store.named(name).points)


@pytest.mark.usefixtures("each_kind_of_store")
def test_progress_that_is_zeroed(spool: Path) -> None:
    """Where the note of progress is lost while runs exist, they are found again, not created twice."""
    store = MemoryStore()
    with stage("s", p=1) as run:
        for step in range(3):
            run.log_metric("m", 0.5, step=step)
        worker = Worker(spool, store.open)
        worker.round()
        worker.close()
        (journal,) = journals(spool)
        (journal / "progress").write_bytes(bytes(PROGRESS_SIZE))
        # Another one of this journal.
        (journal / NAME).write_bytes(frame([RUN.change(bytes(16), ("r0", "0", "o", True))]))
    _target.close_all()
    store.runs["r0"] = type(store.named("s"))("e-Default", "other", {})
    deliver_to(store, spool)
    assert store.named("s").status == "FINISHED"
    assert points(store, "s") == [("m", 0.5, step) for step in range(3)]


@pytest.mark.usefixtures("each_kind_of_store")
def test_the_note_of_an_end_that_is_lost(spool: Path) -> None:
    """A run that has ended well stays FINISHED where only the note of its end is gone."""
    store = MemoryStore()
    with stage("around"):
        with stage("s"):
            pass
        worker = Worker(spool, store.open)
        worker.round()
        worker.close()
        assert store.named("s").status == "FINISHED"
        (journal,) = journals(spool)
        runs = latest(changes_in(read(journal / NAME)), RUN)
        assert {run[-1] for run in runs.values()} == {True, False}
        (journal / NAME).write_bytes(frame(RUN.change(id_, (*run[:-1], True)) for id_, run in runs.items()))
    _target.close_all()
    deliver_to(store, spool)
    assert {run.name: run.status for run in store.runs.values()} == {"around": "FINISHED", "s": "FINISHED"}
    assert not any("trackdsl.ended" in run.tags for run in store.runs.values())


def damage(path: Path, where: float) -> None:
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 0xFF
    path.write_bytes(content)


def hold_runs(store: MemoryStore, spool: Path, count: int = 3) -> Path:
    """Deliver one run, hold back others whose experiment is deleted, and restore it; returns the journal."""
    with stage("well") as well:
        well.log_metric("m", 0.5, step=0)
        well.log_text("text", "a.txt")
        worker = Worker(spool, store.open)
        worker.round()
        store.deleted.add("e-Default")
        for number in range(count):
            with stage(f"held {number}") as run:
                run.log_metric("m", 0.5, step=number)
            worker.round()
        worker.round()
        worker.close()
    _target.close_all()
    store.deleted.clear()
    (journal,) = journals(spool)
    return journal


@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("where", [0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.99])
def test_a_ledger_that_is_damaged(spool: Path, where: float) -> None:
    """Wherever one byte is wrong, everything is there once in the end, also what was held back, and nothing is lost."""
    store = MemoryStore()
    journal = hold_runs(store, spool)
    damage(journal / NAME, where)
    deliver_to(store, spool)
    assert sorted(run.name for run in store.runs.values()) == ["held 0", "held 1", "held 2", "well"]
    assert {run.status for run in store.runs.values()} == {"FINISHED"}
    assert [points(store, f"held {number}") for number in range(3)] == [[("m", 0.5, number)] for number in range(3)]
    assert points(store, "well") == [("m", 0.5, 0)]
    assert losses.read(spool) == {}


def test_a_damaged_ledger_of_a_long_journal(spool: Path, change_limits: ChangeLimits) -> None:
    """Where a part of the journal is delivered and gone, what the damage cost is reported, and the rest is there."""
    change_limits(first_segment=2048, largest_segment=2048)
    store = MemoryStore()
    journal = hold_runs(store, spool, 30)
    assert not (journal / "000001.seg").exists()
    damage(journal / NAME, 0.5)
    deliver_to(store, spool)
    assert [found.damaged for found in losses.read(spool).values()] == [1]
    assert len({run.name for run in store.runs.values()}) == len(store.runs) >= 29


@pytest.mark.usefixtures("each_kind_of_store")
def test_one_refused_item_of_a_stretch(spool: Path) -> None:
    """If a stretch is refused because of one tag, only this tag is left out, and another tag names it."""
    store = MemoryStore()

    def refuse(method: str, *arguments: Any) -> None:
        if method == "write" and "bad" in arguments[1].tags:
            raise Refused("not this one")

    store.before = refuse
    with stage("first") as first:
        first.log_metric("m", 1.0, step=1)
        with stage("second") as second:
            second.log_metric("m", 2.0, step=2)
            second.set_tags({"bad": "x", "good": "y"})
            second.log_metric("n", 3.0, step=3)
    _target.close_all()
    deliver_to(store, spool)
    assert points(store, "first") == [("m", 1.0, 1)]
    assert points(store, "second") == [("m", 2.0, 2), ("n", 3.0, 3)]
    tags = store.named("second").tags
    assert (tags["good"], tags["trackdsl.refused.bad"], "bad" in tags) == ("y", "not this one", False)
    assert "trackdsl.refused.bad" not in store.named("first").tags
    assert {run.status for run in store.runs.values()} == {"FINISHED"}


@pytest.mark.usefixtures("each_kind_of_store")
def test_quickly_collected_points_of_a_blocked_run(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points that were collected before their run was blocked are there, once, when it can be written again."""
    store = MemoryStore()
    apart: list[int] = []
    take_apart = _stretch_size.StretchSize.take_apart

    def note(size: _stretch_size.StretchSize, entries: list[Any]) -> None:
        apart.append(len(entries))
        take_apart(size, entries)

    monkeypatch.setattr(_stretch_size.StretchSize, "take_apart", note)

    def refuse(method: str, *arguments: Any) -> None:
        if method == "write_input":
            raise Unavailable("a broken request", answered=True)

    with stage("fine") as fine, stage("s") as run:
        worker = Worker(spool, store.open)
        worker.round()
        store.before = refuse
        for step in range(5):
            run.log_metric("m", 0.5, step=step)
            fine.log_metric("m", 0.5, step=step)
        run.log_input([1, 2], name="d")
        run.log_metric("m", 0.5, step=9)
        for _ in range(12):
            worker.round()
        assert points(store, "fine") == [("m", 0.5, step) for step in range(5)]
        assert bool(apart) == store.collects
        store.before = lambda *_: None
    worker.close()
    _target.close_all()
    deliver_to(store, spool)
    assert points(store, "s") == [("m", 0.5, step) for step in (*range(5), 9)]
    assert {run.status for run in store.runs.values()} == {"FINISHED"}


def test_flush_while_a_file_is_deferred(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`flush` is not True while a file waits for its store."""
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setattr(_client, "_start_process", lambda spool: None)
    store = MemoryStore()

    def refuse(method: str, *_: Any) -> None:
        if method == "write_artifact":
            raise Unavailable("busy")

    store.before = refuse
    worker = Worker(spool, store.open)
    with stage("s") as run:
        run.log_text("x", "f.txt")
        for _ in range(3):
            worker.round()
        assert not trackdsl.flush(0.3)
        store.before = lambda *_: None
        for _ in range(3):
            worker.round()
        assert trackdsl.flush(5)
    worker.close()


def metric(number: int) -> bytes:
    return events.encode(events.Metric(ID, "m", 0.5, number, 1))


def steps(reader: Reader, *, alive: bool = True, limit: int = 1 << 30) -> list[int | None]:
    return [getattr(entry.event, "step", None) for entry in reader.read(limit, writer_alive=alive)]


def test_a_write_in_progress(tmp_path: Path) -> None:
    """A half-written event of a living program is read once it is whole, after the reader has met its first half."""
    writer = Writer.create(tmp_path / "j")
    for number in range(3):
        writer.append(metric(number))
    _, start = writer.position()
    writer.append(metric(3))
    _, end = writer.position()
    with open(writer.directory / "000001.seg", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        whole = view[start:end]
        view[start + 20 : end] = bytes(end - start - 20)
        reader = Reader(writer.directory)
        assert steps(reader) == [0, 1, 2]
        assert steps(reader) == []
        view[start:end] = whole
        assert steps(reader) == [3]
        writer.append(metric(4))
        assert steps(reader) == [4]
    reader.close()
    writer.close()


def test_more_events_than_are_decoded_at_once(tmp_path: Path, change_limits: ChangeLimits) -> None:
    """12,000 events in many segments are read in order, each once, whatever the limit, but for a damaged one."""
    change_limits(first_segment=65536, largest_segment=131072)
    writer = Writer.create(tmp_path / "j")
    for number in range(12_000):
        writer.append(metric(number))
    reader = Reader(writer.directory)
    assert steps(reader) == list(range(12_000))
    reader.close()
    path = writer.directory / "000002.seg"
    content = bytearray(path.read_bytes())
    damaged = next(payload for payload in map(metric, range(2000, 12_000)) if payload in content)
    # Another value of a point: only the checksum distinguishes it from a good one.
    content[content.index(damaged) + damaged.index(b"\xcb") + 8] ^= 1
    path.write_bytes(content)
    for limit in (1, 4999, 5000, 5001):
        reader = Reader(writer.directory)
        found: list[int | None] = []
        while part := steps(reader, limit=max(limit, 700)):
            assert len(part) <= max(limit, 700)
            found += part
        assert found.count(None) == 1
        assert len(found) == 12_000
        assert [number for number in found if number is not None] == sorted({*found} - {None})  # type: ignore[type-var]
        reader.close()
    writer.close()


def test_what_is_brought_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush of a journal calls `fsync` for its events and notes, a replaced file for itself, progress on request."""
    synced: list[str] = []
    real = os.fsync

    def count(descriptor: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", count)
    writer = Writer.create(tmp_path / "j")
    writer.append(metric(1))
    (writer.directory / NAME).write_text("")
    synced.clear()
    _durability.Durability(tmp_path).sync([writer.directory])
    assert {"000001.seg", "progress", NAME} <= set(synced)
    synced.clear()
    _files.replace(tmp_path / "note", b"x", to_disk=True)
    assert any(name.startswith("note") for name in synced)
    flushed: list[bool] = []
    file = ProgressFile(writer.directory, write=True)

    class Mapped:
        def flush(self) -> None:
            flushed.append(True)

        def close(self) -> None:
            pass

    file._open = Mapped()  # type: ignore[assignment]
    file.to_disk()
    assert flushed == [True]
    writer.close()


def test_the_limits_of_mlflow() -> None:
    """6,000 characters of a parameter, 8,000 of a tag and 250 of a key are whole; one more is cut."""
    for length, whole in ((6000, True), (6001, False)):
        pending = Pending()
        pending.add_param("p", "x" * length)
        together = Pending()
        together.add_params({"p": "x" * length})
        assert together == pending
        assert (pending.batch.params["p"] == "x" * length, len(pending.batch.params["p"]) <= 6000) == (whole, True)
        assert bool(pending.texts) != whole
    for length, whole in ((8000, True), (8001, False)):
        pending = Pending()
        pending.add_tag("t", "x" * length)
        assert (pending.batch.tags["t"] == "x" * length, len(pending.batch.tags["t"]) <= 8000) == (whole, True)
        assert bool(pending.texts) != whole
    for length, whole in ((250, True), (251, False)):
        assert (fit_key("k" * length) == "k" * length) == whole
        assert len(fit_key("k" * length)) == 250


@pytest.mark.slow
@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("call", range(1, 9))
def test_killed_just_after_a_call(spool: Path, call: int) -> None:
    """Where delivery dies just after the store has created a run, the next one finds it by our id."""
    with stage("around"), stage("s"):
        pass
    _target.close_all()
    store = MemoryStore({call: (Crash, True)})
    with contextlib.suppress(Crash):
        deliver_to(store, spool)
    deliver_to(store, spool)
    assert sorted((run.name, run.status) for run in store.runs.values()) == [("around", "FINISHED"), ("s", "FINISHED")]


@pytest.mark.usefixtures("each_kind_of_store")
def test_lost_events_of_a_run_that_ends(spool: Path) -> None:
    """A run that ends well says how many of its events could not be recorded."""
    store = MemoryStore()
    with stage("s") as run:
        assert run.target.writer is not None
        run.target.writer._lose(run, None)
    _target.close_all()
    deliver_to(store, spool)
    assert (store.named("s").status, store.named("s").tags["trackdsl.lost_events"]) == ("FINISHED", "1")


@pytest.mark.usefixtures("each_kind_of_store")
def test_lost_events_of_a_program_that_is_killed(spool: Path, start: StartProgram) -> None:
    """A program that could not record some events, and gets SIGKILL, has their number on the run that it left open."""
    program = start(
        """
        import os, signal, trackdsl
        with trackdsl.stage("s") as run:
            run.log_metric("m", 1.0)
            for _ in range(3):
                run.target.writer._lose(run, None)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert program.finish()[0] == -signal.SIGKILL
    store = MemoryStore()
    deliver_to(store, spool)
    held = store.named("s")
    assert (held.status, held.tags["trackdsl.lost_events"]) == ("KILLED", "3 of the whole process")
    assert held.tags["trackdsl.ended"] == "the process died before this run ended"
    assert points(store, "s") == [("m", 1.0, 0)]
