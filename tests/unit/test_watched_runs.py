"""The tree that `trackdsl watch` keeps and draws."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from pathlib import Path
from time import time_ns
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.live import Live

from trackdsl._core import events
from trackdsl._core.escaping import printable
from trackdsl.cli.watching._drawing import Picture
from trackdsl.cli.watching._lines import Lines
from trackdsl.cli.watching._position_times import PositionTimes
from trackdsl.cli.watching._rows import Folding, Row, rows_of
from trackdsl.cli.watching._runs import WatchedRuns
from trackdsl.cli.watching._screen import Screen
from trackdsl.cli.watching._spool import WatchedSpool
from trackdsl.cli.watching._terminal import keys_in
from trackdsl.journal._segments import Position

#: Names as an attacker would choose them: escape sequences, changes of the writing direction, wide characters.
_names = st.text(max_size=30) | st.sampled_from(
    ["\x1b]0;title\x07", "\x1b[2J", "a\nb", "\u202eevil", "漢字" * 9, "é" * 40]
)


def id_(number: int) -> bytes:
    return number.to_bytes(16, "big")


def begun(number: int, parent: int | None = None, name: str = "fit", time: int = 1, **more: Any) -> events.Open:
    around = None if parent is None else id_(parent)
    return events.Open(id_(number), around, "e", name, "stage", f"root/{name}", 0, time, {}, {}, None, **more)


def ended(number: int, status: str = "FINISHED", time: int = 2, failure: events.Failure | None = None) -> events.Close:
    return events.Close(id_(number), status, time, failure)


def watched(*found: events.AnyEvent, journal: str = "j") -> WatchedSpool:
    """A spool whose programs have recorded these events."""
    spool = WatchedSpool(Path("/nowhere"), ended=True)
    for event in found:
        spool.runs.apply(event, journal)
    return spool


def names(spool: WatchedSpool, folding: Folding | None = None) -> list[str]:
    """The rows of runs with their lines of the tree."""
    rows = rows_of(spool, folding or Folding(ended=True))
    return [f"{row.indent}{row.run.name}" for row in rows if row.run is not None and row.key[0] == "run"]


def test_what_has_ended_is_folded_and_bounded() -> None:
    """Of many runs the latest are kept, and all are counted; the screen shows those that ended last or failed."""
    spool = watched(begun(0, name="root"))
    sizes = []
    for number in range(1, 6001):
        status = "FAILED" if number % 10 == 0 else "FINISHED"
        spool.runs.apply(begun(number, 0, f"fit {number}"), "j")
        spool.runs.apply(ended(number, status, number), "j")
        sizes.append(len(list(spool.runs)))
    assert max(sizes) <= 2001
    assert spool.runs.totals == Counter(RUNNING=1, FINISHED=5400, FAILED=600)
    rows = rows_of(spool, Folding())
    shown = [row.run.name for row in rows if row.key[0] == "run" and row.run is not None]
    assert shown == ["root", *(f"fit {n}" for n in (5960, 5970, 5980, 5990, 5998, 5999, 6000))]
    assert rows[-1].hidden == {"FINISHED": 5398, "FAILED": 595}


def test_lines_lose_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Each run has a line although many more end between two looks than are kept, and none has the same line twice."""
    spool = watched()
    lines = Lines(spool, Folding(ended=True), as_json=True)
    for event in [begun(0, name="root"), *(one for n in range(1, 6001) for one in (begun(n, 0), ended(n))), ended(0)]:
        spool.runs.apply(event, "j")
    lines.print_runs()
    lines.print_runs()
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [int(one["id"], 16) for one in printed] == [*range(1, 6001), 0]
    assert {one["status"] for one in printed} == {"FINISHED"}
    assert printed[-1]["below"] == {"FINISHED": 4001}


def test_unfolding_shows_what_is_kept() -> None:
    """The row of hidden runs unfolds them; an ended tree is folded until the user unfolds it."""
    spool = watched(begun(0, name="root"))
    for number in range(1, 11):
        spool.runs.apply(begun(number, 0, str(number)), "j")
        spool.runs.apply(ended(number), "j")
    folding = Folding(ended=True)
    assert len(names(spool, folding)) == 3
    folding.toggle(rows_of(spool, folding)[-1])
    assert len(names(spool, folding)) == 11
    spool.runs.apply(ended(0), "j")
    rows = rows_of(spool, folding)
    assert [row.key[0] for row in rows] == ["program", "run"]
    folding.toggle(rows[1])
    assert len(names(spool, folding)) == 11


def test_the_tree_of_several_journals() -> None:
    """A run finds its parent in another journal, whichever is read first; the root of ranks ends with them."""
    rank = events.Rank("launch", 0, 2, 0, "node", "torchrun 1", 1)
    spool = watched()
    spool.runs.apply(begun(2, 1, "child"), "b")
    assert names(spool) == ["child"]
    spool.runs.apply(begun(1, name="root"), "a")
    assert names(spool) == ["root", "└─ child"]
    spool.runs.apply(begun(8, 7, "rank 0", rank=rank), "c")
    spool.runs.apply(begun(9, 7, "rank 1", rank=rank), "d")
    assert names(spool)[2:] == ["launch", "├─ rank 0", "└─ rank 1"]
    spool.runs.apply(ended(8), "c")
    assert spool.runs.get(id_(7)).is_open  # type: ignore[union-attr]
    spool.runs.apply(ended(9, "FAILED"), "d")
    assert spool.runs.get(id_(7)).status == "FAILED"  # type: ignore[union-attr]


def test_a_failure_is_shown_once() -> None:
    """An exception is at the innermost run that it ended: the first and the last line, as far as there is room."""
    failure = events.Failure("ValueError", "no data\nand more", "Traceback ...\nValueError: no data\nand more")
    spool = watched(begun(0), begun(1, 0), begun(2, 1), ended(2, "FAILED", 3, failure), ended(1, "FAILED", 4, failure))
    shown = [row for row in rows_of(spool, Folding()) if row.key[0] == "failure"]
    found = [(row.key[1], row.run and row.run.failure) for row in shown]
    assert found == [(id_(1), "ValueError: no data … and more")]
    long = events.Failure("ValueError", "no data\n" + "x" * 999 + "\n" + "y" * 999 + "\n", "")
    (run,) = watched(begun(0), ended(0, "FAILED", 3, long)).runs
    assert run.failure == "ValueError: no data … " + "y" * 150


def test_failures_in_what_is_folded() -> None:
    """A folded run says how many below it have failed, with those that are not kept; in a narrow terminal by a sign."""
    spool = watched(begun(0, name="group"), begun(1, 0), begun(2, 1), ended(2, "FAILED"), ended(1, "KILLED"))
    run = spool.runs.get(id_(1))
    assert run is not None
    run.dropped["FAILED"] = 3
    spool.runs.apply(ended(0), "j")
    (row,) = [row for row in rows_of(spool, Folding(ended=True)) if row.run is not None]
    assert "▸ group +5 (4 failed, 1 killed)" in " ".join(drawn([row], 140)[1].split())
    assert "▸ group +5 ✗5" in " ".join(drawn([row], 40)[1].split())


def test_a_resumed_run_runs_again() -> None:
    """A run that another program resumes is the same row again, and ends with that program."""
    spool = watched(begun(1), ended(1, "KILLED"))
    spool.runs.apply(begun(5, name="again", continued_id=id_(1).hex()), "other")
    assert (names(spool), spool.runs.totals["RUNNING"], [run.id for run in spool.runs.open_in("other")]) == (
        ["fit"], 1, [id_(1)],
    )  # fmt: skip
    spool.runs.apply(ended(5), "other")
    assert spool.runs.totals == Counter(FINISHED=1)


_some = st.integers(0, 6)
_event = st.one_of(
    st.builds(begun, _some, st.none() | _some, _names, st.integers(0, 9)),
    st.builds(ended, _some, st.sampled_from(["FINISHED", "FAILED", "KILLED"]), st.integers(0, 9)),
    st.builds(events.Metric, st.builds(id_, _some), _names, st.floats(), st.integers(0, 5), st.just(1)),
    st.builds(
        events.Loop, st.builds(id_, _some), _names, st.integers(-1, 9), st.none() | st.floats(), st.integers(-3, 9),
        st.integers(0, 5), st.integers(0, 5),
    ),
    st.builds(events.Adopt, st.builds(id_, _some), st.just("m"), st.just("0")),
)  # fmt: skip


@example([(begun(1, 2), "a"), (begun(2, 1), "a")], 80)
@example([(begun(1, name="\x1b[2J\u202e"), "a")], 80)
@example([(begun(1, name="\xa0"), "a")], 20)
@given(st.lists(st.tuples(_event, st.sampled_from(["a", "b"])), max_size=40), st.integers(20, 130))
def test_any_events_make_a_sound_picture(found: list[tuple[events.AnyEvent, str]], width: int) -> None:
    """Any events, also circles of parents, give one row for each kept run, in lines that fit and are printable."""
    runs = WatchedRuns()
    for event, journal in found:
        runs.apply(event, journal)
    spool = WatchedSpool(Path("/nowhere"), ended=True)
    spool.runs = runs
    folding = Folding(ended=True)
    for run in runs:
        folding.chosen["run", run.id] = False
        folding.chosen["more", run.id] = False
    rows = rows_of(spool, folding)
    assert Counter(row.key[1] for row in rows if row.key[0] == "run") == Counter(run.id for run in runs)
    assert sum(run.is_open for run in runs) == runs.totals["RUNNING"]
    for line in drawn(rows, width):
        assert cell_len(line) <= width
        assert line == printable(line)


def drawn(rows: list[Row], width: int) -> list[str]:
    """A picture's lines, as a terminal without colours gets them."""
    console = Console(file=io.StringIO(), width=width, height=len(rows) + 2, color_system=None)
    console.print(Picture(rows, keys=False), end="")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().split("\n")


@pytest.mark.parametrize("typed", [b"", b"\x1b", b"\x1b[", b"\xff\x00", b"\x1b[99;5Z"])
def test_keys_that_mean_nothing(typed: bytes) -> None:
    """Unknown keys are ignored."""
    assert keys_in(typed) == []


def test_keys() -> None:
    """Arrows in both modes of terminals, pages and letters are recognized, as many as are typed at once."""
    assert keys_in(b"\x1b[A\x1bOBj \x1b[6~q") == ["up", "down", "down", "toggle", "page down", "quit"]


def test_pages() -> None:
    """Each press of PgDn and PgUp turns a page, which has the last row of the one before; the ends are ends."""
    spool = watched(*(begun(number, name=f"fit {number}", time=time_ns()) for number in range(50)))
    console = Console(file=io.StringIO(), width=80, height=12)
    screen = Screen(spool, Folding(), console)
    live = Live(console=console, auto_refresh=False)
    tops = []
    for key in ("up", *["page down"] * 6, *["page up"] * 6):
        screen.press(key)
        screen.draw(live)
        tops.append(screen.picture.top)
    assert tops == [0, 9, 18, 27, 36, 41, 41, 32, 23, 14, 5, 0, 0]


def test_values_without_a_curve() -> None:
    """A metric that has no two finite values is shown without blanks for a curve."""
    points = [events.Metric(id_(1), "loss", value, step, 1) for step, value in enumerate([1.0, math.nan, math.inf])]
    spool = watched(begun(1, time=time_ns()), *points)
    (line,) = (line for line in drawn(rows_of(spool, Folding()), 80) if "fit" in line)
    assert line.rstrip().endswith("loss inf")


def test_the_oldest_moment_stays() -> None:
    """Of any number of positions the time of the oldest one that is not delivered is known, and no time to come."""
    moments = PositionTimes(100.0)
    assert moments.since() is None
    for number in range(10_000):
        moments.add(Position(1, number), 200.0 + number)
    moments.add(Position(2, 0), time_ns() / 1e9 + 3600)
    assert moments.since() == 200.0
    moments.forget(Position(1, 5000))
    since = moments.since()
    assert since is not None
    assert 5150 < since <= 5201
    moments.forget(Position(1, 9999))
    since = moments.since()
    assert since is not None
    assert since <= time_ns() / 1e9
    early = PositionTimes(100.0)
    early.add(Position(1, 1), 5.0)
    assert early.since() == 100.0


def test_metrics_fill_the_line() -> None:
    """As many metrics as fit are shown, with their curves, and none is cut."""
    points = [
        events.Metric(id_(1), name, step, step, 1) for name in ("loss", "accuracy", "recall") for step in range(9)
    ]
    spool = watched(begun(1, time=time_ns()), *points)
    for width in range(64, 140):
        (line,) = (line for line in drawn(rows_of(spool, Folding()), width) if "fit" in line)
        assert "recall 8" in line
        assert "…" not in line
