"""What the page's script draws, as JSON in the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trackdsl._core.escaping import printable
from trackdsl._core.readable import is_finite, number
from trackdsl.store_format.report.chart import ChartLayout
from trackdsl.store_format.report.curves import Chart, chart_data, rounded
from trackdsl.store_format.report.material import SYSTEM, Curve, Material

_LONGEST_NAME = 80
#: What would end the element around the data, or a line of a script.
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def page_data(chart: ChartLayout, charts: Sequence[Chart], material: Material) -> str:
    """The JSON, which is safe inside an element of a page.

    Args:
        chart: the timeline.
        charts: the curves.
        material: what the report shows.
    """
    return _json(_columns(chart, charts, material))


def _columns(chart: ChartLayout, charts: Sequence[Chart], material: Material) -> dict[str, Any]:
    """The data for the page's script: columns of numbers, because there may be thousands of runs."""
    texts: dict[str, int] = {}
    numbers = {bar.span.run.run_id: at for at, bar in enumerate(chart.bars)}
    parents = {child.run_id: bar.span.run.run_id for bar in chart.bars for child in bar.span.run.children}
    bars = chart.bars
    names = [texts.setdefault(printable(bar.span.run.name[:_LONGEST_NAME]), len(texts)) for bar in bars]
    lanes = [texts.setdefault(printable(bar.lane[:_LONGEST_NAME]), len(texts)) for bar in bars if len(chart.names) > 1]
    return {
        "length": chart.length,
        "names": list(texts),
        "lanes": [[printable(one.name[:_LONGEST_NAME]), one.y] for one in chart.names],
        "bars": {
            "height": chart.height,
            "bar": chart.row - 2,
            "name": names,
            "lane": lanes,
            "parent": [numbers.get(parents.get(bar.span.run.run_id, ""), -1) for bar in bars],
            "start": [bar.span.start - chart.first for bar in bars],
            "time": [bar.span.end - bar.span.start for bar in bars],
            "y": [bar.y for bar in bars],
            "state": "".join(bar.state for bar in bars),
            "critical": "".join("01"[bar.critical] for bar in bars),
        },
        "system": [_series(curve, chart.first) for curve in material.system],
        "charts": chart_data(charts),
    }


def _series(curve: Curve, first: int) -> Mapping[str, Any]:
    points = [(time - first, value) for _, value, time in curve.points if is_finite(value)]
    values = [rounded(value) for _, value in points]
    high = max(values, default=1.0)
    name = printable(curve.key.removeprefix(SYSTEM).replace("_", " ")[:_LONGEST_NAME])
    return {
        "label": f"{name}, peak {number(high)}",
        "times": [time for time, _ in points],
        "values": values,
        "low": min(0.0, *values) if values else 0.0,
        "high": 100.0 if "percentage" in curve.key and high <= 100 else high,
    }


def _json(data: Any) -> str:
    """JSON that is safe inside an element of a page."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for sign, escape in _ESCAPES.items():
        text = text.replace(sign, escape)
    return text
