"""The commands that write runs to a file: `trace`, `report`, `export`. Only declarations and help."""

from __future__ import annotations

from pathlib import Path

import click

from trackdsl.cli._completion import complete_experiment, complete_run
from trackdsl.cli._run_options import with_output, with_superseded, with_tracking_uri


@click.command()
@click.argument("run", shell_complete=complete_run)
@with_output("Write the trace to this file. Default: print it, as `-` does.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["chrome", "speedscope", "mermaid"]),
    default="chrome",
    show_default=True,
    help="chrome: JSON for Perfetto. speedscope: JSON for speedscope. mermaid: a chart for Markdown.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON. Needs --output.")
@with_superseded
@with_tracking_uri
def trace(run: str, output: Path | None, form: str, as_json: bool, superseded: bool, tracking_uri: str | None) -> None:
    """Write the timeline of a RUN and all runs below it.

    Open a trace at https://ui.perfetto.dev, which shows the parameters and metrics of each run, or at
    https://speedscope.app, which adds up the runs of a stage. Both read the file in your browser and send it nowhere.
    Each thread and each task of each process has a track. Runs of one thread that were open at the same time
    without being inside each other are in different tracks. RUN is the same as for `show`.

    The exit code is 0 if the trace was written, and 1 if there is no such run or the file cannot be written.

    \b
    Examples:
      trackdsl trace pipeline -o pipeline.json
      trackdsl trace pipeline -o stages.json --format speedscope
      trackdsl trace 3f2a9c1b --format mermaid >> README.md
    """
    if as_json and output is None:
        raise click.UsageError("--json needs --output FILE: without a file, the trace itself is printed.")
    from trackdsl.cli import _trace

    _trace.write_trace(run, tracking_uri, output, form, superseded=superseded, as_json=as_json)


@click.command()
@click.argument("run", shell_complete=complete_run)
@with_output("The page to write; `-` prints it.", default=Path("report.html"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
@with_superseded
@with_tracking_uri
def report(run: str, output: Path, as_json: bool, superseded: bool, tracking_uri: str | None) -> None:
    """Write a page about a RUN and all runs below it.

    It has what changed, a timeline with threads, tasks and processes as lanes, the tree, the curves of metrics, figures
    and tables, parameters, failures, code and environment. The page is one file below 2 MB that loads nothing, so you
    can attach it to a mail. RUN is the same as for `show`.

    The exit code is 0 if the page was written, and 1 if there is no such run or the file cannot be written.

    \b
    Examples:
      trackdsl report pipeline
      trackdsl report 3f2a9c1b -o churn.html
      trackdsl report pipeline --json | jq -r .path
    """
    from trackdsl.cli._report import write_report

    write_report(run, tracking_uri, output, superseded=superseded, as_json=as_json)


@click.command()
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...", shell_complete=complete_experiment)
@with_output("The file to write: NAME.parquet, NAME.csv or NAME.json.", required=True)
@click.option("--where", metavar="FILTER", help="Only runs that match this filter, in MLflow's filter language.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
@with_superseded
@with_tracking_uri
def export(
    experiments: tuple[str, ...],
    output: Path,
    where: str | None,
    as_json: bool,
    superseded: bool,
    tracking_uri: str | None,
) -> None:
    """Write the runs of EXPERIMENTs to a Parquet, CSV or JSON file.

    There is a row for each run. The columns are those of `trackdsl.runs`: attributes, parameters, metrics and tags.
    Only Parquet keeps the types of all columns. In CSV, a text that a spreadsheet would take for a formula begins with
    an apostrophe.

    The exit code is 0 if the file was written, and 1 if there is no such experiment or the file cannot be written. Then
    a file that was there before stays as it is.

    \b
    Examples:
      trackdsl export churn -o churn.parquet
      trackdsl export -o all.csv --where "attributes.status = 'FINISHED'"
    """
    if output.suffix.lower() not in (".parquet", ".csv", ".json"):
        raise click.BadParameter(f"{output} must end in .parquet, .csv or .json.", param_hint="'--output'")
    from trackdsl.cli._export import export

    export(experiments, output, where, tracking_uri, superseded=superseded, as_json=as_json)
