"""The journal: what was appended is read back, whatever happens to the file or the program."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ChangeLimits, examples, wait_until
from trackdsl import stage
from trackdsl._core import events
from trackdsl.journal import _delivery_hooks, _format, _origin, _reader, _spare_segments, _store_target, _target
from trackdsl.journal._lock import is_held
from trackdsl.journal._reader import Reader, read_all
from trackdsl.journal._replay import RecordedRun, replay
from trackdsl.journal._segments import START, Position, missing_segments, segments
from trackdsl.journal._spool import journals, prepare
from trackdsl.journal._store_target import Target
from trackdsl.journal._writer import Writer
from trackdsl.testing import capture_runs

GOLDEN = Path(__file__).parents[1] / "golden"

ids = st.binary(min_size=16, max_size=16)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
texts = st.text(max_size=30)
times = st.integers(0, 2**62)
numbers = st.integers(0, 99)
mappings = st.dictionaries(texts, texts, max_size=3)
any_event = st.one_of(
    st.builds(
        events.Open,
        ids, st.none() | ids, st.none() | texts, texts, texts, texts, st.integers(0, 99), times,
        st.dictionaries(texts, scalars, max_size=4), mappings, st.none() | st.tuples(texts, texts, texts),
        st.none() | st.builds(events.Rank, texts, numbers, numbers, st.none() | numbers, texts, texts, numbers, texts),
        texts,
    ),
    st.builds(events.Params, ids, st.dictionaries(texts, scalars, max_size=4)),
    st.builds(events.Metric, ids, texts, st.floats(allow_nan=False), st.integers(-(2**63), 2**63 - 1), times),
    st.builds(
        events.Metrics, ids, st.dictionaries(texts, st.floats(allow_nan=False), max_size=4), st.integers(0, 9), times
    ),
    st.builds(events.Tags, ids, mappings),
    st.builds(events.File, ids, texts, texts, st.booleans(), texts, texts, st.booleans()),
    st.builds(events.Input, ids, texts, texts, texts, texts, texts, texts, st.none() | texts),
    st.builds(events.Model, ids, texts, texts, st.none() | texts, st.integers(0, 9), times, texts, texts),
    st.builds(events.Table, ids, texts, texts),
    st.builds(
        events.Close, ids, texts, times, st.none() | st.builds(events.Failure, texts, texts, texts), st.integers(0, 9)
    ),
    st.builds(events.Adopt, ids, texts, texts),
    st.builds(
        events.LinkedMetrics, ids, st.dictionaries(texts, st.floats(allow_nan=False), max_size=4), numbers, times,
        texts, st.none() | st.tuples(texts, texts),
    ),
    st.builds(events.ModelInput, ids, texts, times),
    st.builds(events.ModelOutput, ids, texts, numbers),
)  # fmt: skip


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def written(found: list[Any], directory: Path) -> Path:
    """A journal with these events, whose writer has died."""
    shutil.rmtree(directory, ignore_errors=True)
    writer = Writer.create(directory)
    for event in found:
        writer.append(events.encode(event))
    writer.close()
    return directory


@given(found=st.lists(any_event, max_size=20))
def test_round_trip(found: list[Any]) -> None:
    """Every event is read back as it was appended, in order."""
    with tempfile.TemporaryDirectory() as name:
        assert read_all(written(found, Path(name) / "j")) == found


@settings(max_examples=examples(60), deadline=None)
@given(found=st.lists(any_event, min_size=1, max_size=12), data=st.data())
def test_any_truncation_recovers_a_prefix(found: list[Any], data: st.DataObject) -> None:
    """Cut anywhere, a journal gives exactly the events that are complete before the cut."""
    with tempfile.TemporaryDirectory() as name:
        directory = written(found, Path(name) / "j")
        path = directory / "000001.seg"
        ends = ends_of(directory)
        cut = data.draw(st.integers(0, ends[-1] + 40))
        os.truncate(path, cut)
        whole = sum(1 for end in ends if end <= cut) if cut >= _format.HEADER_SIZE else 0
        assert read_all(directory) == found[:whole]


@settings(max_examples=examples(150), deadline=None)
@given(found=st.lists(any_event, min_size=1, max_size=12), data=st.data())
def test_any_flipped_byte_costs_one_record_at_most(found: list[Any], data: st.DataObject) -> None:
    """A flipped byte costs one record at most: that one is skipped and counted, all others are read."""
    with tempfile.TemporaryDirectory() as name:
        directory = written(found, Path(name) / "j")
        path = directory / "000001.seg"
        ends = ends_of(directory)
        at = data.draw(st.integers(_format.HEADER_SIZE, ends[-1] - 1))
        content = bytearray(path.read_bytes())
        content[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        hit = next(index for index, end in enumerate(ends) if at < end)
        reader = Reader(directory)
        entries = list(reader.read(10_000, writer_alive=False))
        reader.close()
        assert [e.event for e in entries if e.event is not None] == found[:hit] + found[hit + 1 :]
        assert sum(e.event is None for e in entries) == 1


@pytest.mark.parametrize("zeroed", [_format.FRAME.size, 200])
def test_zeros_between_events_are_counted(zeroed: int, folder: Path) -> None:
    """Zeros before the last events of a dead program's journal count as damage, and the events are read."""
    writer = Writer.create(folder / "j")
    ends = []
    for number in range(20):
        writer.append(events.encode(events.Metric(b"r" * 16, "m", 0.5, number, 1)))
        ends.append(writer.position()[1])
    writer.close()
    with open(folder / "j" / "000001.seg", "r+b") as file:
        file.seek(ends[4])
        file.write(bytes(zeroed))
    reader = Reader(folder / "j")
    found = [getattr(entry.event, "step", None) for entry in reader.read(99, writer_alive=False)]
    reader.close()
    first = next(number for number in range(5, 20) if ends[number - 1] >= ends[4] + zeroed)
    assert found == [*range(5), None, *range(first, 20)]


def test_an_event_that_is_written_while_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader meets half of an event, then the whole one: both are read, and nothing counts as damaged."""
    writer = Writer.create(folder / "j")
    ends = []
    for number in range(4):
        writer.append(events.encode(events.Metric(b"r" * 16, "m", 0.5, number, 1)))
        ends.append(writer.position()[1])
    with open(folder / "j" / "000001.seg", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        whole = view[ends[1] : ends[3]]
        view[ends[1] + 12 : ends[3]] = bytes(ends[3] - ends[1] - 12)
        search = _reader._next_frame

        def written_meanwhile(*arguments: Any) -> int | None:
            view[ends[1] : ends[3]] = whole
            return search(*arguments)

        monkeypatch.setattr(_reader, "_next_frame", written_meanwhile)
        reader = Reader(folder / "j")
        found = [entry.event for entry in reader.read(9, writer_alive=True)]
        reader.close()
    writer.close()
    assert [getattr(event, "step", None) for event in found] == [0, 1, 2, 3]


def test_a_damaged_header_is_counted_not_guessed(folder: Path) -> None:
    """Without its header a segment has no salt: nothing in it is read, and it is counted as damaged."""
    directory = written([events.Params(b"a" * 16, {"x": 1})], folder / "j")
    path = directory / "000001.seg"
    content = bytearray(path.read_bytes())
    content[3] ^= 255
    path.write_bytes(content)
    assert read_all(directory) == [events.Params(b"a" * 16, {"x": 1})]  # There is a second copy.
    content[64 + 3] ^= 255
    path.write_bytes(content)
    entries = list(Reader(directory).read(100, writer_alive=False))
    assert [entry.event for entry in entries] == [None]


def test_a_value_that_looks_like_a_record_is_never_taken_for_one(folder: Path) -> None:
    """A parameter that holds the bytes of a record of another journal stays a value, even when its own is damaged."""
    forged = _format.frame(events.encode(events.Params(b"f" * 16, {"forged": 1})), 0)
    tags = events.Tags(b"a" * 16, {"x": forged.decode("latin-1")})
    directory = written([tags, events.Params(b"b" * 16, {"y": 2})], folder / "j")
    path = directory / "000001.seg"
    content = bytearray(path.read_bytes())
    content[_format.HEADER_SIZE + 3] ^= 255
    path.write_bytes(content)
    assert read_all(directory) == [events.Params(b"b" * 16, {"y": 2})]


def in_segments(directory: Path, change_limits: ChangeLimits, count: int = 600) -> Writer:
    """A journal of several small segments, with one metric point after another, whose writer is alive."""
    change_limits(first_segment=4096, largest_segment=4096)
    writer = Writer.create(directory)
    for n in range(count):
        writer.append(events.encode(events.Metric(b"a" * 16, "m", 0.0, n, 0)))
    assert len(segments(directory)) > 5
    return writer


def read_with_gaps(directory: Path, position: Position = START) -> tuple[list[int], list[str]]:
    """The steps of the points that can be read, and what is missing, each once, however often reading restarts."""
    steps, missing = [], []
    while True:
        reader = Reader(directory, position)
        entries = list(reader.read(7, writer_alive=False))
        reader.close()
        if not entries:
            return steps, missing
        position = entries[-1].end
        steps += [entry.event.step for entry in entries if isinstance(entry.event, events.Metric)]
        missing += [entry.missing or "a record" for entry in entries if entry.event is None]


def segment(directory: Path, number: int) -> Path:
    return directory / f"{number:06d}.seg"


def steps_of(directory: Path, number: int) -> list[int]:
    """The steps that one segment holds."""
    reader = Reader(directory, Position(number, _format.HEADER_SIZE))
    found = [
        entry.event.step
        for entry in reader.read(10_000, writer_alive=False)
        if isinstance(entry.event, events.Metric) and entry.end.segment == number
    ]
    reader.close()
    return found


def cut_at_an_event(directory: Path, number: int) -> None:
    """Cut a segment exactly behind one of its events, where nothing looks torn."""
    reader = Reader(directory, Position(number, _format.HEADER_SIZE))
    ends = [entry.end.offset for entry in reader.read(5, writer_alive=False)]
    reader.close()
    os.truncate(segment(directory, number), ends[-1])


DAMAGE: dict[str, tuple[Callable[[Path], object], list[int], list[str]]] = {
    "the first": (lambda j: segment(j, 1).unlink(), [1], ["segment 1"]),
    "one in the middle": (lambda j: segment(j, 3).unlink(), [3], ["segment 3"]),
    "two in a row": (lambda j: [segment(j, n).unlink() for n in (3, 4)], [3, 4], ["segments 3 to 4"]),
    "two apart": (lambda j: [segment(j, n).unlink() for n in (2, 4)], [2, 4], ["segment 2", "segment 4"]),
    "the last": (lambda j: segment(j, segments(j)[-1]).unlink(), [-1], ["segment -1"]),
    "all": (lambda j: [segment(j, n).unlink() for n in segments(j)], [0], ["segment 1"]),
    "an emptied one": (lambda j: os.truncate(segment(j, 3), 0), [3], ["segment 3"]),
    "a header's worth": (lambda j: os.truncate(segment(j, 3), 50), [3], ["segment 3 (its header is damaged)"]),
    "a cut in the middle": (lambda j: os.truncate(segment(j, 3), 2000), [], ["the end of segment 3"]),
    "a cut at an event": (lambda j: cut_at_an_event(j, 3), [], ["the end of segment 3"]),
    "another's name": (
        lambda j: shutil.copy(segment(j, 4), segment(j, 3)), [3], ["segment 3 (its file holds segment 4)"],
    ),
    "a link": (
        lambda j: (segment(j, 3).unlink(), segment(j, 3).symlink_to(segment(j, 2))), [3], ["segment 3"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_missing_of_a_journal_is_reported(kind: str, folder: Path, change_limits: ChangeLimits) -> None:
    """Segments that are gone, emptied, cut or exchanged are reported, once, and everything else is read."""
    in_segments(folder / "j", change_limits).close()
    last = segments(folder / "j")[-1]
    damage, gone, expected = DAMAGE[kind]
    lost = {step for number in gone for step in steps_of(folder / "j", last if number < 0 else number)}
    if kind == "all":
        lost = set(range(600))
    damage(folder / "j")
    steps, missing = read_with_gaps(folder / "j")
    assert missing == [text.replace("-1", str(last)) for text in expected]
    if gone:
        assert steps == [step for step in range(600) if step not in lost]
    else:
        assert steps == sorted(set(steps))
        assert {*steps_of(folder / "j", 2), *steps_of(folder / "j", 4)} <= set(steps) < set(range(600))


def test_a_cut_last_segment_is_reported(folder: Path, change_limits: ChangeLimits) -> None:
    """If the last segment is cut behind an event, what may have followed counts as missing."""
    in_segments(folder / "j", change_limits).close()
    last = segments(folder / "j")[-1]
    cut_at_an_event(folder / "j", last)
    assert read_with_gaps(folder / "j")[1] == [f"the end of segment {last}"]


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


def ends_of(directory: Path) -> list[int]:
    reader = Reader(directory)
    ends = [entry.end.offset for entry in reader.read(10_000, writer_alive=False)]
    reader.close()
    return ends


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


def test_the_golden_journal_of_schema_1_is_read_for_ever() -> None:
    """A journal written by schema version 1, kept as a file, replays to what it was written from."""
    found = read_all(GOLDEN / "schema-1")
    root, child, adopted = replay((event, GOLDEN) for event in found)
    assert len(found) == 10
    assert (root.name, root.experiment, root.status, root.decorator) == ("pipeline", "golden", "FAILED", "experiment")
    assert root.params == {"none": None, "yes": True, "n": -3, "big": 2**63, "x": 0.25, "text": "grün"}
    assert (child.parent, child.path, child.status, child.lost) == (root, "pipeline/fit", "FINISHED", 2)
    assert [tuple(point) for point in child.metrics["loss"]] == [(0, 1.5, 11), (7, -2.0, 12)]
    assert child.metric("acc") == 1.0
    assert child.tags == {"team": "a"}
    assert child.artifacts == {"models/m.bin": GOLDEN / "files" / "000001/m.bin"}
    assert child.params == {"late": 1}
    assert root.failure == events.Failure("ValueError", "no", "Traceback …")
    assert adopted.decorator == "mlflow"


def test_the_golden_journal_of_schema_2_is_read_for_ever() -> None:
    """What schema version 2 added, datasets, models, tables and who wrote a file, replays too."""
    found = read_all(GOLDEN / "schema-2")
    (run,) = replay((event, GOLDEN) for event in found)
    assert len(found) == 6
    assert run.artifacts == {"clean.pkl": GOLDEN / "files" / "000001/clean.pkl"}
    assert run.models == {"classifier": GOLDEN / "files" / "000002/model"}
    assert run.tables == {"eval.json": [GOLDEN / "files" / "000003/eval.json"]}
    assert [(data.name, data.context) for data in run.inputs] == [("train", "training")]
    assert found[1:5] == SCHEMA_2


SCHEMA_2 = [
    events.File(b"r" * 16, "clean.pkl", "000001/clean.pkl", False, "object", "ab" * 32),
    events.Input(b"r" * 16, "train", "cd" * 16, "code", "{}", '{"mlflow_colspec": []}', '{"num_rows": 3}', "training"),
    events.Model(b"r" * 16, "classifier", "000002/model", "churn", 3, 12, "sklearn.base.BaseEstimator", "ef" * 32),
    events.Table(b"r" * 16, "eval.json", "000003/eval.json"),
]


def test_the_golden_journal_of_schema_3_is_read_for_ever() -> None:
    """What schema version 3 added is read as written: resumed runs, ranks, types of texts, points of models."""
    assert read_all(GOLDEN / "schema-3") == SCHEMA_3


_RUN = b"s" * 16
SCHEMA_3: list[events.Event] = [
    events.Open(
        _RUN, None, "golden", "rank-1", "experiment", "rank-1", 0, 21, {"lr": 0.1}, {}, None,
        events.Rank("pipeline", 1, 2, 1, "node-0", "torch abc", 2, "0123456789abcdef0123456789abcdef"),
    ),
    events.Open(b"t" * 16, None, "golden", "fit", "stage", "fit", 0, 22, {}, {}, None, None, "ab" * 16),
    events.File(_RUN, "table.csv", "000001/table.csv", False, "pandas.DataFrame", "", True),
    events.LinkedMetrics(_RUN, {"acc": 0.9}, 3, 23, "key:" + "cd" * 16, ("train", "ef" * 4)),
    events.ModelInput(_RUN, "m-0123", 24),
    events.ModelOutput(_RUN, "m-4567", 3),
    events.Close(_RUN, "FINISHED", 25),
]  # fmt: skip


def test_the_golden_journal_of_schema_4_is_read_for_ever() -> None:
    """What schema version 4 added, runs that become traces and the progress of loops, is read as written."""
    assert read_all(GOLDEN / "schema-4") == SCHEMA_4


SCHEMA_4: list[events.Event] = [
    *SCHEMA_3,
    events.Open(b"u" * 16, None, "golden", "fit", "stage", "fit", 0, 26, {}, {}, None, None, "", True),
    events.Loop(_RUN, "epoch", 3, 10.0, 0, 27, 28),
]


def test_the_golden_journal_of_schema_5_is_read_for_ever() -> None:
    """What schema version 5 added, the thread and the task that a run began in, is read as written."""
    assert read_all(GOLDEN / "schema-5") == SCHEMA_5


SCHEMA_5: list[events.Event] = [
    *SCHEMA_4,
    events.Open(
        b"v" * 16, b"u" * 16, "golden", "fit", "stage", "fit", 1, 29, {}, {}, None,
        lane=("ThreadPoolExecutor-0_1", 4711, "Task-7", 140_426_121_781_760),
    ),
]  # fmt: skip


def test_encoding_has_not_changed() -> None:
    """The same events encode to the very bytes of the golden journal: a change needs a new schema version."""
    content = (GOLDEN / "schema-5" / "000001.seg").read_bytes()
    header = _format.Header.unpack(content)
    assert header is not None
    assert (header.schema, events.SCHEMA) == (5, 5)
    assert content[_format.HEADER_SIZE :] == b"".join(_format.frame(events.encode(e), header.salt) for e in SCHEMA_5)


def test_a_newer_schema_is_left_alone(folder: Path) -> None:
    """Nothing of a journal with a higher schema version is read, and the version is reported."""
    directory = written([events.Params(b"a" * 16, {"x": 1})], folder / "j")
    path = directory / "000001.seg"
    content = path.read_bytes()
    header = _format.Header.unpack(content)
    assert header is not None
    newer = _format.Header(events.SCHEMA + 1, header.number, header.salt, header.created)
    path.write_bytes(newer.pack() + content[_format.HEADER_SIZE :])
    reader = Reader(directory)
    assert not list(reader.read(100, writer_alive=False))
    assert reader.newer_schema == events.SCHEMA + 1


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
