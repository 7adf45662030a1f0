"""The spool that a command works on, and advice about journals that cannot be delivered."""

from __future__ import annotations

from pathlib import Path

import click

from trackdsl.journal import _spool, _spool_choice
from trackdsl.store_format.journals import reason_of

#: Advice for a journal whose store does not exist.
WAY_OUT = "`trackdsl sync --to URI` delivers it to another store, `trackdsl drop JOURNAL` (or RUN) deletes it"


def spool_for(named: Path | None) -> Path:
    """The spool that a command works on: the named one, else the one that programs use here.

    Raises:
        click.ClickException: it cannot be used.
    """
    try:
        if named is None:
            return _spool_choice.find()
        spool = _spool.locate(named.expanduser())
        if not (spool / _spool.JOURNALS).is_dir():
            return spool  # A command that only reads must not turn a folder into a spool.
        return _spool.prepare(spool)
    except OSError as error:
        raise click.ClickException(
            f"the spool {named or ''} cannot be used ({reason_of(error)}): "
            "give --spool a folder that you own and can write."
        ) from None
