"""Draws the tree as lines of styled text that are exactly as wide as the terminal.

The lines are made here and not by Rich's tables and trees, which would take a second for a thousand rows. Only what is
visible is drawn.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from trackdsl._core.escaping import printable
from trackdsl.cli.watching import _texts as texts
from trackdsl.cli.watching._rows import Key, Row
from trackdsl.cli.watching._runs import WatchedRun
from trackdsl.query._shown import colour

#: A piece of a line, and its style.
Piece = tuple[str, str]

_MARKS = {"RUNNING": "●", "FINISHED": "✓", "FAILED": "✗", "KILLED": "■", "ENDED": "□"}
_KEYS = "q quit  ↑↓ choose  space fold  PgUp PgDn page  a ended runs"
_FEW_KEYS = "q quit  space fold  a ended"
#: Narrower terminals get no metrics.
_NARROW = 64
#: Narrower terminals get a sign for a status instead of its name.
_WITH_STATUS = 100
#: How many characters of the rest of a line metrics get if the progress of a loop is shown too.
_FOR_METRICS = 20
_STATUS, _TIME = 8, 8
#: What a name keeps of its column if something is written behind it.
_LEAST_OF_A_NAME = 8


class Layout(NamedTuple):
    """The widths of the columns, in characters; the rest of a line has progress and metrics."""

    width: int
    name: int

    @property
    def is_narrow(self) -> bool:
        """Whether there is only room for the most important."""
        return self.width < _NARROW

    @classmethod
    def of(cls, width: int) -> Layout:
        """The layout for a terminal."""
        return cls(width, max(8, width - 20) if width < _NARROW else max(26, width * 3 // 10))


@dataclass
class Picture:
    """What the screen shows now.

    Attributes:
        rows: all rows.
        top: the first that is visible.
        chosen: the row that the keys act on; None where there are no keys.
        counts: how many runs there are by status.
        machine: readings of the machine.
        programs: readings of programs, by the name of their journals.
        delivering: what delivery does, in a few words; None if there is none.
        note: a sentence for an empty screen, or about what cannot be read.
        keys: whether there are keys.
    """

    rows: Sequence[Row] = ()
    top: int = 0
    chosen: Key | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    machine: Mapping[str, float] = field(default_factory=dict)
    programs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    delivering: str | None = None
    note: str = ""
    keys: bool = True

    def room(self, height: int) -> int:
        """For how many rows there is room on a screen."""
        return max(1, height - 2 - (1 if self.note else 0))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.height
        for number, line in enumerate(self.lines(options.max_width, height)):
            if number:
                yield Segment.line()
            yield from _segments(line, options.max_width)

    def lines(self, width: int, height: int) -> Iterator[list[Piece]]:
        """The visible lines."""
        room = self.room(height)
        yield self._head(width)
        if self.note:
            yield [(self.note, "yellow")]
        yield from self.row_lines(width, self.rows[self.top : self.top + room])
        for _ in range(room - len(self.rows[self.top : self.top + room])):
            yield []
        yield self._foot(width, room)

    def row_lines(self, width: int, rows: Sequence[Row]) -> Iterator[list[Piece]]:
        """The lines of some rows."""
        layout = Layout.of(width)
        for row in rows:
            line = self._line(row, layout)
            yield [(text, f"{style} reverse".lstrip()) for text, style in line] if row.key == self.chosen else line

    def _head(self, width: int) -> list[Piece]:
        counts = texts.counts_of(self.counts) or "nothing"
        machine = "  ".join(texts.machine_of(self.machine))
        space = width - cell_len(counts) - cell_len(machine)
        if space < 2:
            return [(counts, "bold")]
        return [(counts, "bold"), (" " * space, ""), (machine, "dim")]

    def _foot(self, width: int, room: int) -> list[Piece]:
        keys = "" if not self.keys else _KEYS if width >= _NARROW else _FEW_KEYS
        count = len(self.rows)
        rows = (
            f"{self.top + 1:,}-{min(count, self.top + room):,} of {count:,}"
            if count > room
            else time.strftime("%H:%M:%S")
        )
        space = width - cell_len(keys) - len(rows)
        return [(keys, "dim"), (" " * space, ""), (rows, "dim")] if space > 0 else [(keys, "dim")]

    def _line(self, row: Row, layout: Layout) -> list[Piece]:
        kind = row.key[0]
        if kind == "program":
            return self._program(row)
        assert row.run is not None
        if kind == "failure":
            return [(row.indent, "dim"), (f"{printable(row.run.failure or '')}", "red")]
        if kind == "more":
            text = f"… {texts.counts_of(row.hidden)}" if row.hidden else "fewer"
            return [(row.indent, "dim"), (f"{'▸' if row.folded else '▾'} {text}", "dim")]
        return _run(row, layout)

    def _program(self, row: Row) -> list[Piece]:
        if row.journal is None:
            return [("ended programs", "bold")]
        name, *others = texts.program_of(row.journal, self.programs.get(row.journal.name, {}), self.delivering)
        return [(name, "bold"), ("  " + "  ".join(others), "dim" if not row.journal.error else "yellow")]


def _run(row: Row, layout: Layout) -> list[Piece]:
    run = row.run
    assert run is not None
    mark = "" if row.folded is None else "▸ " if row.folded else "▾ "
    indent = row.indent[:-1] if mark else row.indent
    space = layout.name - cell_len(indent) - len(mark)
    below, broken = _below(run, space - _LEAST_OF_A_NAME) if row.folded else ("", "")
    space -= len(below) + len(broken)
    taken = texts.clock(texts.seconds_of(run)) if run.began else ""
    style = colour(run.status) if run.status != "ENDED" else "dim"
    status = (
        f"{run.status.lower()[:_STATUS]:<{_STATUS}}" if layout.width >= _WITH_STATUS else _MARKS.get(run.status, "?")
    )
    line = [
        (indent + mark, "dim"),
        (_fit(texts.name_of(run), space) + below, "bold" if run.is_open else ""),
        (broken, "red"),
        (f" {status} ", style),
        (f"{taken:>{_TIME}}  ", ""),
    ]
    left = layout.width - layout.name - len(status) - _TIME - 4
    progress = texts.progress_of(run, room=left - _FOR_METRICS if run.metrics and not layout.is_narrow else left)
    if progress:
        line.append((progress + "  ", "cyan"))
        left -= cell_len(progress) + 2
    if not layout.is_narrow:
        line.append(("  ".join(texts.metrics_of(run, left)), ""))
    return line


def _below(run: WatchedRun, room: int) -> tuple[str, str]:
    """How many runs are below a run, and how many of them have failed or were killed; in a sign if there is no room."""
    counts: Counter[str] = Counter()
    for one in run.walk():
        counts.update(one.dropped)
        counts[one.status] += one is not run
    broken = {status: counts[status] for status in ("FAILED", "KILLED") if counts[status]}
    below = f" +{counts.total():,}"
    if not broken:
        return below, ""
    text = f" ({texts.counts_of(broken)})"
    return below, text if len(below) + len(text) <= room else f" {_MARKS['FAILED']}{sum(broken.values()):,}"


def _fit(text: str, space: int) -> str:
    """The text, cut or padded to this many cells."""
    space = max(1, space)
    if cell_len(text) <= space:
        return text + " " * (space - cell_len(text))
    return set_cell_size(text, space - 1) + "…"


def _segments(line: list[Piece], width: int) -> Iterator[Segment]:
    """The pieces of a line as far as there is room; neighbours of one style become one, as Rich takes each apart."""
    for style, pieces in groupby(line, key=itemgetter(1)):
        text = "".join(piece for piece, _ in pieces)
        size = cell_len(text)
        if size > width:
            text, size = _fit(text, width), width
        width -= size
        yield Segment(text, Style.parse(style) if style else None)
        if width <= 0:
            return


def plain(line: list[Piece]) -> str:
    """A line without styles."""
    return "".join(text for text, _ in line).rstrip()
