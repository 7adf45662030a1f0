"""The spool that a command looks at, and what can be done about journals that nothing moves."""

from __future__ import annotations

from pathlib import Path

import click

from trackdsl.journal import _spool
from trackdsl.store_format.journals import reason_of

#: What can be done about a journal whose store is gone or was never there.
WAY_OUT = "`trackdsl sync --to URI` delivers it to another store, `trackdsl drop JOURNAL` (or RUN) gives it up"


def place(named: Path | None) -> Path:
    """The spool to look at: the named one, or the one that programs would use here.

    Raises:
        click.ClickException: it cannot be used.
    """
    try:
        if named is None:
            return _spool.find()
        spool = _spool.locate(named.expanduser())
        if not (spool / _spool.JOURNALS).is_dir():
            return spool  # Nothing to see; a folder that is no spool must not be made one by looking.
        return _spool.prepare(spool)
    except OSError as error:
        raise click.ClickException(
            f"the spool {named or ''} cannot be used ({reason_of(error)}): "
            "give --spool a folder of your own that can be written."
        ) from None
