"""The metric curves of a report: one chart for each metric, with the curves of all stages over each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trackdsl._core.escaping import markup
from trackdsl._core.readable import is_finite, number
from trackdsl.store_format.report.material import Curve, Point
from trackdsl.store_format.report.thinning import thinned

#: This many charts, and curves in one of them.
_MOST_CHARTS, _MOST_LINES = 36, 40
#: Points of all curves together, and of one at least.
_ALL_POINTS, _FEWEST = 9000, 20
_WIDTH, _HEIGHT = 600, 200
COLOURS = 8


@dataclass(frozen=True)
class Chart:
    """The curves of one metric.

    Attributes:
        key: the name of the metric.
        lines: the curves, with what each is called.
        steps: the first and the last step.
        low, high: of the finite values.
        hidden: how many curves are not shown.
    """

    key: str
    lines: Sequence[tuple[str, Curve]]
    steps: tuple[int, int]
    low: float
    high: float
    hidden: int


def charts_of(curves: Sequence[Curve], names: Mapping[str, str]) -> list[Chart]:
    """The charts: the metrics of most stages first.

    Args:
        curves: all curves.
        names: what each run is called, by its id.
    """
    by_key: dict[str, list[Curve]] = {}
    for curve in curves:
        by_key.setdefault(curve.key, []).append(curve)
    charts = []
    points = max(_FEWEST, _ALL_POINTS // max(1, min(len(curves), _MOST_CHARTS * _MOST_LINES)))
    for key, all_ in sorted(by_key.items(), key=lambda item: -len(item[1])):
        shown = [Curve(one.run, one.key, thinned(one.points, points), one.count) for one in all_[:_MOST_LINES]]
        values = [value for curve in shown for _, value, _ in curve.points if is_finite(value)]
        steps = [step for curve in shown for step, _, _ in curve.points]
        if values:
            lines = [(names.get(curve.run.run_id, curve.run.name), curve) for curve in shown]
            bounds = min(values), max(values)
            charts.append(Chart(key, lines, (min(steps), max(steps)), *bounds, len(all_) - len(shown)))
    return charts[:_MOST_CHARTS]


def charts_html(charts: Sequence[Chart]) -> str:
    """The charts without scripts; the page's script adds the values at the pointer."""
    return f'<div class="charts">{"".join(_chart(chart, at) for at, chart in enumerate(charts))}</div>'


def chart_data(charts: Sequence[Chart]) -> list[dict[str, Any]]:
    """The points for the page's script; None for what is infinite or not a number."""
    return [
        {
            "steps": chart.steps,
            "low": chart.low,
            "high": chart.high,
            "lines": [
                [name[:80], [step for step, _, _ in curve.points], [_plain(value) for _, value, _ in curve.points]]
                for name, curve in chart.lines
            ],
        }
        for chart in charts
    ]


def _chart(chart: Chart, at: int) -> str:
    paths = [
        f'<path class="line c{line % COLOURS}" d="{_path(curve.points, chart)}" vector-effect="non-scaling-stroke"/>'
        for line, (_, curve) in enumerate(chart.lines)
    ]
    legend = [
        f'<li><span class="swatch c{line % COLOURS}"></span>{markup(name[:120])} '
        f"<b>{markup(number(curve.points[-1][1]))}</b></li>"
        for line, (name, curve) in enumerate(chart.lines)
    ]
    more = f'<li class="quiet">and {chart.hidden:,} more</li>' if chart.hidden else ""
    return (
        f'<figure class="chart" data-chart="{at}"><figcaption><b>{markup(chart.key[:200])}</b></figcaption>'
        f'<div class="plot"><span class="high">{markup(number(chart.high))}</span>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{markup(chart.key[:200])} by step">{"".join(paths)}</svg>'
        f'<span class="low">{markup(number(chart.low))}</span></div>'
        f'<div class="axis"><span>step {chart.steps[0]:,}</span><span>{chart.steps[1]:,}</span></div>'
        f'<ul class="legend">{"".join(legend)}{more}</ul></figure>'
    )


def _path(points: Sequence[Point], chart: Chart) -> str:
    """A line through the points, with a gap where a value is infinite or not a number."""
    width = max(1, chart.steps[1] - chart.steps[0])
    parts, pen = [], "M"
    for step, value, _ in points:
        if not is_finite(value):
            pen = "M"
            continue
        x = (step - chart.steps[0]) / width * _WIDTH
        parts.append(f"{pen}{x:.0f} {_HEIGHT - share_of(value, chart.low, chart.high) * _HEIGHT:.0f}")
        pen = "L"
    return "".join(parts)


def share_of(value: float, low: float, high: float) -> float:
    """The position of a value between the lowest and the highest: 0 to 1; in the middle if they are equal."""
    # Half of each, because their difference may be larger than any number.
    size = high / 2 - low / 2
    return (value / 2 - low / 2) / size if size else 0.5


def rounded(value: float) -> float:
    """A number with five digits; the largest ones, which MLflow stores for infinity, would become infinite."""
    found = float(f"{value:.5g}")
    return found if math.isfinite(found) else value


def _plain(value: float) -> float | None:
    return rounded(value) if is_finite(value) else None


def system_html(curves: Sequence[Curve], first: int, length: int) -> str:
    """System metrics under the timeline, on the same axis.

    Args:
        curves: the metrics.
        first: when the timeline begins, in milliseconds since 1970.
        length: of the timeline, in milliseconds.
    """
    rows = []
    for curve in curves:
        values = [value for _, value, _ in curve.points if is_finite(value)]
        if not values:
            continue
        low, high = min(0.0, *values), max(values)
        high = 100.0 if "percentage" in curve.key and high <= 100 else high
        path = "L".join(
            f"{(time - first) / max(1, length) * _WIDTH:.0f} {38 - share_of(value, low, high) * 36:.0f}"
            for _, value, time in curve.points
            if is_finite(value)
        )
        name = curve.key.removeprefix("system/").replace("_", " ")
        rows.append(
            f'<div class="system"><span class="label">{markup(name[:60])} <b>{markup(number(values[-1]))}</b> '
            f'<span class="quiet">peak {markup(number(max(values)))}</span></span>'
            f'<svg viewBox="0 0 {_WIDTH} 40" preserveAspectRatio="none" role="img" aria-label="{markup(name[:60])}">'
            f'<path class="line c0" d="M{path}" vector-effect="non-scaling-stroke"/></svg></div>'
        )
    return f'<div class="systems">{"".join(rows)}</div>' if rows else ""
