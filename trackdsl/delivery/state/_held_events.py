"""Events that cannot be delivered yet. They are held back, so that the rest of the journal is delivered.

Their run may not be at MLflow yet: on another machine, a program may log on a run that MLflow does not know, because
the machine that opened the run cannot reach the server, or delivers with `trackdsl sync` tomorrow. Or their run is
blocked, see `_blocked.py`: then all of its events are held, from the first one or from the first stretch that failed.

`store_format.held_events` describes how the ledger keeps them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from trackdsl._core import events
from trackdsl.delivery.state._ledger import Ledger
from trackdsl.delivery.store._errors import NotYet, Unavailable
from trackdsl.journal._segments import Position
from trackdsl.store_format.held_events import HeldEvent, held_in
from trackdsl.store_format.ledger import HELD, RELEASED, HeldKey, HeldValue


class HeldEvents:
    """The held events of one journal.

    Args:
        ledger: the journal's ledger.

    Attributes:
        runs: our ids of their runs.
        unmade: of these, the runs that this journal opens, resumes, or names.
        continued: of these, those that it resumes.
        kept: the positions behind all events that were moved here from the journal.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting = held_in(ledger.load(HELD, self._values))
        released = ledger.load(RELEASED, lambda: ((end, True) for end in self._delivered))
        self._delivered = {Position(*end) for end in released}
        self._numbers = itertools.count(max((key[2] for key in self._waiting), default=0) + 1)
        waiting = self._waiting.values()
        self.runs = {held.event.run for held in waiting}
        self.unmade = _opened(waiting)
        self.continued = _continued(waiting)
        self.kept = {held.end for held in waiting} | self._delivered

    def count(self, runs: Iterable[bytes] | None = None) -> int:
        """The number of held events: those of some runs, or all."""
        if runs is None:
            return len(self._waiting)
        wanted = set(runs)
        return sum(held.event.run in wanted for held in self._waiting.values())

    def reason(self, awaited: set[bytes]) -> str:
        """A text that says what the events of some remote runs wait for."""
        runs = ", ".join(sorted(id_.hex() for id_ in awaited)[:3])
        return f"{self.count(awaited)} events wait for {len(awaited)} runs that another machine delivers: {runs}"

    def add(self, *held_events: HeldEvent) -> None:
        """Hold events back.

        Raises:
            Unavailable: there is no space for them.
        """
        added = {(*held.end, next(self._numbers)): held for held in held_events}
        self._write(HELD.change(key, _value(held)) for key, held in added.items())
        self._waiting |= added
        self.runs.update(held.event.run for held in held_events)
        self.unmade |= _opened(held_events)
        self.continued |= _continued(held_events)
        self.kept.update(held.end for held in held_events)

    def deliver_groups(self, deliver: Callable[[bytes, list[HeldEvent]], bool], only: bytes | None = None) -> bool:
        """Deliver what can be delivered now, run by run.

        Args:
            deliver: writes all events of a run. It returns False, or raises `NotYet`, if they have to wait.
            only: the only run to deliver, or None for all.

        Returns:
            whether anything was delivered.
        """
        groups: dict[bytes, list[HeldEvent]] = {}
        # An event whose note was damaged is read and held again, behind those that follow it.
        for _, held in sorted(self._waiting.items(), key=lambda item: item[0]):
            if only is None or held.event.run == only:
                groups.setdefault(held.event.run, []).append(held)
        done: set[bytes] = set()
        try:
            # In the order of the journal: a parent comes before its children.
            for id_, group in groups.items():
                try:
                    if deliver(id_, group):
                        done.add(id_)
                except NotYet:
                    continue
        finally:
            if done:
                self._delivered_of(done)
        return bool(done)

    def release(self) -> None:
        """Forget events which were delivered from here: they will not be read from the journal again."""
        if self._delivered:
            self._write(RELEASED.change(end, None) for end in self._delivered)
            self.kept -= self._delivered
            self._delivered = set()

    def _delivered_of(self, runs: set[bytes]) -> None:
        done = {key: held for key, held in self._waiting.items() if held.event.run in runs}
        ends = {held.end for held in done.values()}
        self._write([*(HELD.change(key, None) for key in done), *(RELEASED.change(end, True) for end in ends)])
        self._waiting = {key: held for key, held in self._waiting.items() if key not in done}
        self._delivered |= ends
        self.runs -= runs
        self.unmade -= runs
        self.continued -= runs

    def _values(self) -> Iterable[tuple[HeldKey, HeldValue]]:
        return ((key, _value(held)) for key, held in self._waiting.items())

    def _write(self, changes: Iterable[tuple[int, Any, Any]]) -> None:
        try:
            self._ledger.write(changes, before_progress=True)
        except OSError as error:
            raise Unavailable(f"cannot write the held events: {error}") from None


def _value(held: HeldEvent) -> HeldValue:
    return events.encode(held.event), held.times


def _opened(held_events: Iterable[HeldEvent]) -> set[bytes]:
    return {held.event.run for held in held_events if isinstance(held.event, (events.Open, events.Adopt))}


def _continued(held_events: Iterable[HeldEvent]) -> set[bytes]:
    return {held.event.run for held in held_events if isinstance(held.event, events.Open) and held.event.continued_id}
