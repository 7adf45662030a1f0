"""What was measured, as rows: figure, baseline, ratio, target; printed as tables or kept as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.table import Table

Unit = Literal["s", "B", "share", "count"]

_SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "B": ((1e6, "MB"), (1e3, "kB"), (1.0, "B")),
}


@dataclass(frozen=True)
class Target:
    """What a row should reach.

    Attributes:
        of: `ratio` or `figure`.
        limit: the least ratio, or the figure to stay at or below.
    """

    of: Literal["ratio", "figure"]
    limit: float

    def text(self, unit: Unit) -> str:
        """The target as text."""
        if self.of == "figure":
            return f"≤ {show(self.limit, unit)}"
        return f"≥ {self.limit:g}x cheaper" if self.limit >= 1 else f"≤ {1 / self.limit:.3g}x dearer"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        group: what selects it on the command line.
        name: what was measured.
        figure: the median of all rounds, in `unit`.
        unit: of figure and baseline.
        against: what it is compared with.
        baseline: the median of that.
        ratio: baseline / figure, the median of the rounds: above 1 the figure is the cheaper one.
        fastest: the same of the fastest rounds: what load from elsewhere distorts least.
        spread: half of the interquartile range of the ratio (of the figure where there is none), as a share of it.
        target: what should be reached.
        note: anything else worth knowing.
    """

    group: str
    name: str
    figure: float
    unit: Unit
    against: str = ""
    baseline: float | None = None
    ratio: float | None = None
    fastest: float | None = None
    spread: float | None = None
    target: Target | None = None
    note: str = ""

    @property
    def least(self) -> float:
        """The less flattering of the two ratios; not a number without them."""
        return min((one for one in (self.ratio, self.fastest) if one is not None), default=math.nan)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        if self.target.of == "ratio":
            return self.least >= self.target.limit
        return self.figure <= self.target.limit


def show(value: float, unit: Unit) -> str:
    """A number with the unit that suits it.

    >>> show(0.0000142, "s"), show(0.0123, "share")
    ('14.2 µs', '1.23 %')
    """
    if unit == "share":
        return f"{value * 100:.2f} %"
    if unit == "count":
        return f"{value:g}"
    scales = _SCALES[unit]
    factor, name = next((scale for scale in scales if abs(value) >= scale[0]), scales[-1])
    return f"{_three_digits(value / factor)} {name}"


def show_ratio(ratio: float) -> str:
    """How many times cheaper or dearer."""
    if ratio >= 1:
        return f"{_three_digits(ratio)}x cheaper"
    return f"{_three_digits(1 / ratio)}x dearer"


def table_of(rows: Sequence[Row]) -> Table:
    """Every row."""
    table = Table(box=box.SIMPLE_HEAD, title="Figures, and their ratios to baselines measured alternately")
    for heading in ("row", "measured", "against"):
        table.add_column(heading, overflow="fold")
    for heading in ("figure", "baseline", "ratio", "±", "of the fastest"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    previous = ""
    for row in rows:
        table.add_row(
            "" if row.group == previous else row.group,
            row.name,
            row.against,
            show(row.figure, row.unit),
            "" if row.baseline is None else show(row.baseline, row.unit),
            "" if row.ratio is None else show_ratio(row.ratio),
            "" if row.spread is None else f"{row.spread * 100:.1f} %",
            "" if row.fastest is None else show_ratio(row.fastest),
            row.note,
        )
        previous = row.group
    return table


def targets_of(rows: Sequence[Row]) -> Table:
    """The rows that have a target, with what they reached."""
    table = Table(box=box.SIMPLE_HEAD, title="Targets")
    table.add_column("measured", overflow="fold")
    for heading in ("target", "reached", "met"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        if row.target is None:
            continue
        on_ratio = row.target.of == "ratio"
        reached = show_ratio(row.least) if on_ratio else show(row.figure, row.unit)
        name = f"{row.name}, against {row.against}" if on_ratio else row.name
        table.add_row(name, row.target.text(row.unit), reached, "[green]yes[/]" if row.met else "[red]no[/]")
    return table


def as_json(row: Row) -> dict[str, object]:
    """A row for a file."""
    return {**dataclasses.asdict(row), "met": row.met}


def _three_digits(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
