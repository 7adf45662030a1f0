"""`trackdsl sync --all-hosts` and `--host`: deliver what programs recorded on other hosts."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from trackdsl.cli._hosts import Host, WaitingJournal, other_hosts
from trackdsl.cli._journals import spool_for
from trackdsl.cli._sync import deliver
from trackdsl.journal._spool import check_spool


def run(named: Path | None, timeout: float, host: str | None, *, assume_ended: bool) -> None:
    """Deliver the journals of ended programs on other hosts, and exit with 1 if something is left or lost.

    Args:
        named: the spool; the one in use by default. It is delivered first, unless a host is named.
        timeout: give up after this many seconds without progress.
        host: deliver only the records of this host.
        assume_ended: the user knows that all programs of that host have ended.
    """
    spool = spool_for(named)
    hosts = other_hosts(spool, beside_any=True)
    done = True
    if host is None:
        click.echo("This host:")
        done = deliver(spool, timeout)
        if not hosts:
            click.echo("Nothing of other hosts is waiting.")
    else:
        hosts = _called(host, hosts)
    for each in hosts:
        click.echo(f"{each.title}:")
        try:
            check_spool(each.spool)
        except OSError as error:
            click.echo(f"Not delivered: {error}", err=True)
            done = False
            continue
        done = _deliver_for(each, timeout, assume_ended=assume_ended) and done
    if not done:
        sys.exit(1)


def _called(name: str, hosts: list[Host]) -> list[Host]:
    found = [host for host in hosts if host.is_called(name)]
    if not found:
        known = ", ".join(host.name for host in hosts)
        raise click.ClickException(
            f"nothing of a host {name} is waiting" + (f"; records of these hosts wait: {known}." if known else ".")
        )
    return found


def _deliver_for(host: Host, timeout: float, *, assume_ended: bool) -> bool:
    chosen = [each for each in host.waiting if _may_deliver(each, assume_ended=assume_ended)]
    command = f"trackdsl sync --host {host.name} --assume-ended" if assume_ended else "trackdsl sync --all-hosts"
    done = not chosen or deliver(host.spool, timeout, {each.journal.directory for each in chosen}, command=command)
    left = [each for each in host.waiting if each not in chosen]
    if not left:
        return done
    click.echo("Not delivered, because their programs may still run:", err=True)
    for each in left:
        click.echo(f"  {each.journal.program}: {each.why_not}", err=True)
    if not assume_ended and any(not each.runs for each in left):
        click.echo(
            f"Run `trackdsl sync` on {host.name}; or, if you know that all programs of {host.name} have ended and "
            f"no process delivers there, `trackdsl sync --host {host.name} --assume-ended`.",
            err=True,
        )
    return False


def _may_deliver(waiting: WaitingJournal, *, assume_ended: bool) -> bool:
    return not waiting.why_not or (assume_ended and not waiting.runs)
