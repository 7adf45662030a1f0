"""Parallel coordinates: an axis for each parameter and metric that differs, and a line for each run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trackdsl._core.readable import is_finite
from trackdsl.query import _shown
from trackdsl.query._compared import ComparedRuns, Difference
from trackdsl.query._comparison_rows import stage_names

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_MOST_AXES, _MOST_LINES, _MOST_TEXTS = 14, 200, 20
#: An axis is logarithmic if the highest of its values is at least this many times the lowest.
_LOGARITHMIC = 100.0
_APART, _HEIGHT, _MARGIN, _TOP = 130, 220, 66, 34
#: Colours that can be read on light and dark pages.
COLOURS = ("#3b82c4", "#d9772b", "#2e9e5b", "#c2559a", "#8468d6", "#1797a6", "#a58718", "#d64545")
#: Where a run without a value is, below the axis.
_MISSING = -0.12


@dataclass(frozen=True)
class Axis:
    """One axis of parallel coordinates.

    Attributes:
        name: the parameter or metric.
        positions: where each run is, from 0 at the bottom to 1; None if it has no value.
        ticks: positions with their texts.
    """

    name: str
    positions: tuple[float | None, ...]
    ticks: tuple[tuple[float, str], ...]


def axes_of(comparison: ComparedRuns) -> list[Axis]:
    """The axes: parameters, then metrics; those of the runs themselves before those of stages.

    Texts that have too many different values have no axis.
    """
    names = stage_names(comparison.stages)
    named = [(comparison.shown_name(one.name), one) for one in comparison]
    for name, stage in zip(names, comparison.stages, strict=True):
        named += [(f"{name}: {comparison.shown_name(one.name)}", one) for one in stage.differences]
    by_kind = []
    for kind in ("params", "metrics"):
        axes: dict[tuple[float | None, ...], Axis] = {}
        for name, one in named:
            # A parameter that the stages take from the run is one axis.
            if one.kind == kind and one.differs and (axis := _axis(name, one)):
                axes.setdefault(axis.positions, axis)
        by_kind.append(list(axes.values()))
    params, metrics = by_kind
    # Metrics are what the parameters are judged by, so they keep half of the axes.
    return (
        params[: max(_MOST_AXES // 2, _MOST_AXES - len(metrics))]
        + metrics[: max(_MOST_AXES // 2, _MOST_AXES - len(params))]
    )


def _axis(name: str, one: Difference) -> Axis | None:
    numbers = [_number(value) for value in one.values]
    if all(value is None or number is not None for value, number in zip(one.values, numbers, strict=True)):
        finite = [number for number in numbers if number is not None and is_finite(number)]
        return _scale(name, numbers, finite) if finite else None
    texts = list(dict.fromkeys(str(value) for value in one.values if value is not None))
    if len(texts) > _MOST_TEXTS:
        return None
    at = {text: number / max(1, len(texts) - 1) for number, text in enumerate(texts)}
    positions = tuple(None if value is None else at[str(value)] for value in one.values)
    return Axis(name, positions, tuple((position, text) for text, position in at.items()))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _scale(name: str, numbers: Sequence[float | None], finite: Sequence[float]) -> Axis:
    low, high = min(finite), max(finite)
    logarithmic = low > 0 and high / low >= _LOGARITHMIC
    # Half of each, because their difference may be larger than any number.
    scaled = math.log if logarithmic else (lambda number: number / 2)
    first, size = scaled(low), scaled(high) - scaled(low)
    positions = tuple(
        None if number is None or not is_finite(number) else (scaled(number) - first) / size if size else 0.5
        for number in numbers
    )
    if not size:
        return Axis(name, positions, ((0.5, _shown.number(low)),))
    return Axis(name, positions, ((0.0, _shown.number(low)), (1.0, _shown.number(high))))


def parallel_svg(comparison: ComparedRuns, axes: Sequence[Axis]) -> str:
    """The plot as an SVG without scripts, in the colour of the text around it."""
    width, height = _APART * (len(axes) - 1) + 2 * _MARGIN, _HEIGHT + _TOP + 40
    parts = [
        f'<div style="overflow-x:auto"><svg viewBox="0 0 {width} {height}" role="img" '
        'aria-label="Parallel coordinates" style="font:11px system-ui,sans-serif;width:100%;'
        f'min-width:{width * 7 // 10}px;max-width:{width}px">'
    ]
    parts += [_line(at, comparison, axes) for at in range(min(len(comparison.runs), _MOST_LINES))]
    parts += [_axis_svg(at, axis) for at, axis in enumerate(axes)]
    parts.append("</svg></div>")
    if len(comparison.runs) <= len(COLOURS):
        parts.append(_legend(comparison))
    if len(comparison.runs) > _MOST_LINES:
        parts.append(f"<p>{len(comparison.runs) - _MOST_LINES:,} more runs are not drawn.</p>")
    return "".join(parts)


def _line(at: int, comparison: ComparedRuns, axes: Sequence[Axis]) -> str:
    path, pen = [], "M"
    for number, axis in enumerate(axes):
        position = axis.positions[at]
        if position is None:
            pen = "M"
            continue
        path.append(f"{pen}{_MARGIN + number * _APART} {_y(position):.1f}")
        pen = "L"
    label = _shown.markup(comparison.labels[at][:120])
    return (
        f'<path d="{"".join(path)}" fill="none" stroke="{COLOURS[at % len(COLOURS)]}" stroke-width="2" '
        f'stroke-opacity=".8" stroke-linejoin="round"><title>{label}</title></path>'
    )


def _legend(comparison: ComparedRuns) -> str:
    named = (
        f'<span style="display:inline-block;margin-right:16px"><span style="color:{colour}">&#9644;</span> '
        f"{_shown.markup(label[:80])}</span>"
        for colour, label in zip(COLOURS, comparison.labels, strict=False)
    )
    return f"<p>{' '.join(named)}</p>"


def _y(position: float) -> float:
    return _TOP + (1 - position) * _HEIGHT


def _axis_svg(at: int, axis: Axis) -> str:
    x = _MARGIN + at * _APART
    ticks = "".join(
        f'<text x="{x + 5}" y="{_y(position) + (12 if not position else -4 if position == 1 else 4):.1f}" '
        f'fill="currentColor" fill-opacity=".75">{_shown.markup(_brief(text, 14))}</text>'
        for position, text in axis.ticks
    )
    return (
        f'<line x1="{x}" x2="{x}" y1="{_TOP}" y2="{_TOP + _HEIGHT}" stroke="currentColor" stroke-opacity=".45"/>{ticks}'
        f'<text x="{x}" y="{_TOP + _HEIGHT + 32}" text-anchor="middle" fill="currentColor" font-weight="600">'
        f"<title>{_shown.markup(axis.name[:200])}</title>{_shown.markup(_brief(axis.name, 20))}</text>"
    )


def _brief(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"…{text[1 - longest :]}"


def figure(comparison: ComparedRuns) -> Figure:
    """The plot as a figure of plotly, in which axes can be moved and parts of them chosen."""
    try:
        from plotly import graph_objects
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "this plot needs plotly: `pip install 'trackdsl[plotly]'`. The page of to_html() has one without it.",
            name="plotly",
        ) from None
    dimensions = []
    for axis in axes_of(comparison):
        missing = None in axis.positions
        ticks = [*axis.ticks, *([(_MISSING, "none")] if missing else [])]
        dimensions.append(
            {
                # In titles, plotly takes a part of HTML for markup.
                "label": _shown.markup(_brief(axis.name, 30)),
                "values": [_MISSING if position is None else position for position in axis.positions],
                "range": [_MISSING if missing else 0, 1],
                "tickvals": [position for position, _ in ticks],
                "ticktext": [_shown.printable(_brief(text, 30)) for _, text in ticks],
            }
        )
    colours = dimensions[-1]["values"] if dimensions else [0.0] * len(comparison.runs)
    lines = graph_objects.Parcoords(dimensions=dimensions, line={"color": colours, "colorscale": "Viridis"})
    return graph_objects.Figure(lines)
