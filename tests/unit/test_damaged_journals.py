"""Damaged journals: what is whole is read, and what is missing is reported, once."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import examples
from tests.delivery_settings import ChangeLimits
from tests.written_journals import any_event, in_segments, read_with_gaps, segment, written
from trackdsl._core import events
from trackdsl.journal import _format, _reader
from trackdsl.journal._reader import Reader, read_all
from trackdsl.journal._segments import Position, segments
from trackdsl.journal._writer import Writer


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


def ends_of(directory: Path) -> list[int]:
    reader = Reader(directory)
    ends = [entry.end.offset for entry in reader.read(10_000, writer_alive=False)]
    reader.close()
    return ends
