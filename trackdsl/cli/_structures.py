"""The JSON that commands print. It is stable: a new version may add fields, and removes none. NaN is `null` there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import click

from trackdsl.query import _shown
from trackdsl.query._rows import FoundRun
from trackdsl.store_format.tags import PATH_TAG


def print_json(structure: Any) -> None:
    """Print a structure as JSON, with line breaks."""
    click.echo(json.dumps(structure, indent=2, allow_nan=False))


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics by name, in order; None where JSON has no number for one."""
    return {name: value if math.isfinite(value) else None for name, value in sorted(values.items())}


def structure_of(run: FoundRun, experiments: Mapping[str, str], paths: Mapping[str, str]) -> dict[str, Any]:
    """A run as `--json` prints it.

    Args:
        run: the run.
        experiments: names by MLflow's id.
        paths: in the tree, by MLflow's id, for runs without a tag for it.
    """
    return {
        "run_id": run.run_id,
        "id": run.id,
        "name": run.name,
        "experiment": experiments.get(run.experiment_id),
        "status": run.status,
        "start": _shown.moment(run.start),
        "end": _shown.moment(run.end),
        "duration": run.duration,
        "parent": run.parent,
        "path": run.tags.get(PATH_TAG) or paths.get(run.run_id),
        "params": dict(sorted(run.params.items())),
        "metrics": finite(run.metrics),
        "tags": dict(sorted(run.tags.items())),
    }
