"""A comparison as a page, in the style of a report: see `trackdsl.store_format.report`. It has no scripts."""

from __future__ import annotations

from collections.abc import Iterator

from trackdsl._core.readable import is_finite
from trackdsl._core.version import __version__
from trackdsl.query import _shown
from trackdsl.query._changes import RunChanges
from trackdsl.query._compared import ComparedRuns
from trackdsl.query._comparison_rows import (
    OF_PROGRAM,
    ShownRow,
    ShownRows,
    not_compared,
    rest,
    same_values,
    sections,
    stage_names,
)
from trackdsl.query._parallel import axes_of, parallel_svg
from trackdsl.query._store import opened
from trackdsl.store_format.changes.compare import Changes
from trackdsl.store_format.changes.stored import Stored
from trackdsl.store_format.report.changes_section import changes_html
from trackdsl.store_format.report.curves import charts_html, charts_of
from trackdsl.store_format.report.material import SYSTEM, Curve
from trackdsl.store_format.report.node import Node
from trackdsl.store_format.report.page import page_frame
from trackdsl.store_format.report.sections import cut, table

#: Rows of stages in one kind, and rows of times.
_MOST, _MOST_TIMES = 300, 40
#: If there are more runs, times are a table only, and curves are those of the first ones.
_MOST_BARS, _MOST_WITH_CURVES = 6, 12
#: This many metrics of runs are read with their points.
_MOST_CURVES = 240


def page(comparison: ComparedRuns) -> str:
    """Write a comparison as a page of HTML."""
    shown = {one.kind: one for one in sections(comparison, _MOST, _MOST_TIMES)}
    tables = {
        kind: _table(shown[kind], comparison, numbers=kind in ("metrics", "time")) if kind in shown else ""
        for kind in ("params", "metrics", "stages", "time", "source", "tags")
    }
    bars = len(comparison.runs) <= _MOST_BARS and "time" in shown
    program, note = _program(comparison), not_compared(comparison)
    quiet = f'<p class="quiet">{note}</p>' if note else ""
    parts = [
        ("parameters", "Parameters that differ", tables["params"]),
        ("metrics", "Metrics", tables["metrics"]),
        ("plot", "Parallel coordinates", _plot(comparison)),
        ("curves", "Curves", _curves(comparison)),
        ("stages", "Stages that are new, missing, or ended with another status", tables["stages"]),
        ("time", "Time of each stage", _times(shown["time"], comparison) if bars else tables["time"]),
        ("program", "What changed in the program", program + quiet),
        ("source", "Source", tables["source"]),
        ("tags", "Tags", tables["tags"]),
    ]
    if not any(html for _, _, html in parts if html != quiet):
        parts.append(("same", "No differences", f"<p>{same_values(comparison)}</p>"))
    footer = (
        f"<footer>Made by trackdsl {_shown.markup(__version__)}. This page is one file, and loads nothing.</footer>"
    )
    return page_frame(f"{_title(comparison)}, compared", _header(comparison), parts, footer)


def _title(comparison: ComparedRuns) -> str:
    names = list(dict.fromkeys(cut(label, 60) for label in comparison.labels))
    return " and ".join(names) if len(names) < 3 else f"{len(names):,} runs"


def _header(comparison: ComparedRuns) -> str:
    whole = comparison.stages[0]
    rows = [
        (label, (status or "").lower(), _shown.duration(seconds), run_id)
        for label, run_id, status, seconds in zip(
            comparison.labels, comparison.runs, whole.statuses, whole.seconds, strict=True
        )
    ]
    listed = table(["run", "status", "time", "id"], rows[:_MOST], numbers={2})
    same = rest(comparison)
    notes = "Differences are from the first run." + (f" {same[0].upper()}{same[1:]}." if same else "")
    return (
        f"<header><h1>{_shown.markup(_title(comparison))}</h1>"
        f'<p class="quiet">{_shown.markup(notes)}</p>{listed}</header>'
    )


def _table(shown: ShownRows, comparison: ComparedRuns, *, numbers: bool) -> str:
    rows = [[cut(row.name, 160), *(cut(text, 200) for text in _texts(row))] for row in shown.rows]
    right = set(range(1, len(comparison.runs) + 1)) if numbers else None
    more = f'<p class="quiet">and {shown.hidden:,} more</p>' if shown.hidden else ""
    return table(["", *comparison.labels], rows, numbers=right) + more


def _texts(row: ShownRow) -> Iterator[str]:
    for cell, delta in zip(row.cells, row.deltas, strict=True):
        yield f"{cell} ({delta})" if delta else cell


def _plot(comparison: ComparedRuns) -> str:
    if len(comparison.runs) < 3:
        return ""
    axes = axes_of(comparison)
    return parallel_svg(comparison, axes) if len(axes) > 1 else ""


def _times(shown: ShownRows, comparison: ComparedRuns) -> str:
    """A bar for each run and stage."""
    names = stage_names(comparison.stages)
    seconds = dict(zip(names, (stage.seconds for stage in comparison.stages), strict=True))
    longest = max((one or 0.0 for row in shown.rows for one in seconds[row.name]), default=0.0) or 1.0
    parts = []
    for row in shown.rows:
        bars = "".join(
            f'<li><span class="part" style="width:{(took or 0.0) / longest * 100:.1f}%"></span>'
            f"<b>{_shown.markup(cut(label, 60))}</b><span>{_shown.markup(text)}</span></li>"
            for label, text, took in zip(comparison.labels, _texts(row), seconds[row.name], strict=True)
        )
        parts.append(f'<h3>{_shown.markup(cut(row.name, 160))}</h3><ol class="parts">{bars}</ol>')
    more = f'<p class="quiet">and {shown.hidden:,} more stages, whose times differ less</p>' if shown.hidden else ""
    return "".join(parts) + more


def _program(comparison: ComparedRuns) -> str:
    """What changed in each further run since the first: packages, source with diffs, the patch, datasets."""
    parts = []
    for label, changes in zip(comparison.labels[1:], comparison.changes, strict=False):
        html = changes_html(_stored(changes))
        if html:
            head = f"<h3>{_shown.markup(cut(label, 80))}</h3>" if len(comparison.runs) > 2 else ""
            parts.append(head + html)
    return "".join(parts)


def _stored(changes: RunChanges) -> Stored:
    """The part of `trackdsl/changes.json` that is about the program; parameters and metrics are on the page already."""
    of_program = tuple(one for one in changes.changes if one.kind in OF_PROGRAM)
    by = tuple(changes.parts_by)
    program_changes = Changes(of_program, parts_at=changes.parts_at, parts_by=by)
    return Stored(changes=program_changes, diffs=changes.diffs, unknown=tuple(changes.unknown))


def _curves(comparison: ComparedRuns) -> str:
    """The metrics of each stage with the curves of all runs over each other, where one of them has several points."""
    wanted = list(_wanted(comparison))[:_MOST_CURVES]
    if not wanted:
        return ""
    curves, several = [], set()
    with opened(comparison.tracking_uri) as reader:
        for key, metric, run_id, label in wanted:
            points = sorted((point.step, point.value, point.time) for point in reader.history(run_id, metric))
            if sum(is_finite(value) for _, value, _ in points) > 1:
                several.add(key)
            curves.append(Curve(_run(run_id, label), key, points, len(points)))
    drawn = [curve for curve in curves if curve.key in several and curve.points]
    return charts_html(charts_of(drawn, {})) if drawn else ""


def _wanted(comparison: ComparedRuns) -> Iterator[tuple[str, str, str, str]]:
    """For each chart: its title, the name of the metric, the run that has it, and the label of that run."""
    for name, stage in zip(stage_names(comparison.stages), comparison.stages, strict=True):
        for metric in stage.metrics:
            if metric.startswith(SYSTEM):
                continue
            shown = comparison.shown_name(metric)
            key = f"{name}: {shown}" if stage.path else shown
            for run_id, label in list(zip(stage.run_ids, comparison.labels, strict=True))[:_MOST_WITH_CURVES]:
                if run_id is not None:
                    yield key, metric, run_id, label


def _run(run_id: str, label: str) -> Node:
    return Node(run_id, label, "", None, None, {}, {}, {})
