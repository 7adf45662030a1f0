"""The blocked runs of a journal, in its ledger: `trackdsl status` shows them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trackdsl.store_format.journal_ledger import read_journal
from trackdsl.store_format.ledger import BLOCKED, changes_in, latest

_ID_LENGTH = 16


class BlockedRun(msgspec.Struct, frozen=True):
    """A blocked run.

    Attributes:
        run: our id of it, in hexadecimal.
        name: its name; empty if unknown.
        reason: why it is blocked.
    """

    run: str
    name: str
    reason: str


def read_blocked(directory: Path) -> list[BlockedRun]:
    """The blocked runs of a journal."""
    found = latest(changes_in(read_journal(directory)), BLOCKED)
    return [BlockedRun(id_.hex(), name, reason) for id_, (name, reason) in found.items() if len(id_) == _ID_LENGTH]
