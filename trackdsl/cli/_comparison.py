"""`trackdsl compare`: shows the differences between runs, or writes them to a page.

The structure of `--json` has `runs` (each with `run_id` and `name`), `differences` (each with `kind`, `name` and
`values`, one for each run), `same` (how many values are), `stages` (each with `path`, `run_ids`, `statuses`,
`durations` and `differences`) and `changes` (as of `trackdsl changes`, one for each run but the first; null for the
ninth and later ones, of which the program is not compared). `differences` and `same` are those of the runs themselves;
`stages` begins with these.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from trackdsl.cli._console import output
from trackdsl.cli._output_file import write
from trackdsl.cli._reading import errors_printed
from trackdsl.cli._structures import print_json
from trackdsl.query import _shown
from trackdsl.query._compare import compare
from trackdsl.query._compared import Difference
from trackdsl.query._comparison import Comparison


def show_comparison(
    runs: Sequence[str], tracking_uri: str | None, html: Path | None, *, everything: bool, as_json: bool
) -> None:
    """Print the differences between runs, or write them to a page.

    Args:
        runs: two runs or more.
        tracking_uri: the store; the configured one by default.
        html: the file of the page; None to print text.
        everything: also what is the same.
        as_json: print JSON.

    Raises:
        click.ClickException: the file cannot be written.
    """
    with errors_printed():
        found = compare(*runs, all=everything, tracking_uri=tracking_uri)
        page = None if html is None else found.to_html()
    if html is not None and page is not None:
        if not write(html, page, as_json=as_json):
            return
        click.echo(f"{_shown.printable(str(html))} compares {len(runs)} runs: open it in a browser.", err=True)
    if as_json:
        print_json(as_structure(found))
    elif html is None:
        output().print(found)


def as_structure(found: Comparison) -> dict[str, Any]:
    """A comparison as `--json` has it."""
    return {
        "runs": [{"run_id": id_, "name": name} for id_, name in zip(found.runs, found.names, strict=True)],
        "differences": _differences(found),
        "same": found.same,
        "stages": [
            {
                "path": stage.path,
                "run_ids": list(stage.run_ids),
                "statuses": list(stage.statuses),
                "durations": list(stage.seconds),
                "differences": _differences(stage.differences),
            }
            for stage in found.stages
        ],
        "changes": _changes(found),
    }


def _changes(found: Comparison) -> list[Any]:
    # msgspec writes NaN and infinity as `null`.
    known = [json.loads(msgspec.json.encode(one)) for one in found.changes]
    return known + [None] * (len(found.runs) - 1 - len(known))


def _differences(found: Iterable[Difference]) -> list[dict[str, Any]]:
    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [{"kind": one.kind, "name": one.name, "values": [plain(value) for value in one.values]} for one in found]
