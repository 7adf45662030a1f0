"""The timeline of a report: bars in rows, below the names of the threads and tasks that they ran in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trackdsl._core.escaping import markup
from trackdsl._core.readable import duration
from trackdsl.store_format.report.lanes import headings_of, labels_of
from trackdsl.store_format.report.timeline import Lane, Span

#: Users set it on a run whose result came from a cache of theirs.
CACHED_TAG = "trackdsl.cached"
_NO = ("", "0", "false", "no")
#: Bars that are drawn without scripts, and in print; the longest are chosen.
_MOST_STATIC = 400
#: In pixels: a row, a name above rows, and the tallest chart: if it would be taller, its rows are made lower.
_ROW, _NAME, _TALLEST = 22, 18, 12_000
_LOWEST_ROW = 4
_LONGEST_LANE = 80
_STATES = {"FINISHED": "f", "FAILED": "x", "KILLED": "k", "RUNNING": "r", "SCHEDULED": "r"}


@dataclass(frozen=True)
class Bar:
    """A run in a chart.

    Attributes:
        span: the run.
        y: its distance from the top, in pixels.
        state: one letter: finished, failed (x), killed, running, cached.
        critical: whether it is on the critical path.
        lane: the name of its thread or task.
    """

    span: Span
    y: int
    state: str
    critical: bool
    lane: str


@dataclass(frozen=True)
class Name:
    """What the rows below it are called.

    Attributes:
        name: the thread or task, or how many there are.
        y: its distance from the top, in pixels.
    """

    name: str
    y: int


@dataclass(frozen=True)
class ChartLayout:
    """A chart.

    Attributes:
        bars: its bars, in the order of the timeline.
        names: those of its rows from the top; one that is alone is not shown.
        height: in pixels.
        row: the height of a row, in pixels.
        first: when it begins, in milliseconds since 1970.
        length: in milliseconds, at least 1.
    """

    bars: Sequence[Bar]
    names: Sequence[Name]
    height: int
    row: int
    first: int
    length: int


def state_of(status: str, tags: Mapping[str, str]) -> str:
    """The state of a run as one letter; see `Bar`."""
    if status == "FINISHED" and tags.get(CACHED_TAG, "").lower() not in _NO:
        return "c"
    return _STATES.get(status, "k")


def layout(spans: Sequence[Span], critical: set[str], until: int = 0) -> ChartLayout:
    """The positions of a timeline's runs in the chart.

    Args:
        spans: the runs, from `timeline`.
        critical: the ids of those on the critical path.
        until: when the chart ends at the earliest, in milliseconds since 1970.
    """
    labels = labels_of(spans)
    headings = headings_of(spans, labels)
    levels = {id(block): max(track.levels for track in block) for heading in headings for block in heading.blocks}
    above = _NAME if len(headings) > 1 else 0
    row = max(_LOWEST_ROW, min(_ROW, (_TALLEST - above * len(headings)) // max(1, sum(levels.values()))))
    top: dict[tuple[Lane, int], int] = {}
    names: list[Name] = []
    height = 0
    for heading in headings:
        names.append(Name(heading.name, height))
        height += above
        for block in heading.blocks:
            top |= {(track.lane, track.number): height for track in block}
            height += levels[id(block)] * row
    bars = [
        Bar(
            span,
            top[span.lane, span.track] + span.depth * row,
            state_of(span.run.status, span.run.tags),
            span.run.run_id in critical,
            labels[span.lane],
        )
        for span in spans
    ]
    first = min((span.start for span in spans), default=0)
    length = max(1, max((span.end for span in spans), default=0) - first, until - first)
    return ChartLayout(bars, names, height, row, first, length)


def chart_html(chart: ChartLayout) -> str:
    """The chart without scripts; the page's script replaces it by one that can be zoomed."""
    shown = sorted(chart.bars, key=lambda bar: (bar.state != "x", bar.span.start - bar.span.end))[:_MOST_STATIC]
    parts = [f'<div class="bars"><div class="inner" style="height:{chart.height}px">']
    if len(chart.names) > 1:
        parts += [
            f'<div class="lane" style="top:{one.y}px">{markup(one.name[:_LONGEST_LANE])}</div>' for one in chart.names
        ]
    parts += [_bar(bar, chart) for bar in sorted(shown, key=lambda bar: bar.y)]
    parts.append("</div></div>" + _axis(chart.length))
    if len(chart.bars) > len(shown):
        left_out = len(chart.bars) - len(shown)
        parts.append(f'<p class="quiet static-axis">The {left_out:,} shortest runs are not drawn here.</p>')
    return "".join(parts)


def _bar(bar: Bar, chart: ChartLayout) -> str:
    span = bar.span
    left, width = (span.start - chart.first) / chart.length * 100, (span.end - span.start) / chart.length * 100
    title = f"{' / '.join(span.path)}, {duration((span.end - span.start) / 1000)}, {span.run.status.lower()}"
    where = f", in {bar.lane[:_LONGEST_LANE]}" if len(chart.names) > 1 else ""
    name = markup(span.run.name[:60]) if width > 2 and chart.row > 12 else ""
    return (
        f'<div class="bar s-{bar.state}{" critical" if bar.critical else ""}" title="{markup(title[:300] + where)}" '
        f'style="left:{left:.3f}%;width:{width:.3f}%;top:{bar.y}px;height:{chart.row - 2}px">{name}</div>'
    )


def _axis(length: int) -> str:
    ticks = "".join(f"<span>{markup(duration(length * part / 4000))}</span>" for part in range(5))
    return f'<div class="axis static-axis">{ticks}</div>'
