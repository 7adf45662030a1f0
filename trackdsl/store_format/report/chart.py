"""The timeline of a report: bars in rows, one row for each level of each track."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trackdsl._core.escaping import markup
from trackdsl._core.readable import duration
from trackdsl.store_format.report.timeline import Process, Span

#: Users set it on a run whose result came from a cache of theirs.
CACHED_TAG = "trackdsl.cached"
_NO = ("", "0", "false", "no")
#: Bars that are drawn without scripts, and in print; the longest are chosen.
_MOST_STATIC = 400
#: In pixels: a row, the name of a lane, and the tallest chart; of a taller one, the rows are lower.
_ROW, _LANE, _TALLEST = 22, 18, 12_000
_LOWEST_ROW = 4
_STATES = {"FINISHED": "f", "FAILED": "x", "KILLED": "k", "RUNNING": "r", "SCHEDULED": "r"}


@dataclass(frozen=True)
class Bar:
    """A run in a chart.

    Attributes:
        span: the run.
        y: its distance from the top, in pixels.
        state: one letter: finished, failed (x), killed, running, cached.
        critical: whether it is on the critical path.
    """

    span: Span
    y: int
    state: str
    critical: bool


@dataclass(frozen=True)
class Lane:
    """The rows of one process, or of runs that ran at the same time there.

    Attributes:
        name: what it is called.
        y: its distance from the top, in pixels.
    """

    name: str
    y: int


@dataclass(frozen=True)
class ChartLayout:
    """A chart.

    Attributes:
        bars: its bars, in the order of the timeline.
        lanes: its lanes from the top; one that is alone has no name.
        height: in pixels.
        row: the height of a row, in pixels.
        first: when it begins, in milliseconds since 1970.
        length: in milliseconds, at least 1.
    """

    bars: Sequence[Bar]
    lanes: Sequence[Lane]
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
    depths = _depths(spans)
    rows: dict[tuple[Process, int], int] = {}
    for span, depth in zip(spans, depths, strict=True):
        lane = span.process, span.track
        rows[lane] = max(rows.get(lane, 0), depth + 1)
    heading = _LANE if len(rows) > 1 else 0
    row = max(_LOWEST_ROW, min(_ROW, (_TALLEST - heading * len(rows)) // max(1, sum(rows.values()))))
    # The tracks of a process stand together, in the order of their numbers.
    order = {process: number for number, process in enumerate(dict.fromkeys(span.process for span in spans))}
    top: dict[tuple[Process, int], int] = {}
    lanes: list[Lane] = []
    height = 0
    for process, track in sorted(rows, key=lambda lane: (order[lane[0]], lane[1])):
        lanes.append(Lane(process.name if not track else f"at the same time, {track + 1}", height))
        top[process, track] = height + heading
        height += heading + rows[process, track] * row
    bars = [
        Bar(
            span,
            top[span.process, span.track] + depth * row,
            state_of(span.run.status, span.run.tags),
            span.run.run_id in critical,
        )
        for span, depth in zip(spans, depths, strict=True)
    ]
    first = min((span.start for span in spans), default=0)
    length = max(1, max((span.end for span in spans), default=0) - first, until - first)
    return ChartLayout(bars, lanes, height, row, first, length)


def _depths(spans: Sequence[Span]) -> list[int]:
    """For each run, the number of runs of its track that it lies inside of."""
    open_: dict[tuple[Process, int], list[int]] = {}
    found = []
    for span in spans:
        around = open_.setdefault((span.process, span.track), [])
        while around and around[-1] <= span.start:
            around.pop()
        found.append(len(around))
        around.append(span.end)
    return found


def chart_html(chart: ChartLayout) -> str:
    """The chart without scripts; the page's script replaces it by one that can be zoomed."""
    shown = sorted(chart.bars, key=lambda bar: (bar.state != "x", bar.span.start - bar.span.end))[:_MOST_STATIC]
    parts = [f'<div class="bars"><div class="inner" style="height:{chart.height}px">']
    if len(chart.lanes) > 1:
        parts += [f'<div class="lane" style="top:{lane.y}px">{markup(lane.name[:80])}</div>' for lane in chart.lanes]
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
    name = markup(span.run.name[:60]) if width > 2 and chart.row > 12 else ""
    return (
        f'<div class="bar s-{bar.state}{" critical" if bar.critical else ""}" title="{markup(title[:300])}" '
        f'style="left:{left:.3f}%;width:{width:.3f}%;top:{bar.y}px;height:{chart.row - 2}px">{name}</div>'
    )


def _axis(length: int) -> str:
    ticks = "".join(f"<span>{markup(duration(length * part / 4000))}</span>" for part in range(5))
    return f'<div class="axis static-axis">{ticks}</div>'
