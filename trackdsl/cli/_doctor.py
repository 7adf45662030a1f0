"""`trackdsl doctor`: shows the settings and the results of the checks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trackdsl.cli import _checks
from trackdsl.cli._checks import Finding
from trackdsl.cli._console import output
from trackdsl.cli._current_settings import CurrentSetting, all_settings
from trackdsl.cli._journals import spool_for

if TYPE_CHECKING:
    from rich.console import Console

_MARKS = {"ok": ("✔", "green"), "warning": ("!", "yellow"), "problem": ("✘", "red")}


def run(named: Path | None, uri: str | None, *, as_json: bool) -> None:
    """Print the settings and the findings; exit with 1 if there is a problem.

    Args:
        named: the spool; the one in use by default.
        uri: the store to check instead of the configured one.
        as_json: print JSON instead of tables.
    """
    settings = all_settings()
    findings = list(_findings(settings, named, uri))
    problems = [finding for finding in findings if finding.level == "problem"]
    if as_json:
        structure = {"settings": [asdict(s) for s in settings], "findings": [asdict(f) for f in findings]}
        click.echo(json.dumps({**structure, "problems": len(problems)}, indent=2))
    else:
        _print(settings, findings, len(problems))
    if problems:
        raise SystemExit(1)


def _findings(settings: list[CurrentSetting], named: Path | None, uri: str | None) -> Iterator[Finding]:
    broken = list(_checks.project())
    wrong = [(each.name, each.problem) for each in settings if each.problem]
    broken += [Finding(f"setting {name}", "problem", *_checks.split(problem)) for name, problem in wrong]
    yield from broken
    yield from _checks.variables()
    yield from _checks.versions()
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = []
    if not broken:
        checks += [("the mode", _checks.mode), ("the store", lambda: _checks.store(uri))]
    if named is not None or all(each.value is not None for each in settings if each.name == "spool"):
        checks.append(("the spool", lambda: _checks.spool(spool_for(named))))
        if not broken:
            checks.append(("the delivery", lambda: _checks.delivery(spool_for(named), uri)))
    for what, run_check in checks:
        with _progress_shown(what):
            found = list(run_check())
        yield from found


@contextlib.contextmanager
def _progress_shown(what: str) -> Iterator[None]:
    """Show on a terminal what is being checked: a server may not answer for a while."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(f"Checking {what} …"):
        yield


def _print(settings: list[CurrentSetting], findings: list[Finding], problems: int) -> None:
    _print_settings(output(), settings)
    _print_findings(output(), findings)
    if problems:
        click.echo(f"{problems} problem{'s' * (problems > 1)} found.")
    elif any(finding.about == "other hosts" for finding in findings):
        click.echo("No problems on this host. Records of other hosts wait for delivery.")
    else:
        click.echo("No problems found.")


def _print_settings(console: Console, settings: list[CurrentSetting]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_edge=False, pad_edge=False)
    for title in ("setting", "value", "from"):
        table.add_column(title, overflow="fold")
    for each in settings:
        source = each.source + (f"\noverrides: {', '.join(each.hides)}" if each.hides else "")
        value = each.value if each.value is not None else "?"
        table.add_row(*(Text(cell) for cell in (each.name, value, source)))
    console.print(table)
    console.print()


def _print_findings(console: Console, findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, show_edge=False, box=None, pad_edge=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    plain = console.options.ascii_only  # The marks would all be question marks.
    for finding in findings:
        mark, color = _MARKS[finding.level]
        text = Text(finding.text)
        if finding.fix:
            text.append(f"\n{'->' if plain else '→'} {finding.fix}", style="bold")
        table.add_row(Text(finding.level if plain else mark, style=color), Text(finding.about), text)
    console.print(table)
    console.print()
