"""`trackdsl report`: a page about a run and all runs below it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from trackdsl._core.escaping import printable
from trackdsl.cli._output_file import write
from trackdsl.cli._reading import errors_printed
from trackdsl.query._report import report


def write_report(run: str, tracking_uri: str | None, output: Path, *, superseded: bool, as_json: bool) -> None:
    """Write the report of a run to a file.

    Args:
        run: the run.
        tracking_uri: the store; the configured one by default.
        output: the file.
        superseded: as for `trackdsl.tree`.
        as_json: print what was written as JSON.

    Raises:
        click.ClickException: the file cannot be written.
    """
    # MLflow would show a progress bar for each figure.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with errors_printed():
        made = report(run, superseded=superseded, tracking_uri=tracking_uri)
    if not write(output, made.html, as_json=as_json):
        return
    runs = sum(1 for _ in made.tree.walk())
    if as_json:
        size = len(made.html.encode("utf-8", "replace"))
        click.echo(json.dumps({"path": str(output), "run_id": made.tree.run_id, "runs": runs, "bytes": size}))
        return
    count = f"{runs:,} runs" if runs != 1 else "1 run"
    click.echo(f"{printable(str(output))} shows {count}: open it in a browser.", err=True)
