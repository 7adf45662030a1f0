"""`python tests/benchmarks`: what trackdsl costs, beside what it is compared with, measured in turn in one run.

Nothing here asserts a time: the tables say which targets were reached on this machine, this time.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
from cell_rows import cells
from cluster_rows import clusters
from concurrency_rows import concurrency
from delivery_report import comparison_table, write_results
from delivery_rows import Comparison, delivery
from figures import Row, as_json, table_of, targets_of
from loop_row import loop
from process_rows import imports, memory, outage
from query_rows import query
from recording_rows import FULL, QUICK, Announce, Effort, disabled, recording
from rich.console import Console
from value_rows import values
from watch_rows import watch
from workspace import Workspace

_GROUPS: dict[str, Callable[[Workspace, Effort, Announce], list[Row]]] = {
    "disabled": disabled,
    "import": imports,
    "memory": memory,
    "loop": loop,
    "concurrency": concurrency,
    "values": values,
    "cells": cells,
    "query": query,
    "watch": watch,
    "clusters": clusters,
}
#: These two share their subjects, which take seconds to start.
_RECORDING = ("stage", "metric")
#: In the order of the table. What needs a server is measured last, so that nothing else has it beside it.
_ORDER = (*_RECORDING, *_GROUPS, "outage", "delivery")
#: Few and many runs, few and many points.
_GROWTH = {FULL: (1000, 100_000, 10_000, 10_000_000), QUICK: (200, 2000, 2000, 20_000)}


@click.command()
@click.argument("groups", nargs=-1, type=click.Choice(_ORDER))
@click.option("--quick", is_flag=True, help="Fewer rounds: under a minute, but for `delivery`.")
@click.option("--runs", type=click.IntRange(20), help="For `delivery`: this many runs instead of 10,000.")
@click.option("--points", type=click.IntRange(2000), help="For `delivery`: this many points instead of a million.")
@click.option(
    "--growth", is_flag=True, help="For `delivery`: also few against many, up to 100,000 runs and 10M points."
)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the rows to FILE.")
def main(
    groups: tuple[str, ...], quick: bool, runs: int | None, points: int | None, growth: bool, file: Path | None
) -> None:
    """Measure GROUPS (all of them by default) and print figures, baselines, ratios and targets.

    The group `delivery` also writes its figures and a plot into tests/benchmarks/results.
    """
    if not Path("/proc/self/status").exists():
        raise click.ClickException("the benchmarks read memory and processes from /proc, which only Linux has")
    console = Console(width=None if sys.stdout.isatty() else 200)
    effort = QUICK if quick else FULL
    growing = _GROWTH[effort] if growth else ()
    effort = replace(
        effort,
        delivered_runs=runs or effort.delivered_runs,
        delivered_points=points or effort.delivered_points,
        growth=growing,
    )
    rows, compared = _measure(set(groups or _ORDER), effort)
    console.print(table_of(rows))
    console.print(targets_of(rows))
    if compared is not None:
        console.print(comparison_table(compared))
        for path in write_results(compared, _machine()):
            console.print(f"written: {path}")
    console.print(_machine())
    if file is not None:
        file.write_text(json.dumps({"machine": _machine(), "rows": [as_json(row) for row in rows]}, indent=2))


def _measure(groups: set[str], effort: Effort) -> tuple[list[Row], Comparison | None]:
    rows: list[Row] = []
    compared = None
    errors = Console(stderr=True)
    with Workspace() as workspace, errors.status("preparing") as status:

        def announce(doing: str) -> None:
            status.update(doing)
            if not errors.is_terminal:
                errors.print(f"{time.strftime('%H:%M:%S')} {doing}")

        for name, measure in _GROUPS.items():
            if name in groups:
                rows += measure(workspace, effort, announce)
        if groups.intersection(_RECORDING):
            announce("starting what stages and metrics are compared with")
            rows += recording(workspace, effort, groups, announce)
        if "outage" in groups:
            rows += outage(workspace, effort, announce)
        if "delivery" in groups:
            compared = delivery(workspace, effort, announce)
            rows += compared.rows
    return sorted(rows, key=lambda row: _ORDER.index(row.group)), compared


def _machine() -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("trackdsl", "mlflow", "numpy"))
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"Python {platform.python_version()}, {versions}; {os.cpu_count()} processors, load {load}"


if __name__ == "__main__":
    main()
