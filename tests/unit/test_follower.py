"""Following a journal while it is written."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackdsl._core import events
from trackdsl.journal._follower import MOST_POINTS, Follower, ThinnedPoints
from trackdsl.journal._reader import Reader
from trackdsl.journal._replay import Point
from trackdsl.journal._writer import Writer


@given(st.integers(1, 5000))
def test_thinned_points_are_spread_evenly(total: int) -> None:
    """Thinning keeps the first point, the last, and some at equal distances between them."""
    points = ThinnedPoints()
    for step in range(total):
        points.append(Point(step, 0.0, 0))
    steps = [point.step for point in points]
    assert (steps[0], steps[-1], points.total) == (0, total - 1, total)
    assert min(total, MOST_POINTS // 2) <= len(steps) <= MOST_POINTS
    distances = {after - before for before, after in itertools.pairwise(steps[:-1])}
    assert len(distances) <= 1


def _open(folder: Path) -> tuple[Writer, bytes, bytes]:
    """A journal with a run that has just begun: the writer, the run's id, and the event."""
    writer, run = Writer.create(folder / "journal"), bytes(15) + b"1"
    opening = events.encode(events.Open(run, None, "e", "fit", "stage", "fit", 0, 1, {"lr": 0.1}, {}, None))
    writer.append(opening)
    return writer, run, opening


def _points(writer: Writer, run: bytes, count: int, first: int = 0) -> None:
    for step in range(first, first + count):
        writer.append(events.encode(events.Metric(run, "loss", step / 2, step, 1)))


def test_a_follower_sees_what_is_new(tmp_path: Path) -> None:
    """A follower reads each event of its run once, as soon as it is written, and sees the end of the run."""
    writer, run, opening = _open(tmp_path)
    follower = Follower(writer, run, opening)
    found = follower.recorded
    assert (found.name, found.status, found.params, found.ended) == ("fit", "RUNNING", {"lr": 0.1}, None)
    _points(writer, run, 1)
    _points(writer, bytes(16), 5)  # Another run's.
    follower.read(1.0)
    follower.read(1.0)
    assert [point.step for point in found.metrics["loss"]] == [0]
    _points(writer, run, 1, first=1)
    writer.append(events.encode(events.Close(run, "FINISHED", 2)))
    follower.read(1.0)
    assert [point.step for point in found.metrics["loss"]] == [0, 1]
    assert (found.status, found.ended, follower.left_out) == ("FINISHED", 2, False)
    follower.close()
    writer.close()


def test_a_follower_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower reads the segment that is being written from memory."""
    writer, run, opening = _open(tmp_path)
    follower = Follower(writer, run, opening)
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "read_stretch", lambda *_, **__: pytest.fail("it opens a file"))
        for first in range(0, 3000, 1000):
            _points(writer, run, 1000, first)
            follower.read(10.0)
        assert [follower.recorded.metrics["loss"][at].step for at in (0, -1)] == [0, 2999]
    assert not follower.left_out
    follower.close()
    writer.close()


def test_a_follower_without_time_reads_the_end(tmp_path: Path) -> None:
    """A follower without enough time leaves events out and says so; the latest values are there, in any segment."""
    writer, run, opening = _open(tmp_path)
    follower = Follower(writer, run, opening)
    for first in range(0, 300_000, 100_000):
        _points(writer, run, 100_000, first)
        follower.read(0.0)
        assert follower.left_out
        assert follower.recorded.metrics["loss"][-1].step == first + 99_999
    assert writer.position()[0] > 1
    assert follower.recorded.metrics["loss"].total < 30_000  # type: ignore[attr-defined]
    writer.append(events.encode(events.Close(run, "FAILED", 2)))
    follower.read(0.0)
    assert follower.recorded.status == "FAILED"
    follower.close()
    writer.close()


def test_a_follower_of_a_journal_that_is_delivered(tmp_path: Path) -> None:
    """Where a segment is removed before it was read, the follower continues behind it."""
    writer, run, opening = _open(tmp_path)
    follower = Follower(writer, run, opening)
    number = writer.position()[0]
    while writer.position()[0] < number + 2:
        _points(writer, run, 1000)
    for path in sorted(writer.directory.glob("0*.seg"))[:-1]:
        path.unlink()
    _points(writer, run, 1, first=7_777)
    follower.read(10.0)
    assert follower.recorded.metrics["loss"][-1].step == 7_777
    follower.close()
    writer.close()
