"""`trackdsl drop`: deletes a journal, or one run of it, that can never be delivered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from trackdsl.cli._contents import Contents, UndeliveredRun, contents
from trackdsl.cli._hosts import WaitingJournal, other_hosts
from trackdsl.cli._journals import spool_for
from trackdsl.cli._status import ago, size
from trackdsl.delivery import journal_requests as _requests
from trackdsl.delivery.dropped_runs import drop_run, dropped_runs
from trackdsl.journal._spool import wake
from trackdsl.query._shown import printable
from trackdsl.store_format.blocked_runs import read_blocked
from trackdsl.store_format.journals import Journal, read_journals

#: How long to wait for a busy delivery process, in seconds. It may be waiting for a server.
_PATIENCE = 30.0
_MOST_NAMED = 8
#: The user has to give at least this many characters of a run's id.
_SHORTEST_ID = 4
_QUESTION = "Delete this? It cannot be restored."


@dataclass(frozen=True)
class _Choice:
    """The journal, or the run in a journal, that the user has chosen."""

    spool: Path
    waiting: WaitingJournal
    held: Contents
    run: UndeliveredRun | None = None

    @property
    def journal(self) -> Journal:
        return self.waiting.journal

    @property
    def called(self) -> str:
        """A description of one line."""
        if self.run is None:
            return f"journal {self.journal.directory.name}, {self.journal.program}"
        return f"run {self.run.id} ({self.run.name or '?'}), {self.journal.program}"


def run(named: Path | None, wanted: str, *, yes: bool, as_json: bool) -> None:
    """Show the records that the user loses, and delete them; exit with 1 if they were not deleted.

    Args:
        named: the spool; the one in use by default.
        wanted: the journal's name, trackdsl's id of the run, or the first characters of one.
        yes: do not ask for confirmation.
        as_json: print JSON.
    """
    found = _find(spool_for(named), wanted)
    _check_has_ended(found)
    if not as_json:
        _print(found)
    if not yes:
        click.confirm(_QUESTION, abort=True, err=as_json)
    try:
        dropped = _drop_journal(found) if found.run is None else _drop_run(found)
    except OSError as error:
        raise click.ClickException(f"it cannot be deleted: {error}") from None
    if as_json:
        click.echo(json.dumps(_structure(found, dropped=dropped), indent=2))
    elif dropped:
        click.echo(
            "It is deleted." if found.run is None else "The run is deleted; the rest of the journal will be delivered."
        )
    if not dropped:
        raise click.ClickException(
            "the delivery process is busy and has not deleted it yet; it does so as soon as it can."
        )


def _drop_journal(found: _Choice) -> bool:
    directory = found.journal.directory
    _requests.ask_to_drop(directory)
    return not _requests.carry_out_all(found.spool, [directory], _PATIENCE)


def _drop_run(found: _Choice) -> bool:
    assert found.run is not None
    drop_run(found.spool, bytes.fromhex(found.run.id))
    wake(found.spool)
    return True


def _check_has_ended(found: _Choice) -> None:
    why_not = found.waiting.why_not
    # A blocked run can be dropped at any time, because no request for it is under way.
    if found.run is not None and any(found.run.id == each.run for each in read_blocked(found.journal.directory)):
        return
    if why_not:
        raise click.ClickException(
            f"{found.journal.program} is not dropped: {why_not}. End the program first; on its own host, if that is "
            "another one."
        )


def _find(spool: Path, wanted: str) -> _Choice:
    everything = list(_all(spool))
    exact = [each for each in everything if each[1].journal.directory.name == wanted]
    if exact:
        return _Choice(*exact[0], contents(exact[0][1].journal))
    found = []
    for where, waiting in everything:
        held = contents(waiting.journal)
        if wanted and waiting.journal.directory.name.startswith(wanted):
            found.append(_Choice(where, waiting, held))
        gone = {id_.hex() for id_ in dropped_runs(waiting.journal.directory)}
        if len(wanted) >= _SHORTEST_ID:
            runs = (run for run in held.runs if run.id.startswith(wanted.lower()) and run.id not in gone)
            found += [_Choice(where, waiting, held, run) for run in runs]
    if not found:
        raise click.ClickException(
            f"no journal is called {wanted!r} or begins with it, and no run that waits in one. `trackdsl status` shows "
            "what is waiting."
        )
    if len(found) > 1:
        names = "\n".join(f"  {printable(each.called)}" for each in found)
        raise click.ClickException(
            f"{len(found)} journals or runs begin with {wanted!r}; write more characters of one of them:\n{names}"
        )
    return found[0]


def _all(spool: Path) -> Iterator[tuple[Path, WaitingJournal]]:
    for journal in read_journals(spool):
        yield spool, WaitingJournal(journal, "it still runs" if journal.alive else "")
    for host in other_hosts(spool):
        yield from ((host.spool, waiting) for waiting in host.waiting)


def _lost(found: _Choice) -> list[UndeliveredRun]:
    """The runs that would be deleted: all of a journal, or one run with those below it."""
    if found.run is None:
        return list(found.held.runs)
    lost = {found.run.id: found.run}
    for each in found.held.runs:  # Parents come before their children.
        if each.parent in lost:
            lost[each.id] = each
    return list(lost.values())


def _print(found: _Choice) -> None:
    journal, held, lost = found.journal, found.held, _lost(found)
    program = journal.program
    if journal.origin is not None:
        program += f" on {journal.origin.host}, {'running' if journal.alive else 'ended'}"
    lines = {"journal": journal.directory.name, "program": program, "goes to": journal.target or "?"}
    if journal.since is not None:
        lines["since"] = ago(journal.since)
    if journal.brief_error:
        lines["error"] = journal.brief_error
    count = held.events if found.run is None else sum(each.events for each in lost)
    lines["events"] = "?" if count is None else f"{count:,} that are not at MLflow"
    if found.run is None:
        lines["files"] = f"{held.files:,} ({size(held.file_bytes)})"
        lines["runs"] = f"{len(lost):,}" + _names(lost)
    else:
        lines = {"run": f"{found.run.id} ({found.run.name or '?'})", **lines}
        lines["below it"] = f"{len(lost) - 1:,}" + _names(lost[1:])
    existing = sum(each.exists for each in lost)
    if existing:
        lines["at MLflow"] = f"{existing:,} of these runs: what MLflow has of them is kept"
    for title, text in lines.items():
        click.echo(f"{title:<10} {printable(text)}")


def _names(runs: Iterable[UndeliveredRun]) -> str:
    names = [each.name or each.id for each in runs]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f": {', '.join(names[:_MOST_NAMED])}{more}" if names else ""


def _structure(found: _Choice, *, dropped: bool) -> dict[str, Any]:
    journal, lost = found.journal, _lost(found)
    whole = found.run is None
    return {
        "dropped": dropped,
        "journal": journal.directory.name,
        "run": None if found.run is None else found.run.id,
        "spool": str(found.spool),
        "source": journal.source,
        "host": None if journal.origin is None else journal.origin.host,
        "target": journal.target,
        "events": found.held.events if whole else sum(each.events for each in lost),
        "files": found.held.files if whole else None,
        "file_bytes": found.held.file_bytes if whole else None,
        "runs": [asdict(each) for each in lost],
    }
