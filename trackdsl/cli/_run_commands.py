"""The commands that show the runs of a store: `ls`, `show`, `tree`, and others. Only declarations and help."""

from __future__ import annotations

from pathlib import Path

import click

from trackdsl.cli._completion import complete_experiment, complete_run
from trackdsl.cli._run_options import with_store, with_superseded, with_tracking_uri


@click.command()
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...", shell_complete=complete_experiment)
@click.option("--where", metavar="FILTER", help="Only runs that match this filter, in MLflow's filter language.")
@click.option(
    "--order-by",
    multiple=True,
    metavar="NAME",
    help="For example 'accuracy DESC'. Can be repeated. Default: the newest first.",
)
@click.option(
    "--max",
    "most",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    metavar="N",
    help="The largest number of runs; 0 for all.",
)
@click.option("--watch", "watching", is_flag=True, help="Show the runs as they change, until q or Ctrl-C.")
@with_superseded
@with_store
def ls(
    experiments: tuple[str, ...],
    where: str | None,
    order_by: tuple[str, ...],
    most: int,
    watching: bool,
    superseded: bool,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """List the runs of EXPERIMENTs, or of all experiments.

    Root runs come first, and the newest of them is at the top. With --watch, the list is read again every two seconds.
    Without a terminal, it is printed whenever it has changed; with --json, in one line. To see what runs before it
    is delivered, use `trackdsl watch`.

    The exit code is 0 if the runs were listed, 1 if there is no such experiment or the store cannot be read, and 130
    after Ctrl-C.

    \b
    Examples:
      trackdsl ls churn
      trackdsl ls churn --where "metrics.accuracy > 0.9 AND params.model = 'rf'"
      trackdsl ls churn --order-by 'accuracy DESC' --max 10
      trackdsl ls churn --watch
      trackdsl ls --max 0 --json | jq '.runs[] | select(.status == "FAILED")'
    """
    from trackdsl.cli import _listing

    asked = _listing.ListOptions(experiments, where, order_by, most, tracking_uri, superseded, as_json)
    (_listing.watch if watching else _listing.ls)(asked)


@click.command()
@click.argument("run", shell_complete=complete_run)
@with_store
def show(run: str, tracking_uri: str | None, as_json: bool) -> None:
    """Show a RUN: its parameters, metrics and tags.

    If the run failed, its exception is shown too. RUN is MLflow's id, trackdsl's id, or at least the first four
    characters of one. It can also be a name: the newest run with this name is shown.

    The exit code is 0 if the run was shown, and 1 if there is no such run.

    \b
    Examples:
      trackdsl show 3f2a9c1b
      trackdsl show train --json | jq .metrics.accuracy
    """
    from trackdsl.cli import _show

    _show.show(run, tracking_uri, as_json=as_json)


@click.command()
@click.argument("run", shell_complete=complete_run)
@click.option("--whole", is_flag=True, help="Show the whole tree that contains the run, from its root run.")
@with_superseded
@with_store
def tree(run: str, whole: bool, superseded: bool, tracking_uri: str | None, as_json: bool) -> None:
    """Show a RUN and all runs below it, as a tree.

    Each run has its status and duration. RUN is the same as for `show`.

    The exit code is 0 if the tree was shown, and 1 if there is no such run.

    \b
    Examples:
      trackdsl tree pipeline
      trackdsl tree 3f2a9c1b --whole
    """
    from trackdsl.cli import _tree

    _tree.show_tree(run, tracking_uri, whole=whole, superseded=superseded, as_json=as_json)


@click.command()
@click.argument("run", shell_complete=complete_run)
@click.option(
    "--since",
    metavar="RUN",
    help="Compare with this run. Default: the last one like it.",
    shell_complete=complete_run,
)
@with_store
def changes(run: str, since: str | None, tracking_uri: str | None, as_json: bool) -> None:
    """Show what changed in a RUN since the last one like it.

    The last one like it is the newest earlier root run of the same function or script in the same experiment. What may
    have changed: parameters, datasets, the source of stages and of what they use of the project, packages, Python, the
    commit and what is not committed. It also shows what came of it: metrics before and after. RUN is given as for
    `show`; for a child run, its root run is used. If the run has just ended and delivery is at work on it, the command
    waits.

    The exit code is 0 whether something changed or not, and 1 if there is no such run or what changed is not known
    on it.

    \b
    Examples:
      trackdsl changes pipeline
      trackdsl changes 3f2a9c1b --since 77fe0d12
      trackdsl changes pipeline --json | jq -r .summary
    """
    from trackdsl.cli import _changes

    _changes.show_changes(run, since, tracking_uri, as_json=as_json)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...", shell_complete=complete_run)
@click.option("--all", "everything", is_flag=True, help="Also show values that are the same in all runs.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a page with curves, times and diffs of the source to this file; `-` prints it.",
)
@with_store
def compare(
    runs: tuple[str, ...], everything: bool, html: Path | None, tracking_uri: str | None, as_json: bool
) -> None:
    """Show the differences between RUNs, each from the first.

    Stages of the same path are compared with each other: their parameters, metrics, status and time. What changed in
    the program is shown too, of the first eight runs: source with diffs, packages, what is not committed, datasets.
    If a run has just ended and delivery is at work on it, the command waits. RUN is the same as for `show`.

    The exit code is 0 whether the runs differ or not, 1 if there is no such run or the file cannot be written, and 2 if
    the command line is wrong.

    \b
    Examples:
      trackdsl compare 3f2a9c1b 77fe0d12
      trackdsl compare 3f2a9c1b 77fe0d12 a8c1e5f0 --html compared.html
      trackdsl compare 3f2a9c1b 77fe0d12 --json | jq '.stages[].durations'
    """
    if len(runs) < 2:
        raise click.UsageError("compare takes two runs or more: `trackdsl compare RUN RUN`.")
    from trackdsl.cli import _comparison

    _comparison.show_comparison(runs, tracking_uri, html, everything=everything, as_json=as_json)


_without_browser = click.option(
    "--browser/--no-browser", default=True, help="Open the page in a browser. Default: do, and print its address."
)

_page_as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print the address and the run's id in a line of JSON."
)


@click.command("open")
@click.argument("run", shell_complete=complete_run)
@_without_browser
@_page_as_json
@with_tracking_uri
def open_run(run: str, browser: bool, as_json: bool, tracking_uri: str | None) -> None:
    """Open the page of a RUN in MLflow's UI.

    The address is printed too, so the command is of use without a browser. RUN is the same as for `show`.

    The exit code is 0 if the run has a page, and 1 if there is no such run or the store is not a server.

    \b
    Examples:
      trackdsl open pipeline
      trackdsl open 3f2a9c1b --no-browser
    """
    from trackdsl.cli._pages import open_page

    open_page(run, tracking_uri, browser=browser, as_json=as_json)


@click.command()
@click.argument("run", required=False, shell_complete=complete_run)
@click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="Where it listens. Default: a free port.")
@_without_browser
@_page_as_json
@with_tracking_uri
def ui(run: str | None, port: int | None, browser: bool, as_json: bool, tracking_uri: str | None) -> None:
    """Show the store in MLflow's UI, until Ctrl-C.

    It opens at the RUN, or at the newest root run. Only programs of this machine reach it. If the store is a tracking
    server, the page there is opened.

    The exit code is 0 after Ctrl-C, 143 after SIGTERM, 129 if the terminal is closed, and 1 if there is no such run or
    the server does not start.

    \b
    Examples:
      trackdsl ui
      trackdsl ui pipeline --port 5000
      trackdsl ui --tracking-uri sqlite:////data/mlflow.db --no-browser
    """
    from trackdsl.cli._pages import serve

    serve(run, tracking_uri, port, browser=browser, as_json=as_json)
