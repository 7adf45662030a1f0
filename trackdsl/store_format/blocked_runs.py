"""Runs that delivery has set aside: the file `blocked` in a journal's folder, for `trackdsl status`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trackdsl.journal._files import read_regular

#: The file's name.
NAME = "blocked"
_ID_LENGTH = 16


class BlockedRun(msgspec.Struct, frozen=True):
    """A run that is set aside.

    Attributes:
        run: our id of it, in hexadecimal.
        name: its name; empty if unknown.
        reason: why it is set aside.
    """

    run: str
    name: str
    reason: str


def read_blocked(directory: Path) -> list[BlockedRun]:
    """The runs of a journal that are set aside; only the first ones if there are very many."""
    try:
        found = msgspec.json.decode(read_regular(directory / NAME), type=list[BlockedRun])
        return [run for run in found if len(bytes.fromhex(run.run)) == _ID_LENGTH]
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return []
