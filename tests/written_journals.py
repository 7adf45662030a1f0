"""Journals for tests of reading: any events, several small segments, and what can be read of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.delivery_settings import ChangeLimits
from trackdsl._core import events
from trackdsl.journal._reader import Reader
from trackdsl.journal._segments import START, Position, segments
from trackdsl.journal._writer import Writer

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


def written(found: list[Any], directory: Path) -> Path:
    """A journal with these events, whose writer has died."""
    shutil.rmtree(directory, ignore_errors=True)
    writer = Writer.create(directory)
    for event in found:
        writer.append(events.encode(event))
    writer.close()
    return directory


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
