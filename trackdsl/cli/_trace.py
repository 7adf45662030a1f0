"""`trackdsl trace`: writes the timeline of a run and all runs below it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from trackdsl.cli._output_file import DASH, write
from trackdsl.cli._reading import errors_printed
from trackdsl.query import _shown
from trackdsl.query._trace_formats import chrome_trace, mermaid, speedscope
from trackdsl.query._tree import tree
from trackdsl.store_format.report.timeline import timeline

#: The pages that open a trace, by its format.
_OPENED_AT = {"chrome": "https://ui.perfetto.dev", "speedscope": "https://speedscope.app"}


def write_trace(
    run: str, tracking_uri: str | None, output: Path | None, form: str, *, superseded: bool, as_json: bool
) -> None:
    """Print the timeline of a run and all runs below it, or write it to a file.

    Args:
        run: the run.
        tracking_uri: the store; the configured one by default.
        output: the file; None to print.
        form: `chrome`, `speedscope` or `mermaid`.
        superseded: as for `trackdsl.tree`.
        as_json: print what was written as JSON.
    """
    with errors_printed():
        found = tree(run, superseded=superseded, tracking_uri=tracking_uri)
    spans = timeline(found, now=time.time_ns() // 1_000_000)
    if form == "mermaid":
        text = f"```mermaid\n{mermaid(spans)}```\n"
    else:
        content = (speedscope if form == "speedscope" else chrome_trace)(spans)
        text = json.dumps(content, separators=(",", ":")) + "\n"
    if not write(output or DASH, text, as_json=as_json):
        return
    if as_json:
        click.echo(json.dumps({"path": str(output), "format": form, "runs": len(spans)}))
        return
    count = f"{len(spans):,} runs" if len(spans) != 1 else "1 run"
    where = f" Open it at {_OPENED_AT[form]}." if form in _OPENED_AT else ""
    click.echo(f"{_shown.printable(str(output))} has {count}.{where}", err=True)
