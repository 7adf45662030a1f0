"""What delivery costs beside others: a table, a plot and a file of the figures."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from html import escape
from pathlib import Path

from delivery_rows import DURABILITY, SQLITE, Comparison
from figures import as_json, show
from rich import box
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
_WIDTH, _NAMES, _LINE = 760, 230, 22
_COLORS = {"run": "#2a6f97", "point": "#e09f3e"}


def comparison_table(found: Comparison) -> Table:
    """Every subject: seconds of a run and of a point, how many times ours, memory, and what is safe."""
    title = f"{found.runs:,} nested runs (8 parameters, 5 metrics) and {found.points:,} points, delivered"
    table = Table(box=box.SIMPLE_HEAD, title=title, width=80, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold", ratio=1)
    for heading in ("a run", "x", "a point", "x", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, (run, point, peak) in _medians(found).items():
        table.add_row(
            f"[bold]{name}[/]{' (elapsed)' if found.costs[name].elapsed else ''}\n[dim]{DURABILITY[name]}[/]",
            show(run, "s"), _times(found, name, "run"), show(point, "s"), _times(found, name, "point"), show(peak, "B"),
        )  # fmt: skip
    table.caption = "Processor time, but elapsed time where servers work. x: as a multiple of trackdsl on SQLite. " + (
        f"Left out: {'; '.join(found.left_out)}." if found.left_out else ""
    )
    return table


def write_results(found: Comparison, machine: str, folder: Path = RESULTS) -> list[Path]:
    """Write the figures and the plot; returns the files."""
    folder.mkdir(exist_ok=True)
    figures = {
        "machine": machine,
        "runs": found.runs,
        "points": found.points,
        "left_out": found.left_out,
        "subjects": {
            name: {**dataclasses.asdict(cost), "durability": DURABILITY[name]} for name, cost in found.costs.items()
        },
        "rows": [as_json(row) for row in found.rows],
    }
    data, plot = folder / "delivery.json", folder / "delivery.svg"
    data.write_text(json.dumps(figures, indent=1) + "\n")
    plot.write_text(_plot(found))
    return [data, plot]


def _medians(found: Comparison) -> dict[str, tuple[float, float, float]]:
    """Seconds of a run and of a point, and memory, of each subject, ours first."""
    return {
        name: (statistics.median(cost.run), statistics.median(cost.point), statistics.median(cost.peak))
        for name in DURABILITY
        if (cost := found.costs.get(name)) is not None
    }


def _times(found: Comparison, name: str, what: str) -> str:
    ratio = statistics.median(getattr(found.costs[name], what)) / statistics.median(getattr(found.costs[SQLITE], what))
    return f"{ratio:.3g}"


def _plot(found: Comparison) -> str:
    """Bars on a logarithmic scale: a run and a point of each subject."""
    medians = _medians(found)
    values = [value for run, point, _ in medians.values() for value in (run, point)]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    room = _WIDTH - _NAMES - 100

    def x(value: float) -> float:
        return _NAMES + room * (math.log10(value) - low) / (high - low)

    height = 50 + 2 * _LINE * len(medians)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="12" role="img" aria-label="What a run and a metric point cost">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="10" y="18" font-weight="bold">Time of a run (8 parameters, 5 metrics) and of a point; '
        f"{found.runs:,} runs, {found.points:,} points</text>",
    ]
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<path d="M{at:.0f} 40V{height - 6}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.0f}" y="36" text-anchor="middle" fill="#777">{_power(power)}</text>')
    for number, (name, (run, point, _)) in enumerate(medians.items()):
        top = 48 + number * 2 * _LINE
        weight = ' font-weight="bold"' if name.startswith("trackdsl") else ""
        parts.append(f'<text x="10" y="{top + 18}"{weight}>{escape(name)}</text>')
        for line, (what, value) in enumerate((("run", run), ("point", point))):
            y = top + line * (_LINE - 4)
            parts.append(
                f'<rect x="{_NAMES}" y="{y}" width="{x(value) - _NAMES:.1f}" height="14" fill="{_COLORS[what]}"/>'
                f'<text x="{x(value) + 4:.1f}" y="{y + 11}">{what}: {show(value, "s")}</text>'
            )
    return "\n".join([*parts, "</svg>", ""])


def _power(power: int) -> str:
    return show(10.0**power, "s").replace(".00", "").replace(".0", "")
