"""A comparison in a notebook. Styles are inline: a notebook that is not trusted has no style sheets."""

from __future__ import annotations

from trackdsl.query._compared import ComparedRuns
from trackdsl.query._comparison_rows import (
    is_empty,
    not_compared,
    program_lines,
    rest,
    same_values,
    sections,
    shown_diffs,
)
from trackdsl.query._parallel import axes_of, parallel_svg
from trackdsl.query._shown import markup
from trackdsl.store_format.report.sections import cut

_MOST, _MOST_TIMES = 60, 20
#: Longer texts are broken anywhere: else the cells next to them would be out of sight.
_MOST_UNBROKEN = 40


def notebook_html(comparison: ComparedRuns) -> str:
    """The table of differences, of more than two runs a plot, and what changed in the program, folded."""
    head = "".join(f"<th>{markup(label)}</th>" for label in comparison.labels)
    rows = []
    for section in sections(comparison, _MOST, _MOST_TIMES):
        for row in section.rows:
            cells = "".join(
                f"{_cell(cell)}{markup(cell)}{f' <small>{markup(delta)}</small>' if delta else ''}</td>"
                for cell, delta in zip(row.cells, row.deltas, strict=True)
            )
            rows.append(f"<tr><td>{section.kind}</td>{_cell(row.name)}{markup(cut(row.name, 160))}</td>{cells}</tr>")
        if section.hidden:
            rows.append(f"<tr><td>{section.kind}</td><td>and {section.hidden:,} more</td></tr>")
    none = f"<p>No differences; {same_values(comparison)}</p>" if is_empty(comparison) else ""
    table = f"<table><thead><tr><th></th><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    axes = axes_of(comparison) if len(comparison.runs) > 2 else []
    plot = parallel_svg(comparison, axes) if len(axes) > 1 else ""
    left = f"<p>{rest(comparison)}</p>" if not none and comparison.same else ""
    return f"{none}{table if rows else ''}{left}{plot}{_program(comparison)}"


def _cell(text: str) -> str:
    """The tag that begins a cell with a text."""
    return "<td>" if len(text) <= _MOST_UNBROKEN else '<td style="overflow-wrap:anywhere;min-width:8em">'


def _program(comparison: ComparedRuns) -> str:
    parts = []
    for label, changes in zip(comparison.labels[1:], comparison.changes, strict=False):
        lines = "".join(f"<li>{markup(line)}</li>" for line in program_lines(changes))
        diffs = "".join(
            f"<details><summary>{markup(title)}</summary><pre>{'<br>'.join(map(markup, diff))}</pre></details>"
            for title, diff in shown_diffs(changes)
        )
        if lines:
            several = f" of {markup(label)}" if len(comparison.runs) > 2 else ""
            parts.append(
                f'<details><summary style="cursor:pointer">What changed in the program{several}</summary>'
                f"<ul>{lines}</ul>{diffs}</details>"
            )
    if note := not_compared(comparison):
        parts.append(f"<p>{note}</p>")
    return "".join(parts)
