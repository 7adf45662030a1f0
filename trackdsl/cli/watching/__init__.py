"""`trackdsl watch`: shows what runs on this machine, live, from the journals of the spool.

It only reads: neither programs nor delivery notice it. `_journal` and `_spool` follow journals, `_runs` is the tree
that they describe, `_rows`, `_texts` and `_drawing` show it, `_screen` at a terminal and `_lines` anywhere else.

The output of `--json` is stable: a new version may add fields, and removes none. Each line is an object with `event`:

| event | fields |
|---|---|
| `run` | `id`, `name`, `path`, `parent`, `journal`, `status`, `start`, `seconds`, `progress`, `metrics`, `failure`, `below` |
| `program` | `journal`, `source`, `pid`, `host`, `alive`, `unsure`, `usage`, `machine`, `delivery` |
"""  # noqa: E501 - a table's rows cannot be broken

from __future__ import annotations

from pathlib import Path

import click

from trackdsl._core.escaping import printable
from trackdsl._core.suggest import suggestion_for
from trackdsl.cli._console import output
from trackdsl.cli._journals import spool_for
from trackdsl.cli.watching._lines import Lines
from trackdsl.cli.watching._rows import Folding
from trackdsl.cli.watching._runs import WatchedRun, WatchedRuns
from trackdsl.cli.watching._spool import WatchedSpool
from trackdsl.cli.watching._terminal import ending_by_signal
from trackdsl.query._shown import short

#: How long to look for a run in journals, in seconds at a time.
_READING = 0.5
_INTERRUPTED = 130


def run(named: Path | None, wanted: str | None, *, ended: bool, as_json: bool) -> None:
    """Show what runs until the user ends it.

    Args:
        named: the spool; the one in use by default.
        wanted: the run that alone is shown, until it ends: its id, the beginning or the short form of it, its name or
            its path.
        ended: whether to show runs too that have ended and are still in the spool.
        as_json: print lines of JSON.

    Raises:
        click.ClickException: there is no such run.
        SystemExit: the exit code is not 0.
    """
    spool = WatchedSpool(spool_for(named), ended=ended or wanted is not None)
    folding = Folding(ended=ended)
    try:
        with ending_by_signal():
            if wanted is not None:
                folding.only = _find(spool, wanted)
            _show(spool, folding, as_json=as_json)
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    only = folding.only
    if only is not None and not only.is_open and only.status != "FINISHED":
        raise SystemExit(1)


def _show(spool: WatchedSpool, folding: Folding, *, as_json: bool) -> None:
    console = output()
    if as_json or not console.is_terminal or console.is_dumb_terminal:
        if folding.only is not None and any(one.dropped for one in folding.only.walk()):
            # Once more from the beginning, as it is known now which runs have a line that are not kept.
            spool = WatchedSpool(spool.spool, ended=True)
        Lines(spool, folding, as_json=as_json).show()
        return
    from trackdsl.cli.watching._screen import Screen

    Screen(spool, folding, console).show()


def _find(spool: WatchedSpool, wanted: str) -> WatchedRun:
    """The run that the user names; the newest if there are several.

    Raises:
        click.ClickException: there is none.
    """
    _read_all(spool)
    found = [one for one in spool.runs if _is_named(one, wanted)]
    if found:
        return max(found, key=lambda one: (one.is_open, one.began))
    hint = suggestion_for(wanted, _names(spool.runs)).text
    raise click.ClickException(
        f"there is no run {printable(wanted)!r} in {spool.spool}{printable(hint)} `trackdsl watch` shows what runs, "
        "and `trackdsl show RUN` shows a run that is delivered."
    )


def _is_named(one: WatchedRun, wanted: str) -> bool:
    id_ = one.id.hex()
    return wanted in (one.name, one.path, id_, short(id_)) or (len(wanted) >= 4 and id_.startswith(wanted))


def _names(runs: WatchedRuns) -> list[str]:
    return list({name: None for one in runs for name in (one.name, one.path)})


def _read_all(spool: WatchedSpool) -> None:
    spool.read(_READING)
    while spool.is_behind:
        spool.read(_READING)


def runs_in(spool: Path) -> list[WatchedRun]:
    """The runs in a spool, those that are open first, and of them the newest.

    Args:
        spool: its folder.
    """
    watched = WatchedSpool(spool, ended=True)
    _read_all(watched)
    return sorted(watched.runs, key=lambda one: (one.is_open, one.began), reverse=True)
