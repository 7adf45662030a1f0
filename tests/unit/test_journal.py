"""The journal: what was appended is read back, by any number of threads, whatever happens to the program."""

from __future__ import annotations

import errno
import itertools
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import wait_until
from tests.delivery_settings import ChangeLimits
from tests.written_journals import any_event, in_segments, read_with_gaps, segment, written
from trackdsl import stage
from trackdsl._core import events
from trackdsl.journal import _delivery_hooks, _origin, _spare_segments, _store_target, _target
from trackdsl.journal._lock import is_held
from trackdsl.journal._reader import Reader, read_all
from trackdsl.journal._replay import RecordedRun
from trackdsl.journal._segments import missing_segments, segments
from trackdsl.journal._spool import journals, prepare
from trackdsl.journal._store_target import Target
from trackdsl.journal._writer import Writer
from trackdsl.testing import capture_runs


@given(found=st.lists(any_event, max_size=20))
def test_round_trip(found: list[Any]) -> None:
    """Every event is read back as it was appended, in order."""
    with tempfile.TemporaryDirectory() as name:
        assert read_all(written(found, Path(name) / "j")) == found


def test_what_delivery_removed_is_not_missing(folder: Path, change_limits: ChangeLimits) -> None:
    """Segments before the position are delivered and gone, which is not a gap."""
    writer = in_segments(folder / "j", change_limits)
    reader = Reader(folder / "j")
    for entry in reader.read(300, writer_alive=True):
        assert not entry.missing
    for number in segments(folder / "j"):
        if number < reader.position.segment:
            segment(folder / "j", number).unlink()
    assert missing_segments(folder / "j", reader.position) == []
    writer.close()
    steps, missing = read_with_gaps(folder / "j", reader.position)
    assert (steps, missing) == (list(range(300, 600)), [])


def test_a_program_that_dies_in_a_change_of_segment_misses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change_limits: ChangeLimits
) -> None:
    """Killed after one segment is closed and before the next one has its name, a journal is whole."""
    writer = in_segments(folder / "j", change_limits)
    last = segments(folder / "j")[-1]

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "rename", die)
        for n in range(600, 900):
            writer.append(events.encode(events.Metric(b"a" * 16, "m", 0.0, n, 0)))
    assert segments(folder / "j")[-1] == last
    steps, missing = read_with_gaps(folder / "j")
    assert missing == []
    assert steps == list(range(len(steps)))
    assert len(steps) > 600


def test_segments_follow_each_other(folder: Path, change_limits: ChangeLimits) -> None:
    """A journal of many segments is read in order, also while it grows, and from any position on."""
    change_limits(first_segment=4096, largest_segment=8192)
    writer = Writer.create(folder / "j")
    reader = Reader(folder / "j")
    seen = []
    for n in range(3000):
        writer.append(events.encode(events.Metric(b"a" * 16, "m", float(n), n, n)))
        if n % 7 == 0:
            seen += [entry.event.step for entry in reader.read(10_000, writer_alive=True)]  # type: ignore[union-attr]
    assert is_held(folder / "j" / "lock")
    middle = reader.position
    writer.append(events.encode(events.Metric(b"a" * 16, "x" * 50_000, 0.0, 3000, 0)))
    writer.close()
    assert not is_held(folder / "j" / "lock")
    seen += [entry.event.step for entry in reader.read(10_000, writer_alive=False)]  # type: ignore[union-attr]
    assert seen == list(range(3001))
    assert len(segments(folder / "j")) > 10
    again = [e.event.step for e in Reader(folder / "j", middle).read(10_000, writer_alive=False)]  # type: ignore[union-attr]
    assert again == list(range(2997, 3001))


def test_threads_lose_and_tear_nothing(folder: Path, change_limits: ChangeLimits) -> None:
    """Eight threads over many changes of segment: every event is there once, each thread's in its order."""
    change_limits(first_segment=4096, largest_segment=4096)
    writer = Writer.create(folder / "j")

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def write(thread: int) -> None:
        for n in range(2000):
            writer.append(events.encode(events.Metric(bytes([thread]) * 16, "m", 0.0, n, 0)))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(before)
    writer.close()
    found = read_all(folder / "j")
    for n in range(8):
        assert [e.step for e in found if e.run == bytes([n]) * 16] == list(range(2000))  # type: ignore[union-attr]


def test_threads_that_fill_a_new_segment_at_once(
    folder: Path, change_limits: ChangeLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event that a segment was begun for is in it, although other threads fill it as soon as they see it."""
    change_limits(first_segment=4096, largest_segment=4096)
    switch = Writer._switch

    def filled(writer: Writer, *arguments: Any) -> None:
        switch(writer, *arguments)
        if writer._number > 1:
            writer._map.seek(0, os.SEEK_END)

    monkeypatch.setattr(Writer, "_switch", filled)
    writer = Writer.create(folder / "j")
    for number in range(100):
        writer.append(events.encode(events.Metric(b"r" * 16, "m" * 200, 0.5, number, 1)))
    writer.close()
    assert writer.lost == 0
    assert [event.step for event in read_all(folder / "j")] == list(range(100))


def test_a_signal_handler_may_record_at_any_moment(folder: Path, change_limits: ChangeLimits) -> None:
    """A handler that records, run thousands of times in the middle of appends and changes of segment, loses nothing."""
    change_limits(first_segment=4096, largest_segment=4096)
    writer = Writer.create(folder / "j")
    numbers = itertools.count()
    handled: list[int] = []
    depth, over = 0, False

    def ring() -> None:
        if not over and depth < 5:  # A machine that stalls would nest handlers without end.
            signal.setitimer(signal.ITIMER_REAL, 0.0001)

    def handler(_number: int, _frame: object) -> None:
        nonlocal depth
        number = next(numbers)
        depth += 1
        ring()
        writer.append(events.encode(events.Metric(b"h" * 16, "m", 0.0, number, 0)))
        handled.append(number)
        depth -= 1
        ring()

    before = signal.signal(signal.SIGALRM, handler)
    ring()
    try:
        written_ = 0
        while len(handled) < 2000:
            writer.append(events.encode(events.Metric(b"m" * 16, "m", 0.0, written_, 0)))
            written_ += 1
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    writer.close()
    found = read_all(folder / "j")
    assert sorted(e.step for e in found if e.run == b"h" * 16) == sorted(handled)  # type: ignore[union-attr]
    assert [e.step for e in found if e.run == b"m" * 16] == list(range(written_))  # type: ignore[union-attr]


operations = st.lists(
    st.tuples(st.sampled_from(["open", "close", "metric", "param", "tag"]), st.integers(0, 3)), max_size=40
)


@given(operations=operations)
def test_any_interleaving_replays_to_the_same_tree(operations: list[tuple[str, int]]) -> None:
    """Four threads of control open, log and close in any order: the replayed tree is the one that was built."""
    import contextvars

    contexts = [contextvars.copy_context() for _ in range(4)]
    stacks: list[list[Any]] = [[] for _ in range(4)]
    model: list[dict[str, Any]] = []

    def perform(index: int, who: int, what: str) -> None:
        stack = stacks[who]
        if what == "open":
            block = stage(f"run-{index}")
            run = block.__enter__()
            parent = stack[-1][1]["id"] if stack else None
            entry = {"id": run.id, "parent": parent, "metrics": [], "params": {}, "tags": {}, "status": "RUNNING"}
            model.append(entry)
            stack.append((block, entry, run))
        elif stack:
            block, entry, run = stack[-1]
            if what == "metric":
                run.log_metric("m", index)
                entry["metrics"].append(index)
            elif what == "param":
                run.log_param(f"p{index}", index)
                entry["params"][f"p{index}"] = index
            elif what == "tag":
                run.set_tag("t", index)
                entry["tags"]["t"] = str(index)
            else:
                block.__exit__(None, None, None)
                entry["status"] = "FINISHED"
                stack.pop()

    with capture_runs() as captured:
        for index, (what, who) in enumerate(operations):
            contexts[who].run(perform, index, who, what)
    assert [_content(run) for run in captured.runs] == model


def _content(run: RecordedRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "parent": run.parent.id if run.parent is not None else None,
        "metrics": [point.value for point in run.metrics.get("m", [])],
        "params": run.params,
        "tags": run.tags,
        "status": run.status,
    }


def test_a_moment_without_descriptors_costs_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While no file can be opened at all, the segment that was opened ahead takes the events."""
    writer = Writer.create(folder / "j")

    def none_free(*_: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(_spare_segments, "allocate", none_free)
        while len(segments(folder / "j")) < 2:
            writer.append(b"x" * 10_000)
        writer.append(b"y" * 10_000)
    assert writer.lost == 0
    writer.prepare()  # As a program does every second.
    while len(segments(folder / "j")) < 4:
        writer.append(b"x" * 10_000)
    assert writer.lost == 0
    writer.close()


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "fs.file-max"),
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
        (errno.EACCES, "permission"),
        (errno.EROFS, "permission"),
        (errno.EIO, "TRACKDSL_SPOOL"),
    ],
)
def test_the_advice_fits_the_error(
    number: int, advice: str, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning's advice depends on what went wrong: to free space only where space is missing."""
    writer = Writer.create(folder / "j")

    def fail(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_spare_segments, "allocate", fail)
    while not writer.lost:
        writer.append(b"x" * 10_000)
    (record,) = caplog.records
    assert advice in record.message
    assert ("Free some space" in record.message) == (number in (errno.ENOSPC, errno.EDQUOT))
    writer.close()


def test_a_journal_is_born_locked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that lists the spool while a journal is made sees none, or one whose lock is held."""
    (folder / "journals").mkdir()
    seen: list[bool] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.extend(is_held(directory / "lock") for directory in journals(folder))

    watcher = threading.Thread(target=look)
    watcher.start()
    writers = [Writer.create(folder / "journals" / f"{n:03d}") for n in range(40)]
    wait_until(lambda: len(seen) > 100, "the watcher to look")
    stop.set()
    watcher.join()
    assert all(seen)
    for writer in writers:
        writer.close()


def test_a_target_starts_the_delivery_that_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target delivers through the registered functions for its spool, and only records if there are none."""
    monkeypatch.setattr(_delivery_hooks, "_delivery", _delivery_hooks.Delivery())
    monkeypatch.setattr(_origin, "ask_git", lambda directory: None)
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    started: list[Path] = []
    with tempfile.TemporaryDirectory() as folder:
        spool = Path(folder, "spool")
        prepare(spool)
        target = Target("sqlite:////nowhere/mlflow.db", "/", spool=spool)
        target.append(b"first")
        assert started == []
        _delivery_hooks.deliver_with(start=started.append, wait=lambda writers: None)
        target.watch(time.time_ns())
        assert started == [spool]
        target.close()


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_a_pickled_target_is_that_of_the_process_that_reads_it(dumps: Callable[[Any], bytes]) -> None:
    """A pickled target has no journal: the process that reads it uses its own target for the same URI and folder."""
    for target in (_target.target_for("sqlite:////nowhere/mlflow.db", "/"), _store_target.NOWHERE):
        assert pickle.loads(dumps(target)) is target


def test_targets_are_by_uri_and_reset_by_forks() -> None:
    """A target that is reset, as in a forked child, forgets its writer and starts another."""
    with tempfile.TemporaryDirectory() as name:
        spool = Path(name)
        (spool / "journals").mkdir()
        target = Target("x", "/", spool=spool, deliver=False)
        target.append(events.encode(events.Params(b"a" * 16, {})))
        first = target.writer
        target.reset_after_fork()
        target.append(events.encode(events.Params(b"a" * 16, {})))
        assert target.writer is not first
        assert len(list(journals(spool))) == 2
        target.close()
