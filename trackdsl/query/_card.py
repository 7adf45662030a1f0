"""The card of a run: what a notebook shows of it, while it runs and afterwards.

HTML and SVG with inline styles and without scripts, so that it looks the same in JupyterLab, VS Code, Colab and a saved
file. Colours are those of the page around it, or semi-transparent, so that they suit light and dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trackdsl.query._shown import FAILED, FINISHED, RUNNING, duration, markup, number, printable, shade
from trackdsl.query._sparkline import sparkline_svg, sparkline_text

_AMBER = "#b7791f"
#: How many are shown at most, and how many characters of each text.
_MOST_PARAMS, _MOST_METRICS, _MOST_WARNINGS, _MOST_DIFF = 24, 60, 6, 200
_LONGEST = 80
#: Rows of metrics beyond which they scroll.
_MOST_ROWS = 12
_ROW = 22


@dataclass(frozen=True)
class Param:
    """A parameter, and its value in the execution before, if it differs.

    Attributes:
        text: its value.
        before: the other value; None if it is the same or there was none.
    """

    text: str
    before: str | None = None


@dataclass(frozen=True)
class Curve:
    """The values of a metric.

    Attributes:
        values: its points, in the order of their steps, the last one last.
        before: its last value in the execution before; None if there was none.
    """

    values: Sequence[float]
    before: float | None = None


@dataclass(frozen=True)
class Progress:
    """The progress of a loop.

    Attributes:
        done: iterations that are over.
        total: all iterations; None if nobody knows.
        name: what an iteration is called.
    """

    done: int
    total: float | None = None
    name: str = "step"


@dataclass(frozen=True)
class Card:
    """The content of a run's card.

    Attributes:
        name: the run's name.
        status: its status.
        seconds: how long it has been running, or ran.
        params: its parameters.
        metrics: its metrics.
        progress: of the loop that runs, or that ran last.
        warnings: sentences about what is stale, left out, or waits.
        diff: lines of a unified diff of the code against the execution before, without its head.
        failure: the last line of its traceback.
        url: the address of MLflow's page of the run, once there is one.
        rows: for how many metrics there is room, so that the card stays as tall as it is when more of them come.
        lines: for how many warnings there is room of their own; later ones are shown above the metrics, in their room.
            None if there is room for all.
    """

    name: str
    status: str = "RUNNING"
    seconds: float | None = None
    params: Mapping[str, Param] = field(default_factory=dict)
    metrics: Mapping[str, Curve] = field(default_factory=dict)
    progress: Progress | None = None
    warnings: Sequence[str] = ()
    diff: Sequence[str] = ()
    failure: str | None = None
    url: str | None = None
    rows: int = 1
    lines: int | None = None


def card_html(card: Card) -> str:
    """The card as HTML. Whatever it shows is escaped and bounded."""
    warnings = [_line(f"⚠ {warning}", _AMBER) for warning in card.warnings[:_MOST_WARNINGS]]
    body = [_head(card), _params(card), _metrics(card, [] if card.lines is None else warnings[card.lines :])]
    body += warnings[: card.lines]
    if card.diff:
        body.append(_diff(card.diff))
    return (
        '<div style="font-family:system-ui,sans-serif;font-size:13px;line-height:1.5;max-width:760px;margin:4px 0;'
        'padding:6px 12px;border:1px solid rgba(128,128,128,.35);border-radius:6px">' + "".join(body) + "</div>"
    )


def card_text(card: Card) -> str:
    """The card as text, for a terminal and for front ends without HTML."""
    lines = [f"{_cut(card.name)}  {_cut(card.status, 20)}"]
    if card.seconds is not None:
        lines[0] += f"  {duration(card.seconds)}"
    if card.progress is not None:
        lines[0] += f"  {_progress_text(card.progress)}"
    if card.params:
        shown = [f"{_cut(name)}={_cut(param.text)}" for name, param in list(card.params.items())[:_MOST_PARAMS]]
        lines.append("  " + "  ".join(shown))
    for name, curve in list(card.metrics.items())[:_MOST_METRICS]:
        if curve.values:
            change = _change(curve)
            line = f"  {_cut(name)}  {number(curve.values[-1])}  {sparkline_text(curve.values)}  {change}"
            lines.append(line.rstrip())
    lines += [f"  ⚠ {_cut(warning, 200)}" for warning in card.warnings[:_MOST_WARNINGS]]
    if card.failure:
        lines.append(f"  {_cut(card.failure, 200)}")
    if card.url:
        lines.append(f"  {printable(card.url)}")
    return "\n".join(lines)


def _head(card: Card) -> str:
    dot = shade(card.status)
    parts = [
        f'<span style="color:{dot}" title="{_text(card.status, 20)}">●</span> <b>{_text(card.name)}</b>',
        f'<span style="opacity:.75">{_text(card.status.lower(), 20)}</span>',
    ]
    if card.seconds is not None:
        parts.append(f'<span style="opacity:.75">{markup(duration(card.seconds))}</span>')
    if card.progress is not None:
        parts.append(_bar(card.progress))
    if card.failure:
        parts.append(_line(card.failure, FAILED))
    if card.url and card.url.startswith(("http://", "https://")):
        target = 'target="_blank" rel="noopener noreferrer"'
        parts.append(f'<a href="{markup(card.url)}" {target} style="margin-left:auto;color:{RUNNING}">MLflow</a>')
    return (
        '<div style="display:flex;gap:12px;align-items:center;white-space:nowrap;overflow:hidden">'
        + "".join(
            part if part.startswith(("<a", "<div")) else f'<span style="flex:none">{part}</span>' for part in parts
        )
        + "</div>"
    )


def _bar(progress: Progress) -> str:
    bar = ""
    if progress.total and math.isfinite(progress.total):
        share = max(0.0, min(1.0, progress.done / progress.total))
        bar = (
            '<span style="display:inline-block;width:90px;height:7px;border-radius:4px;background:rgba(128,128,128,.3);'
            f'vertical-align:middle"><span style="display:block;width:{share * 100:.0f}%;height:7px;border-radius:4px;'
            f'background:{RUNNING}"></span></span> '
        )
    return f'{bar}<span style="opacity:.75">{_text(_progress_text(progress))}</span>'


def _progress_text(progress: Progress) -> str:
    total = f"/{progress.total:g}" if progress.total and math.isfinite(progress.total) else ""
    return f"{_cut(progress.name, 30)} {progress.done}{total}"


def _params(card: Card) -> str:
    """One line, so that the card is not taller when parameters come."""
    shown = []
    for name, param in list(card.params.items())[:_MOST_PARAMS]:
        text = f'<span style="opacity:.75">{_text(name)}</span> {_text(param.text)}'
        if param.before is not None:
            text += f' <span style="color:{_AMBER}">(was {_text(param.before, 40)})</span>'
        shown.append(text)
    if len(card.params) > _MOST_PARAMS:
        shown.append(f'<span style="opacity:.75">and {len(card.params) - _MOST_PARAMS} more</span>')
    return (
        f'<div style="height:{_ROW}px;overflow-x:auto;overflow-y:hidden;white-space:nowrap">'
        + " &nbsp; ".join(shown)
        + "</div>"
    )


def _metrics(card: Card, above: Sequence[str]) -> str:
    """The metrics in room that does not grow, below lines that came late."""
    room = min(max(card.rows, 1), _MOST_ROWS) * _ROW
    cell = f'style="padding:0 14px 0 0;height:{_ROW}px;border:0;text-align:left;white-space:nowrap"'
    rows = []
    for name, curve in list(card.metrics.items())[:_MOST_METRICS]:
        if curve.values:
            change = _change(curve)
            rows.append(
                f'<tr style="background:none"><td {cell}><span style="opacity:.75">{_text(name)}</span></td>'
                f"<td {cell}><b>{markup(number(curve.values[-1]))}</b></td>"
                f'<td {cell}><span style="opacity:.75">{markup(change)}</span></td>'
                f"<td {cell}>{sparkline_svg(curve.values)}</td></tr>"
            )
    table = (
        f'<table style="border-collapse:collapse;margin:0;font-size:13px;color:inherit">{"".join(rows)}</table>'
        if rows
        else ""
    )
    return f'<div style="height:{room}px;overflow:auto">{"".join(above)}{table}</div>'


def _change(curve: Curve) -> str:
    """The last value against that of the execution before."""
    if curve.before is None or not curve.values:
        return ""
    difference = curve.values[-1] - curve.before
    if difference == 0:
        return "="
    if not math.isfinite(difference):
        return f"was {number(curve.before)}"
    return f"{'▲ +' if difference > 0 else '▼ -'}{number(abs(difference))}"


def _diff(lines: Sequence[str]) -> str:
    colours = {"+": FINISHED, "-": FAILED}
    shown = []
    for line in lines[:_MOST_DIFF]:
        colour = colours.get(line[:1], "")
        style = f' style="color:{colour}"' if colour else ""
        shown.append(f"<span{style}>{_text(line, 200)}</span>")
    more = f"\n… {len(lines) - _MOST_DIFF} more lines" if len(lines) > _MOST_DIFF else ""
    added, removed = (sum(line.startswith(sign) for line in lines) for sign in "+-")
    return (
        '<details><summary style="cursor:pointer;opacity:.75">'
        f"code changed: +{added}, -{removed} lines</summary>"
        '<pre style="margin:4px 0;max-height:240px;overflow:auto;font-size:12px;background:rgba(128,128,128,.1);'
        'padding:6px;color:inherit">' + "\n".join(shown) + more + "</pre></details>"
    )


def _line(text: str, colour: str) -> str:
    style = f"color:{colour};overflow:hidden;text-overflow:ellipsis;white-space:nowrap"
    return f'<div style="{style}" title="{_text(text, 300)}">{_text(text, 300)}</div>'


def _text(text: str, most: int = _LONGEST) -> str:
    return markup(_cut(text, most))


def _cut(text: str, most: int = _LONGEST) -> str:
    return printable(text if len(text) <= most else f"{text[: most - 1]}…")
