"""`trackdsl status`: shows which records wait in the spool, and why."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from trackdsl._core.events import SCHEMA
from trackdsl._core.redaction import mask_prose
from trackdsl.cli._console import output
from trackdsl.cli._hosts import Host, other_hosts, summary
from trackdsl.cli._journals import WAY_OUT, spool_for
from trackdsl.cli._wrapping import wrapped
from trackdsl.journal._lock import is_held
from trackdsl.journal._spool import LOCK, LOG
from trackdsl.store_format.blocked_runs import read_blocked
from trackdsl.store_format.heartbeat_monitor import HeartbeatMonitor
from trackdsl.store_format.journals import MOST_COUNTED, Journal, read_journals
from trackdsl.store_format.losses import counted
from trackdsl.store_format.root_runs import left
from trackdsl.store_format.sinks import SLOWER

#: The length of the first part of a journal's name, with the hyphen.
_NAME_WIDTH = 21
#: A delivery process that has written no heartbeat for this time may have been stopped, in seconds.
_SILENT = 30.0
#: On narrower terminals a journal's name is broken after its first part.
_NARROW = 200


def show(named: Path | None, *, as_json: bool) -> None:
    """Print what waits in a spool.

    Args:
        named: the spool; the one in use by default.
        as_json: print JSON instead of a table.
    """
    spool = spool_for(named)
    found = list(read_journals(spool))
    hosts = other_hosts(spool)
    if as_json:
        click.echo(json.dumps(_structure(spool, found, hosts), indent=2))
        return
    waiting = [journal for journal in found if journal.waits]
    if waiting:
        _print_table(found)
        click.echo(f"spool: {spool}")
        click.echo(_next_step(spool, waiting))
        if any(journal.is_stuck for journal in waiting):
            click.echo(f"for records that the store will never accept: {WAY_OUT}")
    else:
        recording = f"; {_programs(len(found))} recording, all delivered so far" if found else ""
        click.echo(wrapped(f"Nothing is waiting in {spool}{recording}."))
        if count := left(spool):
            click.echo(f"{unmade(count)}; `trackdsl sync` does it now.")
    if hosts:
        _print_hosts(hosts)


@contextlib.contextmanager
def shown_afterwards(named: Path | None) -> Iterator[None]:
    """Print JSON about a spool after the block, however it ends; what the block prints goes to the standard error.

    Args:
        named: the spool; the one in use by default.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        show(named, as_json=True)


def ago(nanoseconds: int) -> str:
    """How long ago a time is, in a readable form.

    >>> ago(time.time_ns() - 7_200_000_000_000)
    '2 h ago'
    """
    seconds = max(0, (time.time_ns() - nanoseconds) // 1_000_000_000)
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def unmade(count: int) -> str:
    """The message about root runs that were delivered, and lack what delivery makes of them afterwards.

    >>> unmade(1)
    'What changed in 1 run is not written yet, or its report or trace is not made'
    """
    if count == 1:
        return "What changed in 1 run is not written yet, or its report or trace is not made"
    return f"What changed in {count} runs is not written yet, or their reports or traces are not made"


def size(count: float) -> str:
    """A number of bytes in a readable form.

    >>> size(120), size(34_567)
    ('120 B', '34.6 kB')
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def why_not_delivered(journal: Journal) -> str:
    """The message about a journal that cannot be read."""
    if journal.damage is not None:
        return f"{journal.damage}; it is not delivered, and stays in {journal.directory}"
    if journal.origin is None:
        return (
            "its `origin` file is damaged, so its store is unknown; it is not delivered, and stays in "
            f"{journal.directory}"
        )
    return (
        f"written by a newer trackdsl (version {journal.newer} of the events; this one reads up to {SCHEMA}), so it is "
        "not delivered: `pip install --upgrade trackdsl`"
    )


def is_delivering(spool: Path) -> bool:
    """Whether a process delivers from this spool now."""
    try:
        return is_held(spool / LOCK)
    except OSError:
        return False


def _doing(spool: Path, waiting: list[Journal]) -> str:
    """What the delivery of some journals does now, in a few words: until a store has failed, nothing else says it."""
    if not is_delivering(spool):
        return ""
    monitor = HeartbeatMonitor((spool, journal.origin.uri) for journal in waiting if journal.origin is not None)
    monitor.update(progressed=False)
    silence = monitor.silence()
    return monitor.description() if silence < _SILENT else f"no heartbeat for {silence:.0f} s; see {spool / LOG}"


def _programs(count: int) -> str:
    return "1 program is" if count == 1 else f"{count} programs are"


def _next_step(spool: Path, waiting: list[Journal]) -> str:
    if is_delivering(spool):
        doing = _doing(spool, waiting)
        return f"a delivery process is running{f' ({doing})' if doing else ''}; `trackdsl sync` waits for it"
    if all(journal.problem for journal in waiting):
        return "no delivery process is running, and starting one would not help: see the reasons above"
    return "no delivery process is running; `trackdsl sync` delivers now"


def _print_hosts(hosts: list[Host]) -> None:
    for host in hosts:
        click.echo(f"\nOf the host {host.title}:")
        unsure = {each.journal.directory for each in host.waiting if each.why_not and not each.runs}
        _print_table([each.journal for each in host.waiting], unsure)
        click.echo(f"spool: {host.spool}")
    click.echo(f"\n{summary(hosts)}")


def _print_table(journals: list[Journal], unsure: Collection[Path] = ()) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_edge=False, pad_edge=False)
    for title in ("program", "goes to", "waiting", "since", "remarks"):
        # Folded, never cut, because the user needs the whole address or error.
        table.add_column(title, overflow="fold", min_width=_NAME_WIDTH if title == "program" else None)
    console = output()
    for journal in journals:
        program, *others = _cells(journal, sure=journal.directory not in unsure)
        # Broken after the first part, which can be copied and is enough to name the journal.
        program += "\n" + journal.directory.name.replace("-", "-\n" if console.width < _NARROW else "-", 1)
        table.add_row(*(Text(cell) for cell in (program, *others)))
    console.print(table)


def _cells(journal: Journal, *, sure: bool) -> tuple[str, ...]:
    origin = journal.origin
    program = f"{journal.program}\n{'running' if journal.alive else 'ended' if sure else 'running or ended'}"
    if origin is not None:
        program += f" on {origin.host}"
    events, lost = journal.count()
    more = "+" if events == MOST_COUNTED else ""
    left = "" if journal.problem else f"{events:,}{more} events\n{size(journal.bytes_left())}"
    since = journal.since
    return program, journal.target or "?", left, "" if since is None else ago(since), "\n".join(_remarks(journal, lost))


def _remarks(journal: Journal, lost: int) -> list[str]:
    progress = journal.progress
    found = []
    if journal.problem is not None:
        found.append(why_not_delivered(journal))
    elif journal.wrong_target is not None:
        found.append(f"this is not a valid tracking URI: {journal.wrong_target}")
    if progress.blocked_since and journal.problem is None:
        found.append(f"failing for {ago(progress.blocked_since).removesuffix(' ago')}: {journal.brief_error}")
    elif progress.error and journal.problem is None:
        found.append(journal.brief_error)
    if (sink := journal.sink) is not None and sink.reason:
        found.append(f"delivered through {SLOWER[sink.way]}, which is slower: {mask_prose(sink.reason)}")
    found += [f"{what} is missing: its records are lost" for what in journal.missing()]
    until = "until the cause is fixed; `trackdsl status --json` lists"
    elsewhere = "that another machine delivers"
    artifacts = 0 if progress.blocked else progress.deferred - progress.held
    for count, one, many in (
        (progress.blocked, f"run is blocked {until} it", f"runs are blocked {until} them"),
        (artifacts, "artifact waits for its store", "artifacts wait for their store"),
        (progress.held, f"event waits for a run {elsewhere}", f"events wait for runs {elsewhere}"),
        (progress.damaged, "damaged record was skipped", "damaged records were skipped"),
        (progress.unknown, "event belongs to an unknown run", "events belong to unknown runs"),
        (progress.refused, "item was refused by MLflow", "items were refused by MLflow"),
        (lost, "event could not be recorded", "events could not be recorded"),
    ):
        if count:
            found.append(counted(count, one, many))
    return found


def _structure(spool: Path, found: list[Journal], hosts: list[Host]) -> dict[str, Any]:
    return {
        "spool": str(spool),
        "delivering": is_delivering(spool),
        "doing": _doing(spool, [journal for journal in found if journal.waits]) or None,
        "waiting": sum(journal.waits for journal in found),
        "unmade": left(spool),
        "journals": [_entry(journal) for journal in found],
        "other_hosts": [_host_entry(host) for host in hosts],
    }


def _host_entry(host: Host) -> dict[str, Any]:
    return {
        "host": host.name,
        "spool": str(host.spool),
        "delivering": is_delivering(host.spool),
        "waiting": len(host.waiting),
        "journals": [
            {**_entry(each.journal), "ended": not each.why_not, "why_not": each.why_not or None}
            for each in host.waiting
        ],
    }


def _entry(journal: Journal) -> dict[str, Any]:
    origin, progress = journal.origin, journal.progress
    events, lost = journal.count()
    sink = journal.sink
    return {
        "journal": journal.directory.name,
        "source": None if origin is None else journal.source,
        "pid": None if origin is None else origin.pid,
        "host": None if origin is None else origin.host,
        "alive": journal.alive,
        "target": journal.target,
        "waits": journal.waits,
        "problem": journal.problem,
        "target_problem": journal.wrong_target,
        "written_to": None if sink is None else sink.way,
        "why_slower": None if sink is None else mask_prose(sink.reason) or None,
        "schema": journal.newer,
        "events": events,
        "events_exact": events < MOST_COUNTED,
        "bytes": journal.bytes_left(),
        "since": _iso(journal.since),
        "blocked_since": _iso(progress.blocked_since or None),
        "error": journal.error or None,
        "deferred": progress.deferred - progress.held,
        "held": progress.held,
        "blocked_runs": [
            {"run": run.run, "name": mask_prose(run.name), "reason": mask_prose(run.reason)}
            for run in read_blocked(journal.directory)
        ],
        "damaged": progress.damaged,
        "orphans": progress.unknown,
        "missing": journal.missing(),
        "refused": progress.refused,
        "lost": lost,
    }


def _iso(nanoseconds: int | None) -> str | None:
    if nanoseconds is None:
        return None
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):  # From a damaged file.
        return None
