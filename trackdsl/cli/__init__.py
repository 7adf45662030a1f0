"""The command line: `trackdsl ls`, `show`, `tree`, `compare`, `status`, `sync`, and others.

Each command imports what it needs inside its function. `status` has to be quick, and importing MLflow takes seconds.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from trackdsl._core.suggest import suggestion_for
from trackdsl._core.version import __version__
from trackdsl.cli._completion import complete_journal
from trackdsl.cli._file_commands import export, report, trace
from trackdsl.cli._program_commands import Started, completion, run, watch, with_spool
from trackdsl.cli._run_commands import changes, compare, ls, open_run, show, tree, ui
from trackdsl.cli._standard_output import fault_of_output, replace_unknown_characters
from trackdsl.cli._wrapping import wrapped
from trackdsl.errors import TrackdslError

__all__ = ["main"]

#: In characters: click's help fits terminals from the first width on, ours from the second.
_NARROW, _NARROWEST = 52, 30


class _Group(click.Group):
    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except Started as started:
            execute = started.execute
        except OSError as error:
            fault = fault_of_output(error)
            if fault is None:
                raise
            click.echo(f"Error: cannot write to the standard output: {fault}.", err=True)
            sys.exit(1)
        # Here, as click handles Ctrl-C, closed pipes and its own exceptions: those of the program are the program's.
        execute()
        return None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = suggestion_for(args[0], self.list_commands(ctx))
            raise click.UsageError(f"{error.message.rstrip('.')}{hint.text}", ctx) from None
        if command is not run:  # The streams of a program are its own.
            replace_unknown_characters()
        return name, command, rest

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        # By itself, click writes no help for terminals that are narrower than this.
        columns = shutil.get_terminal_size().columns
        if columns < _NARROW:
            kwargs.setdefault("terminal_width", max(columns - 1, _NARROWEST))
        return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            vars(error)["message"] = wrapped(error.message, sys.stderr, before="Error: ")
            raise
        except TrackdslError as error:
            # For example a bad setting. The message names the fix, and a traceback would hide it.
            raise click.ClickException(wrapped(str(error), sys.stderr, before="Error: ")) from None


@click.group(cls=_Group)
@click.version_option(__version__, prog_name="trackdsl")
def main() -> None:
    """Show the runs that MLflow has, and deliver the records that it does not have yet.

    If the help of a command says nothing else, its exit code is 0 if it did what it was asked to, 1 if it could not,
    and 2 for wrong options.

    \b
    Examples:
      trackdsl demo            run a small pipeline and show its runs
      trackdsl run train.py    run a program, and record it as a run
      trackdsl ls churn        list the runs of an experiment
      trackdsl tree pipeline   show a run and all runs below it
      trackdsl report pipeline write a page about them
      trackdsl watch           show what is running, live
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
@with_spool
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
@with_spool
def status(as_json: bool, spool: Path | None) -> None:
    """Show the records that MLflow does not have yet.

    The exit code is 0 whether records wait or not, and 1 if the spool cannot be used.

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
@click.option("--json", "as_json", is_flag=True, help="Then print what `trackdsl status --json` prints.")
@with_spool
def sync(
    timeout: float,
    all_hosts: bool,
    host: str | None,
    assume_ended: bool,
    to: str | None,
    only_from: str | None,
    as_json: bool,
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
      trackdsl sync --json | jq .waiting
    """
    if assume_ended and host is None:
        raise click.UsageError("--assume-ended needs --host HOST: name the host whose programs have ended.")
    if only_from is not None and to is None:
        raise click.UsageError("--from needs --to URI: name the store to deliver to.")
    if to is not None and (all_hosts or host is not None):
        raise click.UsageError("--to delivers records of this host only: use it without --all-hosts and --host.")
    from trackdsl.cli._status import shown_afterwards

    with shown_afterwards(spool) if as_json else contextlib.nullcontext():
        if to is not None:
            from trackdsl.cli import _sync_to

            _sync_to.run(spool, timeout, to, only_from)
        elif all_hosts or host is not None:
            from trackdsl.cli import _sync_hosts

            _sync_hosts.run(spool, timeout, host, assume_ended=assume_ended)
        else:
            from trackdsl.cli._sync import run

            run(spool, timeout)


@main.command()
@click.argument("what", metavar="JOURNAL|RUN", shell_complete=complete_journal)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@with_spool
def drop(what: str, yes: bool, as_json: bool, spool: Path | None) -> None:
    """Delete a JOURNAL or a RUN that can never be delivered.

    The records are deleted for ever. With a RUN, the runs below it are deleted too.

    JOURNAL is a name that `trackdsl status` shows. RUN is trackdsl's id of a run that waits in a journal. The first
    characters are enough if they are unique. The command first shows which records you lose. It refuses to delete the
    journal of a program that still runs, but it can delete a single blocked run. It does not change runs that
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


@main.command()
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="PATH",
    help="The folder to run in. It is created if it does not exist. Default: the current folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the store and the root runs as JSON instead of the tree.")
@with_spool
def demo(directory: Path | None, spool: Path | None, as_json: bool) -> None:
    """Run a small scikit-learn pipeline, and show its runs.

    The runs are delivered to sqlite:///mlflow.db in the folder, unless TRACKDSL_TRACKING_URI or MLFLOW_TRACKING_URI
    names another store. The command downloads nothing.

    The exit code is 0 if the runs were recorded, else 1.

    \b
    Examples:
      trackdsl demo
      trackdsl demo --directory /tmp/demo
      trackdsl demo --json | jq -r '.runs[].run_id'
      TRACKDSL_TRACKING_URI=http://localhost:5000 trackdsl demo
    """
    from trackdsl.cli._demo import run

    run(directory, spool, as_json=as_json)


@main.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write compose.yaml and .env.example to this folder. Default: print compose.yaml.",
)
@click.option("--force", is_flag=True, help="Replace existing files.")
@click.option("--json", "as_json", is_flag=True, help="Print the files, or the paths of those written, as JSON.")
def compose(output: Path | None, force: bool, as_json: bool) -> None:
    """Print a Docker Compose file for an MLflow tracking server.

    The server uses PostgreSQL and an S3-compatible store.

    The exit code is 0 if the file was printed or the files were written, and 1 if one exists or cannot be written.

    \b
    Examples:
      trackdsl compose
      trackdsl compose --output tracking
      trackdsl compose --output tracking --force
      trackdsl compose --output tracking --json | jq -r '.files[]'
    """
    from trackdsl.cli._compose import write

    write(output, force=force, as_json=as_json)


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--auth", is_flag=True, help="With users, passwords and permissions: MLflow's basic authentication.")
@click.option("--json", "as_json", is_flag=True, help="Print address, process and app as JSON, before it starts.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF MLFLOW SERVER]...")
def server(auth: bool, as_json: bool, options: tuple[str, ...]) -> None:
    """Start an MLflow server that runs are delivered to faster.

    It is MLflow's own server with a plugin: programs with trackdsl send it many runs in one request. Nothing changes
    for other programs. All other options are those of `mlflow server`.

    The command becomes `mlflow server`, so the exit code is that of `mlflow server`.

    \b
    Examples:
      trackdsl server
      trackdsl server --backend-store-uri postgresql://user:password@host/mlflow
      trackdsl server --auth --workers 4
      trackdsl server --port 8080 --json | head -1 | jq -r .url
    """
    from trackdsl.cli._server import run

    run(options, users=auth, as_json=as_json)


for _command in (run, completion, ls, show, tree, changes, compare, report, trace, export, open_run, ui, watch):
    main.add_command(_command)
