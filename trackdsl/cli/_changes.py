"""`trackdsl changes`: shows what changed in a run since another one.

The structure of `--json` has `run_id`, `name`, `previous`, `previous_name`, `previous_start`, `summary`, `changes`
(each with `kind`, `name`, `before`, `after`, `stages`, `runs`), `parts_at`, `parts_by`, `metrics` (each with `stage`,
`name`, `before`, `after`), `diffs`, `unknown` and `left_out`. Where several stages have the same path, the `stage` of a
metric has their number: `train #1`.
"""

from __future__ import annotations

import json

import msgspec

from trackdsl.cli._console import output
from trackdsl.cli._reading import errors_printed
from trackdsl.cli._structures import print_json
from trackdsl.query._changes import changes


def show_changes(run: str, since: str | None, tracking_uri: str | None, *, as_json: bool) -> None:
    """Print what changed in a run since another one."""
    with errors_printed():
        found = changes(run, since, tracking_uri=tracking_uri)
    if as_json:
        # msgspec writes NaN and infinity as `null`.
        print_json(json.loads(msgspec.json.encode(found)))
    else:
        output().print(found)
