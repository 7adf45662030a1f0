"""Options that the commands on runs share, as decorators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])

with_tracking_uri = click.option(
    "--tracking-uri",
    metavar="URI",
    help="The store. Default: TRACKDSL_TRACKING_URI or MLFLOW_TRACKING_URI, else ./mlflow.db.",
)


def with_store(command: C) -> C:
    """Add `--tracking-uri` and `--json` to a command."""
    return with_tracking_uri(
        click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)
    )


def with_superseded(command: C) -> C:
    """Add `--superseded` to a command."""
    return click.option(
        "--superseded", is_flag=True, help="Also runs of notebook cells that were executed again since."
    )(command)


def with_output(help_: str, **options: Any) -> Callable[[C], C]:
    """Add `--output` to a command that writes a file.

    Args:
        help_: what the file is.
        options: more options of `click.option`.
    """
    kind = click.Path(dir_okay=False, path_type=Path)
    return click.option("-o", "--output", type=kind, metavar="FILE", help=help_, **options)
