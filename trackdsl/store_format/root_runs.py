"""The root runs whose changes delivery has still to note, or whose report or trace to make: the ledgers have them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from trackdsl._core.decoders import json_decoder
from trackdsl.journal._origin import Origin
from trackdsl.journal._spool import JOURNALS, SERVERS
from trackdsl.store_format.ledger import CHANGES, NAME, NOTED, ORIGIN, TRACED, Change, changes_in, latest, read

#: A run whose program began earlier, in seconds, will never be done.
_LONGEST = 30 * 86_400.0


@dataclass(frozen=True)
class RootRun:
    """A root run.

    Attributes:
        id_: our id.
        run_id: the store's id.
        journal: the name of the journal that it began in.
        origin: the program that recorded it, and its store.
        traces: whether its tree becomes a trace.
    """

    id_: bytes
    run_id: str
    journal: str
    origin: Origin
    traces: bool = False


def left(spool: Path) -> int:
    """The number of waiting root runs whose programs have ended and are delivered."""
    found = (root for folder in folders(spool) for root in left_in(folder))
    return sum(not (spool / JOURNALS / root.journal).is_dir() for root in found)


def folders(spool: Path) -> list[Path]:
    """The folders of a spool with ledgers: of local stores, and of each server."""
    return [spool, *(spool / SERVERS).glob("*")]


def left_in(folder: Path) -> list[RootRun]:
    """The root runs in the ledger of a folder."""
    return _left(list(changes_in(read(folder / NAME))))


def awaiting_changes(folder: Path) -> set[str]:
    """The store's ids of the root runs in the ledger of a folder whose changes are not written yet."""
    changes = list(changes_in(read(folder / NAME)))
    noted = latest(changes, NOTED)
    return {root.run_id for root in _left(changes) if root.origin.project is not None and root.id_ not in noted}


def _left(changes: list[Change]) -> list[RootRun]:
    return with_origins(latest(changes, CHANGES), latest(changes, ORIGIN), latest(changes, TRACED))


def with_origins(
    roots: Mapping[bytes, tuple[str, str]], origins: Mapping[str, bytes], traced: Mapping[bytes, bool]
) -> list[RootRun]:
    """The root runs of programs that are known, and that began not too long ago."""
    known: dict[str, Origin] = {}
    for journal, content in origins.items():
        with contextlib.suppress(msgspec.MsgspecError, RecursionError):
            origin: Origin = json_decoder(Origin).decode(content)
            if time.time() - origin.time / 1e9 < _LONGEST:
                known[journal] = origin
    return [
        RootRun(id_, run_id, journal, known[journal], id_ in traced)
        for id_, (run_id, journal) in roots.items()
        if journal in known
    ]
