"""The command line: `trackdsl ls`, `show`, `tree`, `compare`, `status`, `sync`, `demo`.

What a command needs is imported by it alone: `status` has to be quick, and MLflow takes seconds.
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
            # A bad setting is the user's to mend: the message names the fix, and a traceback would hide it.
            raise click.ClickException(str(error)) from None


def _with_spool(command: C) -> C:
    return click.option(
        "--spool",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="PATH",
        help="The folder of what is not delivered yet; TRACKDSL_SPOOL by default, else your state folder.",
    )(command)


@click.group(cls=_Group)
@click.version_option(__version__, prog_name="trackdsl")
def main() -> None:
    """Look at the runs that are at MLflow, and after what is not there yet.

    \b
    Examples:
      trackdsl demo            run a small pipeline and look at its runs
      trackdsl ls churn        the runs of an experiment
      trackdsl tree pipeline   a run and everything below it
      trackdsl status          what is waiting, and why
      trackdsl sync            deliver it now, and wait until it is there
      trackdsl drop JOURNAL    give up what can never be delivered
      trackdsl doctor          which settings are in force, and whether all works
    """


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option(
    "--tracking-uri", metavar="URI", help="Ask this store; by default the one that runs would go to from here."
)
@_with_spool
def doctor(as_json: bool, tracking_uri: str | None, spool: Path | None) -> None:
    """Show every setting and its source, and check that all works.

    Looks at the settings, the versions, the tracking server, the spool and the room on its disk, and says what to do
    where something is wrong. Exits with 0 when all is well, with 1 when something is to be mended.

    \b
    Examples:
      trackdsl doctor
      trackdsl doctor --tracking-uri http://localhost:5000
      trackdsl doctor --json | jq '.findings[] | select(.level == "problem")'
    """
    from trackdsl.cli._doctor import run

    run(spool, tracking_uri, as_json=as_json)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@_with_spool
def status(as_json: bool, spool: Path | None) -> None:
    """Show what has been recorded and is not at MLflow yet.

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
    help="Give up when nothing has moved for this long.",
)
@click.option("--all-hosts", is_flag=True, help="Also what waits in the spools of other hosts, beside this one.")
@click.option("--host", metavar="HOST", help="Only what waits in the spool of this other host.")
@click.option("--assume-ended", is_flag=True, help="With --host: you know that its programs have ended.")
@click.option("--to", metavar="URI", help="Deliver to this store instead of the recorded one.")
@click.option("--from", "only_from", metavar="URI", help="With --to: only what was recorded for this store.")
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
    """Deliver everything that is waiting, here and now.

    Exits with 0 when nothing is left, with 1 when something is, and with 130 on Ctrl-C. What is left is kept, and
    nothing is delivered twice. A program that still runs counts as delivered up to where it is now.

    Exits with 1 too when it finds that something is lost, and says what: segments of a journal that are missing,
    damaged records, events that could not be recorded, what MLflow refused. Each loss is reported once.

    Each host has a spool of its own, also where hosts share a home folder or a container gets a new name. With
    --all-hosts those of other hosts are delivered too, where it is sure that their programs have ended. Where that
    cannot be seen from here, `--host NODE --assume-ended` delivers what you know to have ended; run that on one machine
    alone.

    With --to what ended programs recorded goes to another store: the recorded address was mistyped, or the server has
    moved. A program that still runs, or whose runs exist at the recorded store already, stays with that.

    \b
    Examples:
      trackdsl sync
      trackdsl sync --timeout 300     for a slow server
      trackdsl sync --all-hosts       on a login node, for what the nodes recorded
      trackdsl sync --host node7 --assume-ended
      trackdsl sync --to http://new-server:5000
      trackdsl sync --from http://old:5000 --to http://new:5000
      TRACKDSL_MODE=offline python train.py && trackdsl sync
    """
    if assume_ended and host is None:
        raise click.UsageError("--assume-ended needs --host HOST: name the host whose programs have ended.")
    if only_from is not None and to is None:
        raise click.UsageError("--from needs --to URI: name the store that it is to go to.")
    if to is not None and (all_hosts or host is not None):
        raise click.UsageError("--to concerns what was recorded on this host: give it without --all-hosts and --host.")
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
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@_with_spool
def drop(what: str, yes: bool, as_json: bool, spool: Path | None) -> None:
    """Give up what can never be delivered: a JOURNAL or a RUN.

    It is removed for good; of a RUN, those below it too.

    JOURNAL is its name as `trackdsl status` shows it, RUN is trackdsl's id of a run that waits in a journal; the
    beginning is enough where nothing else has it. What is lost is shown first. The journal of a program that still runs
    is refused; a run that is set aside is not. What MLflow has already stays there. Exits with 0 when it is removed,
    with 1 when it is not.

    If the runs are only at the wrong address, `trackdsl sync --to URI` delivers them elsewhere instead.

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
        help="Where the runs are; TRACKDSL_TRACKING_URI or MLFLOW_TRACKING_URI by default, else ./mlflow.db.",
    )(click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command))


@main.command()
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...")
@click.option("--where", metavar="FILTER", help="Only runs that pass a filter in MLflow's language.")
@click.option(
    "--order-by",
    multiple=True,
    metavar="NAME",
    help="Such as 'accuracy DESC'; may be repeated. Newest first by default.",
)
@click.option(
    "--max", "most", type=click.IntRange(min=0), default=50, show_default=True, metavar="N", help="No more; 0 for all."
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

    Root runs stand first, the newest of them at the top.

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
    """Show a RUN: its parameters, metrics and tags, and how it failed.

    RUN is an id, MLflow's or trackdsl's, the first four characters of it or more, or a name: the newest run of it.

    \b
    Examples:
      trackdsl show 3f2a9c1b
      trackdsl show train --json | jq .metrics.accuracy
    """
    from trackdsl.cli import _query

    _query.show(run, tracking_uri, as_json=as_json)


@main.command()
@click.argument("run")
@click.option("--whole", is_flag=True, help="Begin at the root of the tree that the run is in.")
@_with_store
def tree(run: str, whole: bool, tracking_uri: str | None, as_json: bool) -> None:
    """Show a RUN and everything below it, with statuses and durations. RUN is as for `show`.

    \b
    Examples:
      trackdsl tree pipeline
      trackdsl tree 3f2a9c1b --whole
    """
    from trackdsl.cli import _query

    _query.show_tree(run, tracking_uri, whole=whole, as_json=as_json)


@main.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--all", "everything", is_flag=True, help="Also what is the same in all of them.")
@_with_store
def compare(runs: tuple[str, ...], everything: bool, tracking_uri: str | None, as_json: bool) -> None:
    """Show in what RUNs differ: parameters, metrics, source, tags. RUN is as for `show`.

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
    help="Work in this folder, which is made if need be; the current one by default.",
)
@_with_spool
def demo(directory: Path | None, spool: Path | None) -> None:
    """Run a small scikit-learn pipeline, and show its runs.

    It records into sqlite:///mlflow.db in the folder, unless TRACKDSL_TRACKING_URI or MLFLOW_TRACKING_URI names
    another store. Nothing is downloaded.

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
    help="Write compose.yaml and .env.example there, instead of printing the former.",
)
@click.option("--force", is_flag=True, help="Replace files that are there already.")
def compose(output: Path | None, force: bool) -> None:
    """Print a compose file for an MLflow tracking server.

    The server comes with PostgreSQL and an S3-compatible store, and runs with Docker Compose.

    \b
    Examples:
      trackdsl compose
      trackdsl compose --output tracking
      trackdsl compose --output tracking --force
    """
    from trackdsl.cli._compose import write

    write(output, force=force)
