"""`trackdsl demo`: runs a pipeline, waits for its delivery, and shows its runs as MLflow has them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

import trackdsl
from trackdsl._config import resolve as settings
from trackdsl._config.spec import DEFAULT_TRACKING_URI
from trackdsl._core.ids import prefix
from trackdsl._core.redaction import mask_prose
from trackdsl._core.uris import run_page
from trackdsl.cli._console import output
from trackdsl.journal import _spool_choice
from trackdsl.journal._target import target_for
from trackdsl.store_format.journals import read_journals
from trackdsl.store_format.tags import ID_TAG

if TYPE_CHECKING:
    from rich.console import Console

    from trackdsl.query._paged import PagedReader
    from trackdsl.query._rows import FoundRun

#: MLflow takes seconds to import and to set up a new database, on a busy machine many of them.
_PATIENCE = 180.0


def run(directory: Path | None, spool: Path | None, *, as_json: bool) -> None:
    """Run the demo.

    Args:
        directory: the folder to run in; it is created if it does not exist.
        spool: the spool; the one in use by default.
        as_json: print the store and the root runs as JSON.

    Raises:
        click.ClickException: a package is missing, or the runs were not delivered.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise click.ClickException("the demo needs scikit-learn: `pip install scikit-learn`")
    if settings.mode() == "disabled":
        raise click.ClickException("trackdsl is switched off (TRACKDSL_MODE=disabled): unset it to run the demo.")
    # The spool is resolved before the folder changes, because its path may be relative.
    # The address of the run is printed below its tree.
    trackdsl.configure(spool=_spool_choice.find() if spool is None else spool.expanduser().absolute(), show_url=False)
    with _inside(directory):
        started = time.time_ns() // 1_000_000
        _run_pipeline()
        uri = target_for().uri
        if settings.mode() == "offline":
            click.echo("Recorded. TRACKDSL_MODE=offline: `trackdsl sync` delivers the runs to MLflow.", err=as_json)
            return
        _wait()
        _show(uri, started, as_json=as_json)


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
    """Wait until the runs are delivered."""
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
                    "Nothing is lost: `trackdsl sync` delivers them once the cause is fixed."
                )


def _errors() -> list[str]:
    here = os.getpid()
    own = [
        journal
        for journal in read_journals(_spool_choice.find())
        if journal.origin is not None and journal.origin.pid == here
    ]
    return [
        journal.brief_error or "artifacts wait for their store"
        for journal in own
        if journal.progress.blocked_since or journal.progress.deferred
    ]


def _show(uri: str, started: int, *, as_json: bool) -> None:
    from trackdsl.delivery.environment import prepare_environment
    from trackdsl.query._store import opened
    from trackdsl.query._tree import tree_of

    prepare_environment()
    console = output(width_of_pipes=120)
    with opened(uri) as reader:
        roots = _read_back(reader, started)
        for root in () if as_json else roots:
            console.print(tree_of(root, reader))
    if as_json:
        runs = [{"name": root.name, "run_id": root.run_id} for root in roots]
        click.echo(json.dumps({"store": mask_prose(uri), "runs": runs}))
        return
    _print_how_to_open(console, uri, roots)


def _read_back(reader: PagedReader, started: int) -> list[FoundRun]:
    """The root runs of this process, in the order they began, as MLflow has them."""
    from trackdsl.query._rows import Search

    experiments = tuple(one.id for one in reader.experiments() if one.name == "trackdsl-demo")
    mine = f"tags.`{ID_TAG}` LIKE '{prefix().hex()}%' AND attributes.start_time >= {started}"
    found = reader.search(Search(experiments, mine, order_by=("attributes.start_time ASC", f"tags.`{ID_TAG}` ASC")))
    return [run for run in found if run.parent is None]


def _print_how_to_open(console: Console, uri: str, roots: list[FoundRun]) -> None:
    shown = mask_prose(uri)
    if uri.startswith(("http://", "https://")):
        for root in roots:
            page = run_page(shown, root.experiment_id, root.run_id)
            console.print(f"\nOpen it: {page}", soft_wrap=True)
        return
    store = f"--tracking-uri {shlex.quote(shown)}"
    console.print("\nOpen it in MLflow's UI, or write a page about it:", soft_wrap=True)
    for command in ("trackdsl ui", *(f"trackdsl report {shlex.quote(root.name)}" for root in roots)):
        console.print(f"  {command} {store}", soft_wrap=True, markup=False)
    if uri == target_for(DEFAULT_TRACKING_URI).uri:
        console.print("In this folder, the commands work without --tracking-uri.")
