"""The folding tree of a report. Many runs of one kind are a group: how many, how long, and only some of them singly."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from trackdsl._core.escaping import markup
from trackdsl._core.readable import duration, number
from trackdsl.store_format.report.chart import state_of
from trackdsl.store_format.report.material import SYSTEM
from trackdsl.store_format.report.node import RunNode, walk

#: This many siblings of one kind become a group.
_MANY = 12
#: How many failed runs, how many slow ones, and how many of the others are listed for a group.
_FAILED, _SLOWEST, _OTHERS = 20, 10, 30
#: How many runs are listed in all, and how many of them with parameters and metrics.
_MOST_ROWS, _MOST_DETAILED = 1500, 400
#: Metrics next to a name; parameters and metrics of one run.
_METRICS, _VALUES = 4, 60
_LONGEST = 300
_NUMBERS = re.compile(r"\d+")
MARKS = {
    "f": ("✓", "finished"),
    "x": ("✕", "failed"),
    "k": ("■", "killed"),
    "r": ("▸", "running"),
    "c": ("↺", "from the cache"),
}


@dataclass
class TreeList:
    """The list, and what is not in it.

    Attributes:
        numbers: the number of each run, by its id, which links it with its bar in the timeline.
        critical: the ids of the runs on the critical path.
        whole: the seconds of the root run.
        hidden: how many runs are not listed singly.
        rows: how many are.
        wrong: how many of a run and those below it failed or were killed, by its id.
    """

    numbers: Mapping[str, int]
    critical: set[str]
    whole: float = 0.0
    hidden: int = 0
    rows: int = 0
    wrong: dict[str, int] = field(default_factory=dict)

    def html(self, tree: RunNode) -> str:
        """The list of a tree."""
        self.whole = tree.duration or max((run.duration or 0.0 for run in walk(tree)), default=0.0)
        for run in reversed(list(walk(tree))):
            wrong = (run.status in ("FAILED", "KILLED")) + sum(self.wrong.get(one.run_id, 0) for one in run.children)
            if wrong:
                self.wrong[run.run_id] = wrong
        parts = ['<div class="tree" id="tree-list">']
        waiting: list[RunNode | str | tuple[str, list[RunNode]]] = [tree]
        while waiting:
            item = waiting.pop()
            if isinstance(item, str):
                parts.append(item)
            elif isinstance(item, tuple):
                parts.append(self._group_head(*item))
                waiting += ["</div></details>", *reversed(self._chosen(item[1]))]
            elif self.rows >= _MOST_ROWS:
                self.hidden += sum(1 for _ in walk(item))
            else:
                parts.append(self._row(item, open_=item is tree or len(parts) < 60))
                waiting += ["</div></details>", *reversed(_grouped(item.children))]
        return "".join([*parts, "</div>"])

    def _chosen(self, runs: list[RunNode]) -> list[RunNode]:
        """The runs of a group that are listed: in the order they began."""
        failed = [run for run in runs if run.run_id in self.wrong][:_FAILED]
        slowest = sorted(runs, key=lambda run: -(run.duration or 0.0))[:_SLOWEST]
        chosen = {run.run_id for run in [*failed, *slowest]}
        chosen |= {run.run_id for run in [one for one in runs if one.run_id not in chosen][:_OTHERS]}
        self.hidden += sum(sum(1 for _ in walk(run)) for run in runs if run.run_id not in chosen)
        return [run for run in runs if run.run_id in chosen]

    def _group_head(self, stem: str, runs: list[RunNode]) -> str:
        seconds = [run.duration for run in runs if run.duration is not None]
        wrong = sum(self.wrong.get(run.run_id, 0) for run in runs)
        facts = [f"{len(runs):,} runs"]
        if seconds:
            facts.append(f"median {duration(median(seconds))}, longest {duration(max(seconds))}")
        bad = f' <b class="bad">{wrong:,} failed or killed</b>' if wrong else ""
        listed = min(len(runs), _FAILED + _SLOWEST + _OTHERS)
        if listed < len(runs):
            facts.append("failed, slowest and first ones listed")
        return (
            f'<details class="node group"><summary><span class="mark">≡</span> <b>{markup(_cut(stem))}</b> '
            f'<span class="quiet">{markup(", ".join(facts))}</span>{bad}<span class="time">'
            f'{markup(duration(sum(seconds)))}</span></summary><div class="below">'
        )

    def _row(self, run: RunNode, *, open_: bool) -> str:
        self.rows += 1
        state = state_of(run.status, run.tags)
        sign, title = MARKS[state]
        shown = [(key, value) for key, value in sorted(run.metrics.items()) if not key.startswith(SYSTEM)]
        chips = "".join(
            f'<span class="chip"><i>{markup(_cut(key, 40))}</i> {markup(number(value))}</span>'
            for key, value in shown[:_METRICS]
        )
        share = 100 * max(0.0, run.duration or 0.0) / self.whole if self.whole > 0 else 0.0
        failure = f'<span class="bad">{markup(_cut(run.failure, 160))}</span>' if run.failure else ""
        # Few metrics are next to the name already.
        details = _values(run, shown if len(shown) > _METRICS else []) if self.rows <= _MOST_DETAILED else ""
        number_ = self.numbers.get(run.run_id)
        ident = "" if number_ is None else f' id="run-{number_}"'
        leaf = "" if run.children or details else " leaf"
        critical = " critical" if run.run_id in self.critical else ""
        return (
            f'<details class="node{leaf}{critical}"{ident}{" open" if open_ and run.children else ""}><summary>'
            f'<span class="mark s-{state}" title="{title}">{sign}</span> <b>{markup(_cut(run.name) or "unnamed")}</b> '
            f'{failure}{chips}<span class="time"><span class="share" style="width:{min(share, 100):.1f}%"></span>'
            f'{markup(duration(run.duration))}</span></summary><div class="below">{details}'
        )


def _grouped(children: Sequence[RunNode]) -> list[RunNode | tuple[str, list[RunNode]]]:
    """Children in order; many of one kind, whose names differ in numbers only, are a group where the first one is."""
    stems: dict[str, list[RunNode]] = {}
    for run in children:
        stems.setdefault(_NUMBERS.sub("#", run.name), []).append(run)
    found: list[RunNode | tuple[str, list[RunNode]]] = []
    for stem, runs in stems.items():
        found += [(runs[0].name if len({run.name for run in runs}) == 1 else stem, runs)] if len(runs) > _MANY else runs
    if all(not isinstance(one, tuple) for one in found):
        return list(children)
    return found


def _values(run: RunNode, metrics: Sequence[tuple[str, float]]) -> str:
    params = sorted(run.params.items())
    rows = [
        f"<tr><th>{markup(_cut(key, 100))}</th><td>{markup(_cut(text))}</td></tr>" for key, text in params[:_VALUES]
    ]
    rows += [
        f'<tr><th>{markup(_cut(key, 100))}</th><td class="number">{markup(number(value))}</td></tr>'
        for key, value in metrics[:_VALUES]
    ]
    more = max(0, len(params) - _VALUES) + max(0, len(metrics) - _VALUES)
    rest = f'<tr><td colspan="2" class="quiet">and {more} more</td></tr>' if more else ""
    return f'<table class="values">{"".join(rows)}{rest}</table>' if rows else ""


def _cut(text: str, longest: int = _LONGEST) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
