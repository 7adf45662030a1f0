"""A comparison in a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trackdsl.query import _shown
from trackdsl.query._changes import diff_line
from trackdsl.query._compared import ComparedRuns
from trackdsl.query._comparison_rows import (
    ShownRow,
    is_empty,
    not_compared,
    program_lines,
    rest,
    same_values,
    sections,
    shown_diffs,
)

#: Rows of stages in one kind, and rows of times.
_MOST, _MOST_TIMES = 40, 15


def text(comparison: ComparedRuns) -> Group:
    """A table of the differences, then the changes in the program; for two runs, with diffs of the source."""
    parts: list[RenderableType] = []
    if is_empty(comparison):
        parts.append(Text(f"No differences; {same_values(comparison)}"))
    table = _table(comparison)
    if table.row_count:
        parts.append(table)
    for label, changes in zip(comparison.labels[1:], comparison.changes, strict=False):
        lines = program_lines(changes)
        if lines:
            several = f" of {_shown.printable(label)}" if len(comparison.runs) > 2 else ""
            parts.append(Text(f"What changed in the program{several}", "bold"))
            parts += [Text(f"  {line}") for line in lines]
        if len(comparison.runs) == 2:
            for title, diff in shown_diffs(changes):
                parts.append(Text(_shown.printable(title), "bold"))
                parts += map(diff_line, diff)
    if note := not_compared(comparison):
        parts.append(Text(note))
    return Group(*parts)


def _table(comparison: ComparedRuns) -> Table:
    caption = "" if is_empty(comparison) else rest(comparison)
    table = Table(show_edge=False, pad_edge=False, caption=caption or None, caption_justify="left")
    table.add_column("", overflow="fold")
    for label in comparison.labels:
        table.add_column(Text(_shown.printable(label)), overflow="fold")
    for section in sections(comparison, _MOST, _MOST_TIMES):
        table.add_row(Text(section.kind, "bold"))
        for row in section.rows:
            table.add_row(Text(f"  {_shown.printable(row.name)}"), *_cells(row))
        if section.hidden:
            table.add_row(Text(f"  and {section.hidden:,} more; --json and --html have more", "italic"))
    return table


def _cells(row: ShownRow) -> list[Text]:
    return [
        Text.assemble(_shown.printable(cell), (f"  {delta}" if delta else "", "dim"))
        for cell, delta in zip(row.cells, row.deltas, strict=True)
    ]
