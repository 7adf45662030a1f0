"""Events that cannot be delivered yet: kept held, so that the rest of the journal is delivered and none is lost.

Either their run is not at MLflow yet: on another machine a program may log on a run of which MLflow has nothing,
because the machine that opened it cannot reach the server, or delivers by `trackdsl sync` tomorrow. Or their run is
blocked, see `_blocked.py`: everything of it goes here, from its beginning or from the first stretch that failed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from trackdsl._core import events
from trackdsl.delivery._sink import NotYet, Unavailable
from trackdsl.journal._files import open_regular, read_regular, replace
from trackdsl.journal._reader import Position
from trackdsl.store_format.held_events import NAME, HeldEvent, delivered_frame, frame, parse


class HeldEvents:
    """The events of one journal that are kept held.

    Args:
        directory: the journal's folder.

    Attributes:
        runs: our ids of their runs.
        unmade: of these, the runs that this journal opens, goes on with, or takes up by name.
        continued: of these, those that it goes on with.
        kept: the positions behind the events that were taken over from the journal.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._waiting, self._delivered = _read(self._path)
        self.runs = {held.event.run for held in self._waiting}
        self.unmade = _opened(self._waiting)
        self.continued = _continued(self._waiting)
        self.kept = {held.end for held in self._waiting} | self._delivered

    def count(self, runs: Iterable[bytes] | None = None) -> int:
        """How many events are kept aside: of some runs, or of all."""
        if runs is None:
            return len(self._waiting)
        wanted = set(runs)
        return sum(held.event.run in wanted for held in self._waiting)

    def reason(self, awaited: set[bytes]) -> str:
        """What the events of some runs wait for, which are those of other machines."""
        runs = ", ".join(sorted(id_.hex() for id_ in awaited)[:3])
        return f"{self.count(awaited)} events wait for {len(awaited)} runs that another machine delivers: {runs}"

    def add(self, *found: HeldEvent) -> None:
        """Keep events held.

        Raises:
            Unavailable: there is no room for them.
        """
        try:
            with open(open_regular(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0) as file:
                size = file.tell()
                frames = b"".join(map(frame, found))
                if file.write(frames) != len(frames):
                    file.truncate(size)
                    raise OSError(28, "no space left", str(self._path))
        except OSError as error:
            raise Unavailable(f"cannot keep events held in {self._path}: {error}") from None
        self._waiting += found
        self.runs.update(held.event.run for held in found)
        self.unmade |= _opened(found)
        self.continued |= _continued(found)
        self.kept.update(held.end for held in found)

    def take(self, deliver: Callable[[bytes, list[HeldEvent]], bool], only: bytes | None = None) -> bool:
        """Deliver what can be delivered now, run by run.

        Args:
            deliver: takes all events of a run, and writes them; says False, or raises `NotYet`, where they have to
                wait.
            only: the one run that is meant, or None for all.

        Returns:
            whether anything was delivered.
        """
        groups: dict[bytes, list[HeldEvent]] = {}
        for held in self._waiting:
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

    def noted(self) -> None:
        """What was delivered from here will not be read from the journal again."""
        if self._delivered:
            self.kept -= self._delivered
            self._delivered = set()
            self._save(self._waiting, self._delivered)

    def _delivered_of(self, runs: set[bytes]) -> None:
        left = [held for held in self._waiting if held.event.run not in runs]
        delivered = {held.end for held in self._waiting if held.event.run in runs} | self._delivered
        self._save(left, delivered)
        self._waiting, self._delivered = left, delivered
        self.runs -= runs
        self.unmade -= runs
        self.continued -= runs

    def _save(self, waiting: list[HeldEvent], delivered: set[Position]) -> None:
        try:
            replace(self._path, b"".join([*map(delivered_frame, delivered), *map(frame, waiting)]))
        except OSError as error:
            raise Unavailable(f"cannot note what is kept held in {self._path}: {error}") from None


def _opened(found: Iterable[HeldEvent]) -> set[bytes]:
    return {held.event.run for held in found if isinstance(held.event, (events.Open, events.Adopt))}


def _continued(found: Iterable[HeldEvent]) -> set[bytes]:
    return {held.event.run for held in found if isinstance(held.event, events.Open) and held.event.goes_on}


def _read(path: Path) -> tuple[list[HeldEvent], set[Position]]:
    """What was kept, and what was delivered; a torn end was not noted as read, and is cut off."""
    try:
        content = read_regular(path)
    except OSError:
        return [], set()
    found, delivered, end = parse(content)
    if end < len(content):
        os.truncate(path, end)
    return found, delivered
