"""The ledger in a journal's folder, including what versions before the ledger have noted there."""

from __future__ import annotations

from pathlib import Path

from trackdsl.store_format.ledger import NAME, commits, frame, read
from trackdsl.store_format.state_before_ledgers import of_journal


def read_journal(directory: Path) -> bytes:
    """The notes about a journal, in the format of a ledger's file; empty if nothing can be read."""
    # In this order: delivery may carry the files over in between.
    before, content = of_journal(directory), read(directory / NAME)
    if not before.changes:
        return content
    # A torn end would hide what follows it.
    whole = max((commit.end for commit in commits(content)), default=0)
    return content[:whole] + frame(before.changes)
