"""Events that delivery holds back until their runs can be delivered, in the ledger of a journal."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from trackdsl._core import events
from trackdsl.journal._segments import Position
from trackdsl.store_format.journal_ledger import read_journal
from trackdsl.store_format.ledger import HELD, HeldKey, HeldValue, changes_in, latest


class HeldEvent(NamedTuple):
    """An event that is held back.

    Attributes:
        event: the event.
        end: the position behind it in the journal.
        times: the milliseconds that were assigned to its metric points, if any.
    """

    event: events.AnyEvent
    end: Position
    times: tuple[int, ...] = ()


def read_held(directory: Path) -> list[HeldEvent]:
    """The held events of a journal, read from outside: nothing is changed."""
    found = latest(changes_in(read_journal(directory)), HELD)
    return list(held_in(found).values())


def held_in(values: dict[HeldKey, HeldValue]) -> dict[HeldKey, HeldEvent]:
    """The held events in the ledger; those that cannot be read are left out."""
    found = {}
    for key, (event, times) in values.items():
        try:
            found[key] = HeldEvent(events.decode(event), Position(*key[:2]), times)
        except (msgspec.MsgspecError, RecursionError):
            continue
    return found
