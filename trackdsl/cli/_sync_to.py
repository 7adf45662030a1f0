"""`trackdsl sync --to URI`: delivers waiting records to another store than the recorded one."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from trackdsl._config import resolve as settings
from trackdsl._core import uris as _uris
from trackdsl._core.redaction import mask_prose
from trackdsl.cli._hosts import relatives
from trackdsl.cli._journals import spool_for
from trackdsl.cli._sync import deliver
from trackdsl.delivery import journal_requests as _requests
from trackdsl.journal._origin import read_origin
from trackdsl.store_format.journals import Journal, read_journals

#: How long to wait for a busy delivery process, in seconds. It may be waiting for a server.
_PATIENCE = 30.0


def run(named: Path | None, timeout: float, to: str, only_from: str | None) -> None:
    """Deliver the journals of ended programs to another store, and exit with 1 if something is left or lost.

    Args:
        named: the spool; the one in use by default.
        timeout: give up after this many seconds without progress.
        to: the tracking URI of the store.
        only_from: only journals that were recorded for this store.

    Raises:
        SettingsError: a tracking URI is not valid.
    """
    spool = spool_for(named)
    uri = _uris.absolute_uri(settings.checked("tracking_uri", to, "--to"), os.getcwd())
    everything = list(read_journals(spool))
    wanted = [journal for journal in everything if journal.waits and _is_chosen(journal, only_from, uri)]
    if not wanted:
        _print_nothing_waits(spool, everything, only_from)
        return
    reasons = _why_they_stay(everything, wanted)
    movable = [journal for journal in wanted if journal.directory not in reasons]
    moved = _move(spool, movable, uri, reasons)
    done = True
    if moved:
        click.echo(f"{_count(moved)} to {mask_prose(uri)} from now on.")
        done = deliver(spool, timeout, moved)
    if reasons:
        click.echo("These journals keep their store:", err=True)
        for journal in wanted:
            if journal.directory in reasons:
                click.echo(f"  {journal.program}, for {journal.target}: {reasons[journal.directory]}", err=True)
    if reasons or not done:
        sys.exit(1)


def _count(moved: Iterable[Path]) -> str:
    count = len(list(moved))
    return "1 journal goes" if count == 1 else f"{count} journals go"


def _is_chosen(journal: Journal, only_from: str | None, to: str) -> bool:
    if journal.origin is None or journal.problem or journal.origin.uri == to:
        return False
    if only_from is None or journal.target == only_from:
        return True
    return _bare(journal.origin.uri) in (_bare(only_from), _bare(_uris.absolute_uri(only_from, os.getcwd())))


def _bare(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri).rstrip("/")


def _print_nothing_waits(spool: Path, everything: list[Journal], only_from: str | None) -> None:
    targets = sorted({journal.target for journal in everything if journal.waits and journal.target})
    if only_from is None or not targets:
        click.echo(f"Nothing is waiting in {spool} for another store.")
        return
    raise click.ClickException(
        f"nothing is waiting for {mask_prose(only_from)}; something is for {', '.join(targets)}."
    )


def _why_they_stay(everything: list[Journal], wanted: list[Journal]) -> dict[Path, str]:
    """The reason for each journal that cannot be delivered to another store."""
    reasons = {journal.directory: reason for journal in everything if (reason := _why_it_stays(journal))}
    chosen = {journal.directory for journal in wanted}
    for group in relatives(everything):
        staying = [j for j in group if j.directory in reasons or (j.waits and j.directory not in chosen)]
        for journal in group if staying else ():
            reasons.setdefault(
                journal.directory, f"its runs are connected with those of {staying[0].program}, which keeps its store"
            )
    return {directory: reason for directory, reason in reasons.items() if directory in chosen}


def _why_it_stays(journal: Journal) -> str:
    if journal.alive:
        return "it still runs"
    if _requests.has_runs(journal.directory):
        return (
            "some of its runs exist in that store already, so the rest must go there too; if that store is gone, "
            f"`trackdsl drop {journal.directory.name}` deletes the records that wait"
        )
    return ""


def _move(spool: Path, movable: list[Journal], uri: str, reasons: dict[Path, str]) -> set[Path]:
    """Give journals another store; adds to `reasons` why a journal keeps its store."""
    try:
        for journal in movable:
            assert journal.origin is not None
            _requests.ask_to_move(journal.directory, journal.origin, uri)
        left = _requests.carry_out_all(spool, [journal.directory for journal in movable], _PATIENCE)
    except OSError as error:
        raise click.ClickException(f"the journals cannot be given another target: {error}") from None
    moved = set()
    for journal in movable:
        origin = read_origin(journal.directory)
        if origin is not None and origin.uri == uri:
            moved.add(journal.directory)
        elif journal.directory in left:
            reasons[journal.directory] = "the delivery process is busy; it moves the journal as soon as it can"
        elif journal.directory.is_dir():
            reasons[journal.directory] = _why_it_stays(journal) or "it has just been delivered"
    return moved
