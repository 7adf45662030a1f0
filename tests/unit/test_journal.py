"""The journal: what was appended is read back, whatever happens to the file or the program."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import Program, StartProgram, wait_until
from trackdsl import stage
from trackdsl._core import events
from trackdsl.journal import _format, _writer
from trackdsl.journal._lock import is_held
from trackdsl.journal._reader import START, Position, Reader, missing_segments, read_all, segments
from trackdsl.journal._replay import RecordedRun, replay
from trackdsl.journal._spool import journals
from trackdsl.journal._target import Target
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
    """A journal with these events, whose writer is gone."""
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


@settings(max_examples=60, deadline=None)
@given(found=st.lists(any_event, min_size=1, max_size=12), data=st.data())
def test_any_truncation_recovers_a_prefix(found: list[Any], data: st.DataObject) -> None:
    """Cut anywhere, a journal gives exactly the events that stand whole before the cut."""
    with tempfile.TemporaryDirectory() as name:
        directory = written(found, Path(name) / "j")
        path = directory / "000001.seg"
        ends = ends_of(directory)
        cut = data.draw(st.integers(0, ends[-1] + 40))
        os.truncate(path, cut)
        whole = sum(1 for end in ends if end <= cut) if cut >= _format.HEADER_SIZE else 0
        assert read_all(directory) == found[:whole]


@settings(max_examples=150, deadline=None)
@given(found=st.lists(any_event, min_size=1, max_size=12), data=st.data())
def test_any_flipped_byte_costs_one_record_at_most(found: list[Any], data: st.DataObject) -> None:
    """Flip any byte of a record: that record is skipped and counted, all others are read."""
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


def test_a_damaged_header_is_counted_not_guessed(folder: Path) -> None:
    """Without its header a segment has no salt: nothing in it is believed, and that is counted."""
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


def in_segments(directory: Path, monkeypatch: pytest.MonkeyPatch, count: int = 600) -> Writer:
    """A journal of several small segments, with one metric point after another, whose writer is alive."""
    monkeypatch.setattr(_writer, "_FIRST_SEGMENT", 4096)
    monkeypatch.setattr(_writer, "_LARGEST_SEGMENT", 4096)
    writer = Writer.create(directory)
    for n in range(count):
        writer.append(events.encode(events.Metric(b"a" * 16, "m", 0.0, n, 0)))
    assert len(segments(directory)) > 5
    return writer


def read_with_gaps(directory: Path, position: Position = START) -> tuple[list[int], list[str]]:
    """The steps of the points that can be read, and what is missing, once each however often reading begins anew."""
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
def test_what_is_missing_of_a_journal_is_told(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that are gone, emptied, cut or exchanged are reported, once, and everything else is read."""
    in_segments(folder / "j", monkeypatch).close()
    last = segments(folder / "j")[-1]
    damage, gone, words = DAMAGE[kind]
    lost = {step for number in gone for step in steps_of(folder / "j", last if number < 0 else number)}
    if kind == "all":
        lost = set(range(600))
    damage(folder / "j")
    steps, missing = read_with_gaps(folder / "j")
    assert missing == [word.replace("-1", str(last)) for word in words]
    if gone:
        assert steps == [step for step in range(600) if step not in lost]
    else:
        assert steps == sorted(set(steps))
        assert {*steps_of(folder / "j", 2), *steps_of(folder / "j", 4)} <= set(steps) < set(range(600))


def test_a_cut_last_segment_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the last segment is cut behind one of its events, what may have stood behind it counts as missing."""
    in_segments(folder / "j", monkeypatch).close()
    last = segments(folder / "j")[-1]
    cut_at_an_event(folder / "j", last)
    assert read_with_gaps(folder / "j")[1] == [f"the end of segment {last}"]


def test_what_delivery_removed_is_not_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments before the position are delivered and gone, which is no gap."""
    writer = in_segments(folder / "j", monkeypatch)
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
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after one segment is closed and before the next one has its name, a journal is whole."""
    writer = in_segments(folder / "j", monkeypatch)
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


def test_segments_follow_each_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal of many segments is read in order, also while it grows, and from any position on."""
    monkeypatch.setattr(_writer, "_FIRST_SEGMENT", 4096)
    monkeypatch.setattr(_writer, "_LARGEST_SEGMENT", 8192)
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


def test_threads_lose_and_tear_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads over many changes of segment: every event is there once, each thread's in its order."""
    monkeypatch.setattr(_writer, "_FIRST_SEGMENT", 4096)
    monkeypatch.setattr(_writer, "_LARGEST_SEGMENT", 4096)
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


def test_a_signal_handler_may_record_at_any_moment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that records, run thousands of times in the middle of appends and changes of segment, loses nothing."""
    monkeypatch.setattr(_writer, "_FIRST_SEGMENT", 4096)
    monkeypatch.setattr(_writer, "_LARGEST_SEGMENT", 4096)
    writer = Writer.create(folder / "j")
    handled = 0

    def handler(_number: int, _frame: object) -> None:
        nonlocal handled
        handled += 1  # First: the next signal may come in the middle of this one.
        writer.append(events.encode(events.Metric(b"h" * 16, "m", 0.0, handled, 0)))

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
    try:
        written_ = 0
        while handled < 2000:
            writer.append(events.encode(events.Metric(b"m" * 16, "m", 0.0, written_, 0)))
            written_ += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    writer.close()
    found = read_all(folder / "j")
    assert sorted(e.step for e in found if e.run == b"h" * 16) == list(range(1, handled + 1))  # type: ignore[union-attr]
    assert [e.step for e in found if e.run == b"m" * 16] == list(range(written_))  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [4096, 256 * 1024])
def test_an_append_is_safe_from_sigkill_when_it_returns(size: int, start: StartProgram, tmp_path: Path) -> None:
    """Killed at a random moment, a program's journal holds everything it had said was logged, and misses nothing."""
    program = start(f"""
        import sys, trackdsl
        from trackdsl.journal import _writer
        _writer._FIRST_SEGMENT = _writer._LARGEST_SEGMENT = {size}
        with trackdsl.stage("s"):
            n = 0
            while True:
                trackdsl.log_metric("m", n, step=n)
                sys.stdout.write(f"{{n}}\\n")
                n += 1
    """)
    said = [int(program.say()) for _ in range(random.randint(400, 600))]
    program.kill()
    (directory,) = journals(tmp_path / "spool")
    assert read_with_gaps(directory)[1] == []
    steps = [event.step for event in read_all(directory) if isinstance(event, (events.Metric, events.Metrics))]
    assert steps[: max(said) + 1] == list(range(max(said) + 1))
    assert not is_held(directory / "lock")


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
    assert [_told(run) for run in captured.runs] == model


def _told(run: RecordedRun) -> dict[str, Any]:
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
    assert (root.name, root.experiment, root.status, root.word) == ("pipeline", "golden", "FAILED", "experiment")
    assert root.params == {"none": None, "yes": True, "n": -3, "big": 2**63, "x": 0.25, "text": "grün"}
    assert (child.parent, child.path, child.status, child.lost) == (root, "pipeline/fit", "FINISHED", 2)
    assert [tuple(point) for point in child.metrics["loss"]] == [(0, 1.5, 11), (7, -2.0, 12)]
    assert child.metric("acc") == 1.0
    assert child.tags == {"team": "a"}
    assert child.artifacts == {"models/m.bin": GOLDEN / "files" / "000001/m.bin"}
    assert child.params == {"late": 1}
    assert root.failure == events.Failure("ValueError", "no", "Traceback …")
    assert adopted.word == "mlflow"


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
    """What schema version 3 added, runs that go on, ranks, types of texts and points of models, is read as written."""
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


def test_encoding_has_not_changed() -> None:
    """The same events encode to the very bytes of the golden journal: a change needs a new schema version."""
    content = (GOLDEN / "schema-3" / "000001.seg").read_bytes()
    header = _format.Header.unpack(content)
    assert header is not None
    assert (header.schema, events.SCHEMA) == (3, 3)
    assert content[_format.HEADER_SIZE :] == b"".join(_format.frame(events.encode(e), header.salt) for e in SCHEMA_3)


def test_a_newer_schema_is_left_alone(folder: Path) -> None:
    """Nothing of a journal with a higher schema version is read, and the version is told."""
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


FULL_DISK = """
    import logging, resource, signal, sys, trackdsl
    logging.basicConfig()
    trackdsl.configure(mode="offline")
    with trackdsl.stage("first") as run:
        run.log_metric("m", 0)
    # No file may grow from here on: what a full disk looks like to a program.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    with trackdsl.stage("second") as run:
        for n in range(20_000):
            run.log_metric("m", n, step=n)
        run.log_text("x" * 10_000, "text.txt")
        lost = run._lost
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with trackdsl.stage("third") as run:
        while True:  # Until the journal has noticed that there is room again.
            before = run._lost
            run.log_metric("probe", 0)
            if run._lost == before:
                break
        for n in range(20_000):
            run.log_metric("m", n, step=n)
    print(lost)
"""


def test_a_full_disk_costs_counted_events_and_nothing_else(start: StartProgram, tmp_path: Path) -> None:
    """The program goes on, one line says why, the run ends with what is missing counted, and later runs are whole."""
    program: Program = start(FULL_DISK)
    code, out, err = program.finish()
    assert code == 0, err
    assert err.count("cannot write to its spool") == 1
    (directory,) = journals(tmp_path / "spool")
    first, second, third = replay((event, directory) for event in read_all(directory))
    lost = int(out)
    assert lost > 0
    assert (second.lost, second.status) == (lost, "FINISHED")
    assert len(second.metrics["m"]) == 20_000 - lost
    assert "trackdsl.omitted.text.txt" in second.tags
    assert len(third.metrics["m"]) == 20_000
    assert (first.lost, first.status) == (0, "FINISHED")


NO_DESCRIPTORS = """
    import logging, os, resource, trackdsl
    logging.basicConfig()
    with trackdsl.stage("s") as run:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        while True:
            try:
                taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        for n in range(60_000):
            run.log_metric("m", n, step=n)
"""


@pytest.mark.slow
def test_a_program_without_a_free_descriptor_loses_nothing(start: StartProgram, tmp_path: Path) -> None:
    """With every file descriptor taken, events go on to be recorded, over many segments, and nothing is reported."""
    code, _, err = start(NO_DESCRIPTORS).finish()
    assert (code, err) == (0, "")
    (directory,) = journals(tmp_path / "spool")
    assert len(segments(directory)) > 3
    (run,) = replay((event, directory) for event in read_all(directory))
    assert (len(run.metrics["m"]), run.lost, run.status) == (60_000, 0, "FINISHED")


def test_a_program_that_begins_without_a_free_descriptor(start: StartProgram, tmp_path: Path) -> None:
    """Where not even a journal can be made, the advice is about descriptors, and once one is free the run is known."""
    source = NO_DESCRIPTORS.replace("with trackdsl", "if True:  # with trackdsl", 1).replace(
        "run.log", "pass  # run.log"
    )
    program = start(
        source
        + """
        with trackdsl.stage("s") as run:
            run.log_metric("lost", 1)
            for descriptor in taken:
                os.close(descriptor)
            run._target._retry_at = 0  # A second later.
            run.log_metric("kept", 1)
        print(run._lost)
    """
    )
    code, out, err = program.finish()
    assert (code, out) == (0, "2\n"), err
    assert "ulimit -n" in err
    assert "Free some space" not in err
    (directory,) = journals(tmp_path / "spool")
    (run,) = replay((event, directory) for event in read_all(directory))
    assert (run.name, set(run.metrics), run.lost, run.status) == ("s", {"kept"}, 2, "FINISHED")


def test_a_moment_without_descriptors_costs_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While no file can be opened at all, the segment that was opened ahead takes what comes."""
    writer = Writer.create(folder / "j")

    def none_free(*_: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(_writer, "allocate", none_free)
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
    ("number", "words"),
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
    number: int, words: str, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What a warning tells the user to do depends on what went wrong: to free space only where space is missing."""
    writer = Writer.create(folder / "j")

    def fail(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_writer, "allocate", fail)
    while not writer.lost:
        writer.append(b"x" * 10_000)
    (record,) = caplog.records
    assert words in record.message
    assert ("Free some space" in record.message) == (number in (errno.ENOSPC, errno.EDQUOT))
    writer.close()


def _open_below(folder: Path) -> list[str]:
    """The files of a folder that this process has open."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # That of the listing itself.
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [path for path in found if path.startswith(str(folder))]


def test_a_forked_child_leaves_the_next_segment_alone(folder: Path) -> None:
    """A child that lets go of an inherited journal closes its own descriptors, and the parent goes on undisturbed."""
    writer = Writer.create(folder / "j")
    assert _open_below(folder)
    pid = os.fork()
    if pid == 0:
        writer.forget()
        writer.append(b"z" * 1000)
        # What is left belongs to the mapping of the segment that the parent writes to.
        os._exit(_open_below(folder) != [str(folder / "j" / "000001.seg")])
    assert os.waitpid(pid, 0)[1] == 0
    while len(segments(folder / "j")) < 4:
        writer.append(events.encode(events.Params(b"a" * 16, {"x": "y" * 10_000})))
    writer.close()
    assert writer.lost == 0
    found = read_all(folder / "j")
    assert all(isinstance(event, events.Params) for event in found)
    assert len(found) > 50


def test_an_unwritable_spool_is_replaced(start: StartProgram, tmp_path: Path) -> None:
    """Where the spool cannot be written, events go to the temporary folder, and one line says so."""
    (tmp_path / "file").write_text("in the way")
    program = start(
        """
        import logging, trackdsl
        logging.basicConfig()
        for _ in range(3):
            with trackdsl.stage("s") as run:
                run.log_metric("m", 1)
        """,
        TRACKDSL_SPOOL=str(tmp_path / "file" / "spool"),
        TMPDIR=str(tmp_path),
    )
    code, _, err = program.finish()
    assert (code, err.count("cannot use its spool")) == (0, 1)
    (directory,) = journals(next(tmp_path.glob("trackdsl-*/spool/*")))
    assert len(replay((event, directory) for event in read_all(directory))) == 3


def test_nowhere_to_write_is_counted(start: StartProgram, tmp_path: Path) -> None:
    """With no place at all the program goes on, and says at its end how many events are missing."""
    (tmp_path / "file").write_text("in the way")
    program = start(
        """
        import logging, tempfile, trackdsl
        logging.basicConfig()
        tempfile.tempdir = "/dev/null/none"
        with trackdsl.stage("s") as run:
            for n in range(8):
                run.log_metric("m", 1)
        print("went on")
        """,
        TRACKDSL_SPOOL=str(tmp_path / "file" / "spool"),
    )
    code, out, err = program.finish()
    assert (code, out) == (0, "went on\n")
    assert "could not record 10 events" in err


def test_a_forked_child_writes_a_journal_of_its_own(start: StartProgram, tmp_path: Path) -> None:
    """Parent and child log on the same run from two journals; neither touches the other's, and ids never repeat."""
    program = start("""
        import os, trackdsl
        with trackdsl.stage("parent") as run:
            run.log_metric("before", 1)
            pid = os.fork()
            if pid == 0:
                run.log_metric("child", 1)
                with trackdsl.stage("inside"):
                    pass
                os._exit(0)
            os.waitpid(pid, 0)
            run.log_metric("after", 1)
    """)
    code, _, err = program.finish()
    assert code == 0, err
    found = sorted(journals(tmp_path / "spool"))
    assert len(found) == 2
    runs = replay((event, directory) for directory in found for event in read_all(directory))
    parent, inside = runs
    assert set(parent.metrics) == {"before", "child", "after"}
    assert inside.parent is parent
    assert inside.id != parent.id


def test_memory_stays_bounded(start: StartProgram) -> None:
    """Two hundred thousand points grow the program by less than 20 MB."""
    program = start("""
        import resource, trackdsl
        with trackdsl.stage("s") as run:
            run.log_metric("m", 0)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for n in range(200_000):
                run.log_metric("m", n, step=n)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    code, out, err = program.finish()
    assert code == 0, err
    assert int(out) < 20_000


def test_a_journal_is_born_locked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lists the spool while a journal is made sees none, or one whose lock is held."""
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


def record_points(target: Target, run: bytes, steps: range) -> None:
    for step in steps:
        target.append(events.encode(events.Metric(run, "m", 0.0, step, 0)))


def delete(folder: Path) -> None:
    """Delete a folder, also where git's answer arrives in the middle of that."""
    wait_until(lambda: shutil.rmtree(folder, ignore_errors=True) or not folder.exists(), "the folder to be gone")


def copy_in_place(journal: Path) -> None:
    """Let a copy of a journal take its place: the same names, and other files."""
    away = journal.rename(journal.with_name(f".{journal.name}"))
    shutil.copytree(away, journal)


DELETIONS: dict[str, Callable[[Path], object]] = {
    "the spool": lambda journal: delete(journal.parent.parent),
    "the folder of journals": lambda journal: delete(journal.parent),
    "the journal": delete,
    "its segments": lambda journal: [path.unlink() for path in journal.glob("*.seg")],
    "its lock": lambda journal: (journal / "lock").unlink(),
    "moved away": lambda journal: journal.rename(journal.with_name(f".{journal.name}")),
    "a copy in its place": copy_in_place,
}


@pytest.mark.parametrize("kind", DELETIONS)
@pytest.mark.parametrize("noticed", ["by watch", "at a change of segment"])
def test_a_deleted_journal_is_replaced(
    kind: str, noticed: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever of its journal is deleted, a program notices, says so once, and records on in a new journal."""
    with stage("outer") as outer, stage("closed"):
        pass
    with stage("open", tags={"a": "b"}) as run:
        target = run._target
        assert target.writer is not None
        old = target.writer
        DELETIONS[kind](old.directory)
        if noticed == "by watch":
            target.watch(0)
        else:
            record_points(target, run._id, range(20_000))
        assert target.writer is not old
        run.log_metric("after", 1)
        run.log_text("text", "text.txt")
        new = target.writer.directory
    assert [record.message for record in caplog.records if "was deleted" in record.message] == [
        f"The journal {old.directory} was deleted while this program records to it: what was not delivered by then is "
        "lost. What is recorded from now on goes to a new journal."
    ]
    found = {replayed.id: replayed for replayed in replay((event, new) for event in read_all(new))}
    replayed = found[run.id]
    assert {each.status for each in found.values()} == {"FINISHED"}
    assert "when the journal was deleted" in replayed.tags["trackdsl.lost_events"]
    assert replayed.metric("after") == 1
    assert replayed.artifacts["text.txt"].read_text() == "text"
    assert is_held(new / "lock")
    assert outer.id != run.id


def test_a_journal_that_is_deleted_during_a_change_of_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is gone when a new segment is to get its name is noticed by the next look."""
    with stage("s") as run:
        target = run._target
        old = target.writer
        assert old is not None
        rename = os.rename

        def rename_too_late(source: Any, to: Any) -> None:
            if Path(to).name == "000002.seg":
                old.directory.rename(old.directory.with_name("moved"))
            rename(source, to)

        monkeypatch.setattr(os, "rename", rename_too_late)
        record_points(target, run._id, range(20_000))
        target.check()
        assert target.writer is not old
        run.log_metric("after", 1)
        assert target.writer is not None
        new = target.writer.directory
    (replayed,) = replay((event, new) for event in read_all(new))
    assert replayed.metric("after") == 1
    assert replayed.status == "FINISHED"


def test_threads_that_record_while_the_journal_is_replaced_lose_nothing_more(tmp_path: Path) -> None:
    """What other threads append once a deletion has been noticed is in the new journal, each thread's in its order."""
    with stage("s") as run:
        target = run._target
        assert target.writer is not None
        directory = target.writer.directory
        seen = threading.Event()
        stop = threading.Event()

        def write(thread: int) -> None:
            step = 0
            while not stop.is_set():
                run.log_metric(f"m{thread}", 0, step=step)
                step += 1
                if step == 1000:
                    seen.set()

        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        wait_until(seen.is_set, "the threads")
        directory.rename(directory.with_name(f".{directory.name}"))
        target.check()
        try:
            # One of the threads may have noticed it first, and be about to make the new one.
            wait_until(lambda: target.writer and target.writer.directory != directory, "the new journal")
            new = target.writer
            wait_until(lambda: new.position()[0] > 3, "some more segments")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    (replayed,) = replay((event, new.directory) for event in read_all(new.directory))
    for n in range(4):
        steps = [point.step for point in replayed.metrics[f"m{n}"]]
        assert steps == list(range(steps[0], steps[-1] + 1))


def test_runs_that_began_without_a_journal_are_known_once_there_is_one(tmp_path: Path) -> None:
    """Where no journal could be made when a run began, its later events belong to a run as soon as there is one."""
    (tmp_path / "spool").write_text("in the way")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", "/dev/null/none")
        with stage("s") as run:
            (tmp_path / "spool").unlink()
            run._target._retry_at = 0
            run.log_metric("m", 1)
    assert run._target.writer is not None
    directory = run._target.writer.directory
    (replayed,) = replay((event, directory) for event in read_all(directory))
    assert (replayed.name, replayed.metric("m"), replayed.lost) == ("s", 1, 1)
