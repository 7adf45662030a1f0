"""Writes the page of a report: its sections in order, its styles, its script and the data for the script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from trackdsl._core.escaping import markup
from trackdsl._core.readable import duration, moment, number
from trackdsl.store_format.report import sections
from trackdsl.store_format.report.changes_section import changes_html
from trackdsl.store_format.report.chart import ChartLayout, chart_html, layout, state_of
from trackdsl.store_format.report.critical_path import Step, critical_path
from trackdsl.store_format.report.curves import (
    charts_html,
    charts_of,
    system_html,
)
from trackdsl.store_format.report.files import ListedFile
from trackdsl.store_format.report.material import SYSTEM, Material
from trackdsl.store_format.report.node import RunNode, walk
from trackdsl.store_format.report.page_data import page_data
from trackdsl.store_format.report.renaming import with_original_names
from trackdsl.store_format.report.shortening import LENGTHS, shortened
from trackdsl.store_format.report.timeline import timeline
from trackdsl.store_format.report.tree_list import TreeList

#: In bytes; a page that would be larger shows fewer files and curves.
LARGEST = 1_950_000
#: In bytes: what the page may have without files and curves, if it would be too large with them.
_MOST_OF_THE_REST = 1_800_000
#: The smallest share of the files and curves that is shown; if there is room for less, none are shown.
_SMALLEST_SHARE = 0.005
_TOO_LARGE = "Some figures, tables and curves: the page would be too large."
#: In bytes: about what a file adds to the page besides its content, shown or named.
_WEIGHT_OF_A_FRAME = 1000
_MOST_TILES, _MOST_STEPS = 8, 12
#: How many names of a path are shown.
_DEEPEST = 8
_LONGEST_NAME, _LONGEST_PATH = 80, 400
_NUMBERS = re.compile(r"\d+")


def report_html(material: Material) -> str:
    """The page, smaller than `LARGEST` bytes.

    Args:
        material: what it shows.
    """
    material = with_original_names(material)
    page = _page(material)
    if _size(page) <= LARGEST:
        return page
    if material.files:
        with_files = _page(_with_fitting_files(material))
        if _size(with_files) <= LARGEST:
            return with_files
    # First without files and curves, which get the room that is left.
    short = material
    rest = _size(_page(_with_share(short, 0.0)))
    for lengths in LENGTHS:
        if rest <= _MOST_OF_THE_REST:
            break
        short = shortened(material, lengths)
        rest = _size(_page(_with_share(short, 0.0)))
    share = 1.0
    while share > _SMALLEST_SHARE:
        page = _page(_with_share(short, share) if share < 1.0 else short)
        if (size := _size(page)) <= LARGEST:
            return page
        share *= min(0.9, max(0.1, 0.9 * (LARGEST - rest) / (size - rest)))
    return _page(_with_share(short, 0.0))


def _with_fitting_files(material: Material) -> Material:
    """The material with those of its files for which there is room beside everything else; the others are named."""
    room = LARGEST - _size(_page(replace(material, files=[], left_out=[*material.left_out, _TOO_LARGE])))
    shown, listed = [], list(material.listed)
    for file in material.files:
        weight = file.weight * 11 // 10 + _WEIGHT_OF_A_FRAME
        if weight <= room:
            room -= weight
            shown.append(file)
        else:
            listed.append(ListedFile(file.run, file.path, file.size))
    return replace(material, files=shown, listed=listed, left_out=[*material.left_out, _TOO_LARGE])


def _with_share(material: Material, share: float) -> Material:
    """The material with only a share of its files and curves, the first ones."""
    return replace(
        material,
        files=material.files[: int(len(material.files) * share)],
        curves=material.curves[: int(len(material.curves) * share)],
        left_out=[*material.left_out, _TOO_LARGE] if material.files or material.curves else material.left_out,
    )


def _size(page: str) -> int:
    return len(page.encode("utf-8", "replace"))


def _page(material: Material) -> str:
    tree = material.tree
    latest: dict[str, int] = {}
    for curve in (*material.curves, *material.system):
        latest[curve.run.run_id] = max(latest.get(curve.run.run_id, 0), *(time for _, _, time in curve.points))
    spans = timeline(tree, latest, now=material.made)
    path = critical_path(spans)
    critical = {step.span.run.run_id for step in path}
    # The machine is sampled also after the last that a program recorded before it was killed.
    chart = layout(spans, critical, latest.get(tree.run_id, 0) if tree.status == "KILLED" else 0)
    names = _names(tree)
    charts = charts_of(material.curves, names)
    listed = TreeList({bar.span.run.run_id: at for at, bar in enumerate(chart.bars)}, critical)
    tree_html = listed.html(tree)
    parts = [
        ("changes", "What changed", changes_html(material.changes)),
        ("failures", "Failures", sections.failures_html(tree, names)),
        ("timeline", "Timeline", _timeline(chart, path, material)),
        ("tree", "Stages", _TREE_TOOLS + tree_html),
        ("metrics", "Metrics", charts_html(charts) if charts else ""),
        ("files", "Figures and tables", sections.files_html(material, names)),
        ("parameters", "Parameters", sections.params_html(tree)),
        ("code", "Code", sections.code_html(material)),
        ("environment", "Environment", sections.environment_html(material)),
        ("left-out", "Left out", sections.left_out_html(material, names, listed.hidden)),
    ]
    script = _text("report.js")
    return page_frame(
        f"{tree.name[:_LONGEST_NAME]}, report",
        _header(material),
        parts,
        _footer(material),
        after_links='<button id="theme" type="button" aria-label="Light or dark" title="Light or dark">◐</button>',
        data=page_data(chart, charts, material),
        script=script,
    )


def page_frame(
    title: str,
    header: str,
    parts: Sequence[tuple[str, str, str]],
    footer: str,
    *,
    after_links: str = "",
    data: str = "",
    script: str = "",
) -> str:
    """A page in the style of a report: one file, which loads nothing.

    Args:
        title: what the browser's tab shows, as text.
        header: markup.
        parts: id, title and markup of each section; those without markup are left out.
        footer: markup.
        after_links: markup after the links to the sections.
        data: JSON for the script, safe inside an element.
        script: the only script that can run; without it the page has none.
    """
    shown = [(id_, heading, html) for id_, heading, html in parts if html]
    links = "".join(f'<a href="#{id_}">{heading}</a>' for id_, heading, _ in shown)
    body = "".join(f'<section id="{id_}"><h2>{heading}</h2>{html}</section>' for id_, heading, html in shown)
    scripts = f'<script type="application/json" id="data">{data}</script><script>{script}</script>' if script else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{_policy(script)}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{markup(title)}</title><style>{_text('report.css')}</style></head><body>"
        f'{header}<nav aria-label="Sections"><div><span class="links">{links}</span>{after_links}</div></nav>'
        f"<main>{body}</main>{footer}"
        f"{scripts}</body></html>\n"
    )


def _policy(script: str) -> str:
    """Only the page's own script runs, and nothing is loaded from anywhere, whatever the page contains."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"script-src 'sha256-{digest}'; " if script else ""
    policy = (
        f"default-src 'none'; {scripts}style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{policy}">'


def _header(material: Material) -> str:
    tree = material.tree
    runs = list(walk(tree))
    counts = Counter(run.status for run in runs)
    facts = [f"experiment {material.experiment}"] if material.experiment else []
    facts += [f"began {(tree.start or '')[:19].replace('T', ' ')} UTC"] if tree.start else []
    facts.append(f"{len(runs):,} {'run' if len(runs) == 1 else 'runs'}")
    facts += [f"{counts[status]:,} {status.lower()}" for status in ("FAILED", "KILLED", "RUNNING") if counts[status]]
    state = state_of(tree.status, tree.tags)
    metrics = [(key, value) for key, value in sorted(tree.metrics.items()) if not key.startswith(SYSTEM)]
    tiles = [("time", duration(tree.duration)), *((key, number(value)) for key, value in metrics[:_MOST_TILES])]
    shown = "".join(
        f'<div class="tile"><span title="{markup(key[:200])}">{markup(key[:200])}</span><b>{markup(text)}</b></div>'
        for key, text in tiles
    )
    return (
        f'<header><h1>{markup(tree.name[:300]) or "unnamed"}</h1><span class="status s-{state}">'
        f'{markup(tree.status.lower())}</span><p class="quiet">{markup(" · ".join(facts))}</p>'
        f'<div class="tiles">{shown}</div></header>'
    )


def _footer(material: Material) -> str:
    made = (moment(material.made) or "")[:16].replace("T", " ")
    return (
        f"<footer>Made by trackdsl {markup(material.version)}{f' on {made} UTC' if material.made else ''}. "
        "This page is one file, and loads nothing.</footer>"
    )


_TREE_TOOLS = (
    '<div class="tools"><input id="search" type="search" placeholder="Filter the stages ( / )" '
    'aria-label="Filter the stages"><button id="open-all" type="button">Open all</button>'
    '<button id="close-all" type="button">Fold all</button></div>'
)
_TIMELINE_TOOLS = (
    '<div class="tools"><button id="zoom-in" type="button" aria-label="Zoom in">+</button>'
    '<button id="zoom-out" type="button" aria-label="Zoom out">&minus;</button>'
    '<button id="zoom-all" type="button">Whole</button><span class="quiet">Drag to move, Ctrl and wheel or + and - to '
    "zoom, double-click for one stage, click to find it below</span></div>"
)
_KEY = {
    "critical": "critical path",
    "f": "other stages",
    "x": "failed",
    "k": "killed",
    "c": "from the cache",
}


def _timeline(chart: ChartLayout, path: Sequence[Step], material: Material) -> str:
    if not chart.bars:
        return ""
    states = {bar.state for bar in chart.bars} | {"critical"}
    key = "".join(f'<li><i class="k-{state}"></i>{text}</li>' for state, text in _KEY.items() if state in states)
    systems = system_html(material.system, chart.first, chart.length)
    return (
        f'{_TIMELINE_TOOLS}<div class="timeline"><div class="view" id="timeline-view" tabindex="0" role="group" '
        f'aria-label="Timeline; the stages are listed below"></div>{chart_html(chart)}'
        f'<div class="tip" id="tip" hidden></div></div><ul class="key">{key}</ul>'
        f'<div class="static-axis-block">{systems}</div>{_where_time_went(path)}'
    )


def _where_time_went(steps: Sequence[Step]) -> str:
    """The stages on the critical path that took longest themselves; those that differ in numbers only are added up."""
    own: dict[str, tuple[int, int, str]] = {}
    for step in steps:
        path = step.span.path[1:]
        shown = [name[:_LONGEST_NAME] for name in path[-_DEEPEST:]]
        name = " / ".join(["…", *shown] if len(path) > _DEEPEST else shown) or f"{step.span.run.name} itself"
        stem = _NUMBERS.sub("#", name)
        time, count, first = own.get(stem, (0, 0, name))
        own[stem] = time + step.own, count + 1, first if first == name else stem
    whole = max(1, sum(time for time, _, _ in own.values()))
    ordered = sorted(own.values(), key=lambda item: -item[0])[:_MOST_STEPS]
    rows = [(name, count, time, 100 * time / whole) for time, count, name in ordered if 100 * time >= whole]
    if len(rows) < 2:
        return ""
    items = "".join(
        f'<li><span class="part" style="width:{share:.1f}%"></span><b>{markup(sections.cut(name, 120))}</b>'
        f"{f' &times; {count:,}' if count > 1 else ''}<span>{duration(time / 1000)}, {share:.0f} %</span></li>"
        for name, count, time, share in rows
    )
    return f'<h3 class="path">Where the time went, along the critical path</h3><ol class="parts">{items}</ol>'


def _names(tree: RunNode) -> dict[str, str]:
    """The label of each run on the page: the names from below the root to it, numbered if several are the same."""
    found: dict[str, str] = {tree.run_id: tree.name}
    waiting: list[tuple[RunNode, str]] = [(tree, "")]
    while waiting:
        run, above = waiting.pop()
        for child in run.children:
            name = f"{above}{child.name[:_LONGEST_NAME]}"
            found[child.run_id] = name
            waiting.append((child, f"{name if len(name) <= _LONGEST_PATH else f'…{name[-_LONGEST_PATH:]}'} / "))
    counts, seen = Counter(found.values()), Counter[str]()
    for run_id, name in found.items():
        if counts[name] > 1:
            seen[name] += 1
            found[run_id] = f"{name} #{seen[name]}"
    return found


@cache
def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
