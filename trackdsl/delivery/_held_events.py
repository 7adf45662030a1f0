"""Events that cannot be delivered yet. They are held back, so that the rest of the journal is delivered.

Their run may not be at MLflow yet: on another machine, a program may log on a run that MLflow does not know, because
the machine that opened the run cannot reach the server, or delivers with `trackdsl sync` tomorrow. Or their run is set
aside, see `_blocked.py`: then all of its events are held, from the first one or from the first stretch that failed.

`store_format.held_events` describes the file that keeps them.
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
    """The held events of one journal.

    Args:
        directory: the journal's folder.

    Attributes:
        runs: our ids of their runs.
        unmade: of these, the runs that this journal opens, resumes, or names.
        continued: of these, those that it resumes.
        kept: the positions behind all events that were moved here from the journal.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._waiting, self._delivered = _read(self._path)
        self.runs = {held.event.run for held in self._waiting}
        self.unmade = _opened(self._waiting)
        self.continued = _continued(self._waiting)
        self.kept = {held.end for held in self._waiting} | self._delivered

    def count(self, runs: Iterable[bytes] | None = None) -> int:
        """How many events are held: of some runs, or of all."""
        if runs is None:
            return len(self._waiting)
        wanted = set(runs)
        return sum(held.event.run in wanted for held in self._waiting)

    def reason(self, awaited: set[bytes]) -> str:
        """What the events of some remote runs wait for."""
        runs = ", ".join(sorted(id_.hex() for id_ in awaited)[:3])
        return f"{self.count(awaited)} events wait for {len(awaited)} runs that another machine delivers: {runs}"

    def add(self, *found: HeldEvent) -> None:
        """Hold events back.

        Raises:
            Unavailable: there is no space for them.
        """
        try:
            with open(open_regular(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0) as file:
                size = file.tell()
                frames = b"".join(map(frame, found))
                if file.write(frames) != len(frames):
                    file.truncate(size)
                    raise OSError(28, "no space left", str(self._path))
        except OSError as error:
            raise Unavailable(f"cannot hold events back in {self._path}: {error}") from None
        self._waiting += found
        self.runs.update(held.event.run for held in found)
        self.unmade |= _opened(found)
        self.continued |= _continued(found)
        self.kept.update(held.end for held in found)

    def deliver_groups(self, deliver: Callable[[bytes, list[HeldEvent]], bool], only: bytes | None = None) -> bool:
        """Deliver what can be delivered now, run by run.

        Args:
            deliver: writes all events of a run. It returns False, or raises `NotYet`, if they have to wait.
            only: the only run to deliver, or None for all.

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
        """Note that events which were delivered from here will not be read from the journal again."""
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
            raise Unavailable(f"cannot note the held events in {self._path}: {error}") from None


def _opened(found: Iterable[HeldEvent]) -> set[bytes]:
    return {held.event.run for held in found if isinstance(held.event, (events.Open, events.Adopt))}


def _continued(found: Iterable[HeldEvent]) -> set[bytes]:
    return {held.event.run for held in found if isinstance(held.event, events.Open) and held.event.goes_on}


def _read(path: Path) -> tuple[list[HeldEvent], set[Position]]:
    """Read the held events and the positions of delivered ones. A torn end was not noted as read, and is cut off."""
    try:
        content = read_regular(path)
    except OSError:
        return [], set()
    found, delivered, end = parse(content)
    if end < len(content):
        os.truncate(path, end)
    return found, delivered
