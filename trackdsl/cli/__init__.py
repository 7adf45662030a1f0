"""The command line: `trackdsl status`, `trackdsl sync`, `trackdsl demo`.

What a command needs is imported by it alone: `status` has to be quick, and MLflow takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from trackdsl._version import __version__
from trackdsl.errors import TrackdslError

__all__ = ["main"]

C = TypeVar("C", bound=Callable[..., Any])


class _Group(click.Group):
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
    """Look after what trackdsl has recorded and MLflow does not have yet.

    \b
    Examples:
      trackdsl demo            run a small pipeline and look at its runs
      trackdsl status          what is waiting, and why
      trackdsl sync            deliver it now, and wait until it is there
    """


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
@_with_spool
def sync(timeout: float, spool: Path | None) -> None:
    """Deliver everything that is waiting, here and now.

    Exits with 0 when nothing is left, with 1 when something is, and with 130 on Ctrl-C. What is left is kept, and
    nothing is delivered twice. A program that still runs counts as delivered up to where it is now.

    \b
    Examples:
      trackdsl sync
      trackdsl sync --timeout 300     for a slow server
      TRACKDSL_MODE=offline python train.py && trackdsl sync
    """
    from trackdsl.cli._sync import run

    run(spool, timeout)


@main.command()
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="PATH",
    help="Work in this folder, which is made if need be; the current one by default.",
)
@_with_spool
def demo(directory: Path | None, spool: Path | None) -> None:
    """Run a small scikit-learn pipeline, and show its runs as MLflow has them.

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
