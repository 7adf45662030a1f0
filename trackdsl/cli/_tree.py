"""`trackdsl tree`: shows a run and all runs below it.

The structure of `--json` is a run with `run_id`, `id`, `name`, `status`, `start`, `duration`, `failure`, `params`,
`metrics`, `tags` and `children`, which are such runs.
"""

from __future__ import annotations

from typing import Any

from trackdsl.cli._console import output
from trackdsl.cli._reading import errors_printed
from trackdsl.cli._structures import finite, print_json
from trackdsl.query._tree import RunTree, tree


def show_tree(run: str, tracking_uri: str | None, *, whole: bool, superseded: bool, as_json: bool) -> None:
    """Print a run and all runs below it."""
    with errors_printed():
        found = tree(run, whole=whole, superseded=superseded, tracking_uri=tracking_uri)
    if as_json:
        print_json(_branch(found))
    else:
        output().print(found)


def _branch(top: RunTree) -> dict[str, Any]:
    made: dict[str, dict[str, Any]] = {}
    for run in reversed(list(top.walk())):
        made[run.run_id] = {
            "run_id": run.run_id,
            "id": run.id,
            "name": run.name,
            "status": run.status,
            "start": run.start,
            "duration": run.duration,
            "failure": run.failure,
            "params": dict(sorted(run.params.items())),
            "metrics": finite(run.metrics),
            "tags": dict(sorted(run.tags.items())),
            "children": [made[child.run_id] for child in run.children],
        }
    return made[top.run_id]
