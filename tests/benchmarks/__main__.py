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
from pathlib import Path

import click
from cluster_rows import clusters
from concurrency_rows import concurrency
from figures import Row, as_json, table_of, targets_of
from loop_row import loop
from places import Place
from process_rows import imports, memory, outage
from query_rows import query
from recording_rows import FULL, QUICK, Effort, Tell, disabled, recording
from rich.console import Console
from value_rows import values

_GROUPS: dict[str, Callable[[Place, Effort, Tell], list[Row]]] = {
    "disabled": disabled,
    "import": imports,
    "memory": memory,
    "loop": loop,
    "concurrency": concurrency,
    "values": values,
    "query": query,
    "clusters": clusters,
}
#: These two share their subjects, which take seconds to start.
_RECORDING = ("stage", "metric")
#: In the order of the table. What needs a server is measured last, so that nothing else has it beside it.
_ORDER = (*_RECORDING, *_GROUPS, "outage")


@click.command()
@click.argument("groups", nargs=-1, type=click.Choice(_ORDER))
@click.option("--quick", is_flag=True, help="Fewer rounds: under a minute.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the rows to FILE.")
def main(groups: tuple[str, ...], quick: bool, file: Path | None) -> None:
    """Measure GROUPS (all of them by default) and print figures, baselines, ratios and targets."""
    if not Path("/proc/self/status").exists():
        raise click.ClickException("the benchmarks read memory and processes from /proc, which only Linux has")
    console = Console(width=None if sys.stdout.isatty() else 200)
    rows = _measure(set(groups or _ORDER), QUICK if quick else FULL)
    console.print(table_of(rows))
    console.print(targets_of(rows))
    console.print(_machine())
    if file is not None:
        file.write_text(json.dumps({"machine": _machine(), "rows": [as_json(row) for row in rows]}, indent=2))


def _measure(groups: set[str], effort: Effort) -> list[Row]:
    rows: list[Row] = []
    errors = Console(stderr=True)
    with Place() as place, errors.status("preparing") as status:

        def tell(doing: str) -> None:
            status.update(doing)
            if not errors.is_terminal:
                errors.print(f"{time.strftime('%H:%M:%S')} {doing}")

        for name, measure in _GROUPS.items():
            if name in groups:
                rows += measure(place, effort, tell)
        if groups.intersection(_RECORDING):
            tell("starting what stages and metrics are compared with")
            rows += recording(place, effort, groups, tell)
        if "outage" in groups:
            rows += outage(place, effort, tell)
    return sorted(rows, key=lambda row: _ORDER.index(row.group))


def _machine() -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("trackdsl", "mlflow", "numpy"))
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"Python {platform.python_version()}, {versions}; {os.cpu_count()} processors, load {load}"


if __name__ == "__main__":
    main()
