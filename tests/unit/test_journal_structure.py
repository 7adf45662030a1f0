"""Reading only the tree of runs from a journal."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from trackdsl._core import events
from trackdsl.journal import _format as fmt
from trackdsl.journal._reader import Reader, read_all
from trackdsl.journal._segments import Position, segments
from trackdsl.journal._structure import skim
from trackdsl.journal._writer import Writer

RUN = bytes(15) + b"r"
#: What looks like the beginning of a frame of an end, in the value of a parameter.
TRAP = (fmt.MARKER_BYTES + bytes(8) + b"\x95\x07").decode("latin-1")
TREE = (events.Open, events.Close, events.Adopt, events.Loop)

_run = st.just(RUN)
_params = st.dictionaries(st.text(max_size=3), st.sampled_from([1, TRAP, "x"]))
_any_event = st.one_of(
    st.builds(lambda run, time, params: events.Open(run, None, "e", "p", "stage", "p", 0, time, params, {}, None),
              _run, st.integers(0, 9), _params),
    st.builds(events.Metric, _run, st.sampled_from(["loss", TRAP]), st.floats(), st.integers(0, 99), st.just(1)),
    st.builds(lambda run, done: events.Loop(run, TRAP, done, None, 0, 1, 2), _run, st.integers(0, 9)),
    st.builds(events.Params, _run, st.just({"a": TRAP * 40})),
    st.builds(events.Close, _run, st.just("FINISHED"), st.just(3)),
)  # fmt: skip


#: Twelve zeros and more are in the id of its run, where the last bytes may begin.
_ZEROS = [events.Metric(RUN, "loss", 0.0, 0, 1), *(events.Close(RUN, "FINISHED", 3) for _ in range(3))]


@given(st.lists(_any_event, max_size=60), st.integers(0, 500))
@example(_ZEROS, 113)
def test_skimming_finds_the_tree_and_nothing_else(recorded: list[events.AnyEvent], tail: int) -> None:
    """Skimming gives all events that begin and end runs, in order; what is left at the end is then read whole."""
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer.create(Path(folder) / "journal")
        for event in recorded:
            writer.append(events.encode_safely(event))
        reader = Reader(writer.directory, Position(1, 0))
        skimmed = skim(reader, tail)
        if not tail:
            assert _texts(skimmed) == _texts([event for event in read_all(writer.directory) if isinstance(event, TREE)])
        rest = [entry.event for entry in reader.read_stretch(1000, writer_alive=True) if entry.event is not None]
        reader.close()
        writer.close()
        found = skimmed + rest
        assert all(isinstance(event, TREE) for event in skimmed)
        tree = [event for event in recorded if isinstance(event, TREE)]
        assert _texts([event for event in found if isinstance(event, TREE)]) == _texts(tree)
        if tail:  # What was left to read is exactly the end.
            assert _texts(recorded[len(recorded) - len(rest) :]) == _texts(rest)


def test_a_segment_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    """If a segment's file is cut meanwhile, the reader continues; reading the mapped memory would kill the process."""
    writer = Writer.create(tmp_path / "journal")
    for step in range(200):
        writer.append(events.encode(events.Metric(RUN, "loss", 0.5, step, 1)))
    reader = Reader(writer.directory)
    assert len(reader.read_stretch(100, writer_alive=True)) == 100
    with open(writer.directory / f"{segments(writer.directory)[-1]:06d}.seg", "r+b") as file:
        file.truncate(4096)
    assert skim(reader) == []
    assert len(reader.read_stretch(1000, writer_alive=True)) < 100
    reader.close()


def _texts(found: list[events.AnyEvent]) -> list[str]:
    """The events as text: NaN is not equal to itself."""
    return [repr(event) for event in found]
