"""What is known to be lost of each journal: the file `losses` in the spool.

`trackdsl sync` reports it, even after the journal is gone. A JSON line is added whenever more is lost; the last line of
a journal counts.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from trackdsl._core.decoders import json_decoder
from trackdsl.errors import logger
from trackdsl.journal._files import open_regular, read_regular

_NAME = "losses"
#: The file is emptied beyond this size, in bytes: its content was reported long ago.
_MOST = 1 << 20
_UNKNOWN = " that nothing is known of"


class Losses(msgspec.Struct, frozen=True, rename={"unknown": "orphans"}):
    """The losses of one journal.

    Attributes:
        journal: the name of its folder.
        program: the program that wrote it, for people.
        missing: the missing segments, and ends of segments.
        damaged: how many damaged records were skipped.
        unknown: how many events belong to unknown runs.
        refused: how many items MLflow refused.
        unrecorded: how many events the program could not record.
        prefixes: of the ids of the program's runs, and of the processes that it works for.
    """

    journal: str
    program: str
    missing: tuple[str, ...] = ()
    damaged: int = 0
    unknown: int = 0
    refused: int = 0
    unrecorded: int = 0
    prefixes: tuple[str, ...] = ()

    def since(self, before: Losses | None) -> Losses:
        """The losses since an earlier report."""
        if before is None:
            return self
        return msgspec.structs.replace(
            self,
            missing=self.missing[len(before.missing) :],
            damaged=self.damaged - before.damaged,
            unknown=self.unknown - before.unknown,
            refused=self.refused - before.refused,
            unrecorded=self.unrecorded - before.unrecorded,
        )

    def description(self) -> str:
        """A text about the losses, for people; empty if there are none.

        Example:
            >>> Losses("j", "p", missing=("segment 2",), damaged=1).description()
            'segment 2 is missing, 1 damaged record was skipped'
        """
        found = [f"{what} {'are' if what.startswith('segments') else 'is'} missing" for what in self.missing]
        for count, one, many in (
            (self.damaged, "damaged record was skipped", "damaged records were skipped"),
            (self.unknown, f"event belongs to a run{_UNKNOWN}", f"events belong to runs{_UNKNOWN}"),
            (self.refused, "item was refused by MLflow", "items were refused by MLflow"),
            (self.unrecorded, "event could not be recorded", "events could not be recorded"),
        ):
            if count > 0:
                found.append(counted(count, one, many))
        return ", ".join(found)


def counted(count: int, one: str, many: str) -> str:
    """A count in words.

    Example:
        >>> counted(1, "file waits", "files wait"), counted(2, "file waits", "files wait")
        ('1 file waits', '2 files wait')
    """
    return f"{count:,} {one if count == 1 else many}"


def append(spool: Path, losses: Losses) -> None:
    """Add a line to the file of a spool."""
    try:
        descriptor = open_regular(spool / _NAME, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        with open(descriptor, "ab", buffering=0) as file:
            if file.tell() > _MOST:
                file.truncate(0)
            file.write(msgspec.json.encode(losses) + b"\n")
    except OSError as error:
        logger.warning("trackdsl cannot write to %s what is lost of %s: %s", spool, losses.journal, error)


def read(spool: Path) -> dict[str, Losses]:
    """The losses of the journals of a spool, by their names."""
    found: dict[str, Losses] = {}
    with contextlib.suppress(OSError):
        for line in read_regular(spool / _NAME).split(b"\n"):
            with contextlib.suppress(msgspec.MsgspecError, RecursionError, ValueError):
                losses: Losses = json_decoder(Losses).decode(line)
                found[losses.journal] = losses
    return found
