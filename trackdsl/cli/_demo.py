"""`trackdsl demo`: run a real pipeline, wait for its delivery, and show what MLflow has."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import trackdsl
from trackdsl import settings
from trackdsl._secrets import mask_prose
from trackdsl._target import target_for
from trackdsl.cli._journals import look
from trackdsl.journal import _spool

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree

#: MLflow takes seconds to import and to set up a new database, on a busy machine many of them.
_PATIENCE = 180.0


def run(directory: Path | None, spool: Path | None) -> None:
    """Run the demo.

    Args:
        directory: where to work; made if need be.
        spool: the spool; the one in use by default.

    Raises:
        click.ClickException: something it needs is missing, or its runs did not arrive.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise click.ClickException("the demo needs scikit-learn: `pip install scikit-learn`")
    if settings.mode() == "disabled":
        raise click.ClickException("trackdsl is switched off (TRACKDSL_MODE=disabled): unset it to run the demo.")
    # Named before the folder changes, which a relative path would change with.
    trackdsl.configure(spool=_spool.find() if spool is None else spool.expanduser().absolute())
    with _inside(directory):
        started = time.time_ns() // 1_000_000
        _run_pipeline()
        uri = target_for().uri
        if settings.mode() == "offline":
            click.echo("Recorded. TRACKDSL_MODE=offline: `trackdsl sync` brings the runs to MLflow.")
            return
        _wait()
        _show(uri, started)


@contextlib.contextmanager
def _inside(directory: Path | None) -> Iterator[None]:
    if directory is None:
        yield
        return
    before = Path.cwd()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        os.chdir(directory)
    except OSError as error:
        raise click.ClickException(
            f"cannot work in {directory} ({error.strerror}): give --directory another folder."
        ) from None
    try:
        yield
    finally:
        os.chdir(before)


def _run_pipeline() -> None:
    click.echo("Training three classifiers of handwritten digits …", err=True)
    from trackdsl.cli import _demo_pipeline

    _demo_pipeline.pipeline()


def _wait() -> None:
    """Wait until the runs are at MLflow."""
    from rich.console import Console

    console = Console(stderr=True)
    line = "Waiting for delivery to MLflow …"
    give_up = time.monotonic() + _PATIENCE
    if not console.is_terminal:
        click.echo(line, err=True)
    with console.status(line):
        while not trackdsl.flush():
            errors = _errors()
            if errors or time.monotonic() > give_up:
                reason = errors[0] if errors else "the delivery process is too slow"
                raise click.ClickException(
                    f"the runs are recorded, but not at MLflow yet: {reason}\n"
                    "Nothing is lost: `trackdsl sync` delivers them once the cause is mended."
                )


def _errors() -> list[str]:
    here = os.getpid()
    own = [journal for journal in look(_spool.find()) if journal.origin is not None and journal.origin.pid == here]
    return [
        journal.brief_error or "artifacts wait for their store"
        for journal in own
        if journal.progress.blocked_since or journal.progress.deferred
    ]


def _show(uri: str, started: int) -> None:
    from rich.console import Console

    from trackdsl.delivery._process import prepare_environment

    prepare_environment()
    runs = _read_back(uri, started)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    children: dict[str | None, list[Any]] = {}
    for found in runs:
        children.setdefault(found.data.tags.get("mlflow.parentRunId"), []).append(found)
    for root in children.get(None, []):
        console.print(_tree(root, children))
    _tell_how_to_open(console, uri, children.get(None, []))


def _read_back(uri: str, started: int) -> list[Any]:
    """The runs of this process, in the order they began, as MLflow has them."""
    import platform

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("trackdsl-demo")
    if experiment is None:
        return []
    return list(
        client.search_runs(
            [experiment.experiment_id],
            f"tags.`trackdsl.pid` = '{os.getpid()}' AND tags.`trackdsl.host` = '{platform.node()}'"
            f" AND attributes.start_time >= {started}",
            order_by=["attributes.start_time ASC", "tags.`trackdsl.id` ASC"],
        )
    )


def _tree(found: Any, children: dict[str | None, list[Any]], above: Tree | None = None) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    label = Text.assemble((found.info.run_name, "bold"), "  ", (found.info.status, _colour(found.info.status)))
    label.append(f"  {_duration(found.info)}")
    for name, value in sorted(found.data.metrics.items()):
        label.append(f"  {name} {value:.4g}", "cyan")
    tree = Tree(label) if above is None else above.add(label)
    for child in children.get(found.info.run_id, []):
        _tree(child, children, tree)
    return tree


def _colour(status: str) -> str:
    return {"FINISHED": "green", "RUNNING": "yellow"}.get(status, "red")


def _duration(info: Any) -> str:
    if info.end_time is None:
        return "not ended"
    milliseconds = info.end_time - info.start_time
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _tell_how_to_open(console: Console, uri: str, roots: list[Any]) -> None:
    shown = mask_prose(uri)
    if uri.startswith(("http://", "https://")):
        for root in roots:
            page = f"{shown.rstrip('/')}/#/experiments/{root.info.experiment_id}/runs/{root.info.run_id}"
            console.print(f"\nOpen it: {page}", soft_wrap=True)
        return
    console.print("\nOpen it in the MLflow UI, at http://localhost:5000:", soft_wrap=True)
    console.print(f"  mlflow ui --backend-store-uri {shlex.quote(shown)} --port 5000", soft_wrap=True, markup=False)
    if uri == target_for(settings.DEFAULT_TRACKING_URI).uri:
        console.print("In this folder, `mlflow ui` alone does the same.")
