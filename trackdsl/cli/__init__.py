"""The command line: `trackdsl ls`, `show`, `tree`, `compare`, `status`, `sync`, `demo`.

Each command imports what it needs inside its function. `status` has to be quick, and importing MLflow takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from trackdsl._core.suggest import suggestion_for
from trackdsl._core.version import __version__
from trackdsl.errors import TrackdslError

__all__ = ["main"]

C = TypeVar("C", bound=Callable[..., Any])


class _Group(click.Group):
    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = suggestion_for(args[0], self.list_commands(ctx))
            raise click.UsageError(f"{error.message.rstrip('.')}{hint.text}", ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TrackdslError as error:
            # For example a bad setting. The message names the fix, and a traceback would hide it.
            raise click.ClickException(str(error)) from None


def _with_spool(command: C) -> C:
    return click.option(
        "--spool",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="PATH",
        help="The folder of records that are not delivered yet. Default: TRACKDSL_SPOOL, else your state folder.",
    )(command)


@click.group(cls=_Group)
@click.version_option(__version__, prog_name="trackdsl")
def main() -> None:
    """Show the runs that MLflow has, and deliver the records that it does not have yet.

    \b
    Examples:
      trackdsl demo            run a small pipeline and show its runs
      trackdsl ls churn        list the runs of an experiment
      trackdsl tree pipeline   show a run and all runs below it
      trackdsl status          show which records wait for delivery, and why
      trackdsl sync            deliver them now
      trackdsl drop JOURNAL    delete records that can never be delivered
      trackdsl doctor          show the settings, and check that everything works
    """


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option(
    "--tracking-uri",
    metavar="URI",
    help="The store to check. Default: the one that runs in this folder are delivered to.",
)
@_with_spool
def doctor(as_json: bool, tracking_uri: str | None, spool: Path | None) -> None:
    """Show every setting, and check that everything works.

    The command shows the source of each setting. It checks the settings, the versions, the tracking server, the spool
    and the free space on its disk. For each problem it says what to do. The exit code is 0 if there is no problem, else
    1.

    \b
    Examples:
      trackdsl doctor
      trackdsl doctor --tracking-uri http://localhost:5000
      trackdsl doctor --json | jq '.findings[] | select(.level == "problem")'
    """
    from trackdsl.cli._doctor import run

    run(spool, tracking_uri, as_json=as_json)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@_with_spool
def status(as_json: bool, spool: Path | None) -> None:
    """Show the records that MLflow does not have yet.

    \b
    Examples:
      trackdsl status
      trackdsl status --json | jq '.journals[].error'
    """
    from trackdsl.cli._status import show

    show(spool, as_json=as_json)


@main.command()
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up after this time without progress.",
)
@click.option("--all-hosts", is_flag=True, help="Also deliver from the spools of other hosts in the same state folder.")
@click.option("--host", metavar="HOST", help="Only deliver from the spool of this other host.")
@click.option("--assume-ended", is_flag=True, help="With --host: you know that all its programs have ended.")
@click.option("--to", metavar="URI", help="Deliver to this store instead of the recorded one.")
@click.option("--from", "only_from", metavar="URI", help="With --to: only the runs that were recorded for this store.")
@_with_spool
def sync(
    timeout: float,
    all_hosts: bool,
    host: str | None,
    assume_ended: bool,
    to: str | None,
    only_from: str | None,
    spool: Path | None,
) -> None:
    """Deliver all records that wait, and show the progress.

    The exit code is 0 if nothing is left, 1 if something is left, and 130 after Ctrl-C. Records that are left stay in
    the spool, and nothing is delivered twice. For a program that still runs, the command delivers what it has recorded
    so far.

    The exit code is also 1 if records are lost: segments of a journal are missing, records are damaged, events could
    not be recorded, or MLflow refused a value. The command reports each loss once.

    Each host has its own spool, even if hosts share a home folder. A container with a new name has a new spool too.
    With --all-hosts, the command also delivers from the spools of other hosts, for programs that have certainly ended.
    If it cannot know that, but you do, use `--host NODE --assume-ended`. Run this on one machine only.

    Use --to if the recorded address was wrong, or if the server has moved. It delivers the records of ended programs to
    another store. Programs that still run, and programs whose runs exist at the recorded store, keep that store.

    \b
    Examples:
      trackdsl sync
      trackdsl sync --timeout 300     for a slow server
      trackdsl sync --all-hosts       on a login node, for all nodes
      trackdsl sync --host node7 --assume-ended
      trackdsl sync --to http://new-server:5000
      trackdsl sync --from http://old:5000 --to http://new:5000
      TRACKDSL_MODE=offline python train.py && trackdsl sync
    """
    if assume_ended and host is None:
        raise click.UsageError("--assume-ended needs --host HOST: name the host whose programs have ended.")
    if only_from is not None and to is None:
        raise click.UsageError("--from needs --to URI: name the store to deliver to.")
    if to is not None and (all_hosts or host is not None):
        raise click.UsageError("--to delivers records of this host only: use it without --all-hosts and --host.")
    if to is not None:
        from trackdsl.cli import _sync_to

        _sync_to.run(spool, timeout, to, only_from)
        return
    if all_hosts or host is not None:
        from trackdsl.cli import _sync_hosts

        _sync_hosts.run(spool, timeout, host, assume_ended=assume_ended)
        return
    from trackdsl.cli._sync import run

    run(spool, timeout)


@main.command()
@click.argument("what", metavar="JOURNAL|RUN")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@_with_spool
def drop(what: str, yes: bool, as_json: bool, spool: Path | None) -> None:
    """Delete a JOURNAL or a RUN that can never be delivered.

    The records are deleted for ever. With a RUN, the runs below it are deleted too.

    JOURNAL is a name that `trackdsl status` shows. RUN is trackdsl's id of a run that waits in a journal. The first
    characters are enough if they are unique. The command first shows which records you lose. It refuses to delete the
    journal of a program that still runs, but it can delete a single run that is set aside. It does not change runs that
    MLflow has. The exit code is 0 if the records were deleted, else 1.

    If only the address is wrong, use `trackdsl sync --to URI` to deliver the runs to another store.

    \b
    Examples:
      trackdsl status
      trackdsl drop 01795880652289787952-1233-df29a7af
      trackdsl drop 01795880652289 --yes
      trackdsl drop 9e514b2ff11b08475a98000000000001
      trackdsl drop 01795880652289 --yes --json | jq .events
    """
    from trackdsl.cli._drop import run

    run(spool, what, yes=yes, as_json=as_json)


def _with_store(command: C) -> C:
    return click.option(
        "--tracking-uri",
        metavar="URI",
        help="The store. Default: TRACKDSL_TRACKING_URI or MLFLOW_TRACKING_URI, else ./mlflow.db.",
    )(click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command))


@main.command()
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...")
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
@_with_store
def ls(
    experiments: tuple[str, ...],
    where: str | None,
    order_by: tuple[str, ...],
    most: int,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """List the runs of EXPERIMENTs, or of all experiments.

    Root runs come first, and the newest of them is at the top.

    \b
    Examples:
      trackdsl ls churn
      trackdsl ls churn --where "metrics.accuracy > 0.9 AND params.model = 'rf'" --order-by 'accuracy DESC'
      trackdsl ls --max 0 --json | jq '.runs[] | select(.status == "FAILED") | .run_id'
    """
    from trackdsl.cli import _query

    _query.ls(experiments, where, order_by, most, tracking_uri, as_json=as_json)


@main.command()
@click.argument("run")
@_with_store
def show(run: str, tracking_uri: str | None, as_json: bool) -> None:
    """Show a RUN: its parameters, metrics and tags.

    If the run failed, its exception is shown too. RUN is MLflow's id, trackdsl's id, or at least the first four
    characters of one. It can also be a name: the newest run with this name is shown.

    \b
    Examples:
      trackdsl show 3f2a9c1b
      trackdsl show train --json | jq .metrics.accuracy
    """
    from trackdsl.cli import _query

    _query.show(run, tracking_uri, as_json=as_json)


@main.command()
@click.argument("run")
@click.option("--whole", is_flag=True, help="Show the whole tree that contains the run, from its root run.")
@_with_store
def tree(run: str, whole: bool, tracking_uri: str | None, as_json: bool) -> None:
    """Show a RUN and all runs below it, as a tree.

    Each run has its status and duration. RUN is the same as for `show`.

    \b
    Examples:
      trackdsl tree pipeline
      trackdsl tree 3f2a9c1b --whole
    """
    from trackdsl.cli import _query

    _query.show_tree(run, tracking_uri, whole=whole, as_json=as_json)


@main.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--all", "everything", is_flag=True, help="Also show values that are the same in all runs.")
@_with_store
def compare(runs: tuple[str, ...], everything: bool, tracking_uri: str | None, as_json: bool) -> None:
    """Show the differences between RUNs.

    They may be in parameters, metrics, source and tags. RUN is the same as for `show`.

    \b
    Examples:
      trackdsl compare 3f2a9c1b 77fe0d12
      trackdsl compare 3f2a9c1b 77fe0d12 --json | jq '.differences[] | select(.kind == "params")'
    """
    from trackdsl.cli import _query

    _query.show_comparison(runs, tracking_uri, everything=everything, as_json=as_json)


@main.command()
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="PATH",
    help="The folder to run in. It is created if it does not exist. Default: the current folder.",
)
@_with_spool
def demo(directory: Path | None, spool: Path | None) -> None:
    """Run a small scikit-learn pipeline, and show its runs.

    The runs are delivered to sqlite:///mlflow.db in the folder, unless TRACKDSL_TRACKING_URI or MLFLOW_TRACKING_URI
    names another store. The command downloads nothing.

    \b
    Examples:
      trackdsl demo
      trackdsl demo --directory /tmp/demo
      TRACKDSL_TRACKING_URI=http://localhost:5000 trackdsl demo
    """
    from trackdsl.cli._demo import run

    run(directory, spool)


@main.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write compose.yaml and .env.example to this folder. Default: print compose.yaml.",
)
@click.option("--force", is_flag=True, help="Replace existing files.")
def compose(output: Path | None, force: bool) -> None:
    """Print a Docker Compose file for an MLflow tracking server.

    The server uses PostgreSQL and an S3-compatible store.

    \b
    Examples:
      trackdsl compose
      trackdsl compose --output tracking
      trackdsl compose --output tracking --force
    """
    from trackdsl.cli._compose import write

    write(output, force=force)
