"""`trackdsl drop`: the removal, for good, of what can never be delivered."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from trackdsl.cli._contents import Contents, contents
from trackdsl.cli._hosts import Waiting, other_hosts
from trackdsl.cli._journals import Journal, look, place
from trackdsl.cli._status import ago, size
from trackdsl.delivery import _requests
from trackdsl.query._shown import printable

#: How long to wait for a delivery process that is busy, in seconds: a server may take so long to answer.
_PATIENCE = 30.0
_MOST_NAMED = 8


@dataclass(frozen=True)
class _Found:
    """A journal, in its spool."""

    spool: Path
    waiting: Waiting

    @property
    def journal(self) -> Journal:
        return self.waiting.journal


def run(named: Path | None, wanted: str, *, yes: bool, as_json: bool) -> None:
    """Remove a journal for good, once the user has seen what is lost; ends the program with 1 where it stays.

    Args:
        named: the spool; the one in use by default.
        wanted: the journal's name, or what it begins with.
        yes: do not ask.
        as_json: print JSON.
    """
    found = _find(place(named), wanted)
    if found.waiting.why_not:
        raise click.ClickException(
            f"{found.journal.program} is not dropped: {found.waiting.why_not}. End the program first; on its own host, "
            "if that is another one."
        )
    held = contents(found.journal)
    if not as_json:
        _print(found.journal, held)
    if not yes:
        click.confirm("Remove this for good? Nothing brings it back.", abort=True, err=as_json)
    try:
        _requests.ask_to_drop(found.journal.directory)
        left = _requests.settle(found.spool, [found.journal.directory], _PATIENCE)
    except OSError as error:
        raise click.ClickException(f"the journal cannot be removed: {error}") from None
    if as_json:
        click.echo(json.dumps(_structure(found, held, dropped=not left), indent=2))
    elif not left:
        click.echo("It is removed.")
    if left:
        raise click.ClickException(
            "the delivery process is busy and has not removed it yet; it does so as soon as it can."
        )


def _find(spool: Path, wanted: str) -> _Found:
    everything = [_Found(spool, Waiting(each, "it still runs" if each.alive else "")) for each in look(spool)]
    everything += [_Found(host.spool, each) for host in other_hosts(spool) for each in host.waiting]
    found = [each for each in everything if each.journal.directory.name == wanted]
    found = found or [each for each in everything if wanted and each.journal.directory.name.startswith(wanted)]
    if not found:
        raise click.ClickException(
            f"no journal is called {wanted!r}, and none begins with it. `trackdsl status` shows what is waiting."
        )
    if len(found) > 1:
        names = "\n".join(f"  {each.journal.directory.name}  {each.journal.program}" for each in found)
        raise click.ClickException(f"{len(found)} journals begin with {wanted!r}; give more of the name:\n{names}")
    return found[0]


def _print(journal: Journal, held: Contents) -> None:
    program = journal.program if journal.origin is None else f"{journal.program} on {journal.origin.host}, ended"
    lines = {"journal": journal.directory.name, "program": program, "goes to": journal.target or "?"}
    if journal.since is not None:
        lines["since"] = ago(journal.since)
    if journal.brief_error:
        lines["error"] = journal.brief_error
    lines["events"] = "?" if held.events is None else f"{held.events:,} that are not at MLflow"
    lines["files"] = f"{held.files:,} ({size(held.file_bytes)})"
    names = [run.name or run.id for run in held.runs]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    lines["runs"] = f"{len(names):,}" + (f": {', '.join(names[:_MOST_NAMED])}{more}" if names else "")
    existing = sum(run.exists for run in held.runs)
    if existing:
        lines["at MLflow"] = f"{existing:,} of these runs, unfinished: they stay as they are there"
    for title, text in lines.items():
        click.echo(f"{title:<10} {printable(text)}")


def _structure(found: _Found, held: Contents, *, dropped: bool) -> dict[str, Any]:
    journal = found.journal
    return {
        "dropped": dropped,
        "journal": journal.directory.name,
        "spool": str(found.spool),
        "source": journal.source,
        "host": None if journal.origin is None else journal.origin.host,
        "target": journal.target,
        "events": held.events,
        "files": held.files,
        "file_bytes": held.file_bytes,
        "runs": [asdict(run) for run in held.runs],
    }
