"""Events that cannot be delivered yet: kept aside, so that the rest of the journal is delivered and none is lost.

Either their run is not at MLflow yet: on another machine a program may log on a run of which MLflow has nothing,
because the machine that opened it cannot reach the server, or delivers by `trackdsl sync` tomorrow. Or their run is
blocked, see `_blocked.py`: everything of it goes here, from its beginning or from the first stretch that failed.

A file of frames: length, position in the journal, event. A frame without an event stands for one that was delivered
from here, and may be read from the journal once more. Metric points that may have been sent keep the milliseconds that
they were given: such a frame has the highest bit of its length set, and holds these and the event.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from trackdsl._core import events
from trackdsl.delivery._sink import NotYet, Unavailable
from trackdsl.journal._files import open_regular, read_regular, replace
from trackdsl.journal._reader import Position

_HEAD = struct.Struct("<IIQ")
_NAME = "aside"
_TIMED = 1 << 31


class Aside(NamedTuple):
    """An event and the position behind it; for metric points also the milliseconds that they were given, if any."""

    event: events.AnyEvent
    end: Position
    times: tuple[int, ...] = ()


class Orphans:
    """The events of one journal that are kept aside.

    Args:
        directory: the journal's folder.

    Attributes:
        runs: our ids of their runs.
        unmade: of these, the runs that this journal opens, goes on with, or takes up by name.
        continued: of these, those that it goes on with.
        kept: the positions behind the events that were taken over from the journal.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME
        self._waiting, self._delivered = _read(self._path)
        self.runs = {aside.event.run for aside in self._waiting}
        self.unmade = _opened(self._waiting)
        self.continued = _continued(self._waiting)
        self.kept = {aside.end for aside in self._waiting} | self._delivered

    def count(self, runs: Iterable[bytes] | None = None) -> int:
        """How many events are kept aside: of some runs, or of all."""
        if runs is None:
            return len(self._waiting)
        wanted = set(runs)
        return sum(aside.event.run in wanted for aside in self._waiting)

    def reason(self, awaited: set[bytes]) -> str:
        """What the events of some runs wait for, which are those of other machines."""
        runs = ", ".join(sorted(id_.hex() for id_ in awaited)[:3])
        return f"{self.count(awaited)} events wait for {len(awaited)} runs that another machine delivers: {runs}"

    def add(self, *found: Aside) -> None:
        """Keep events aside.

        Raises:
            Unavailable: there is no room for them.
        """
        try:
            with open(open_regular(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0) as file:
                size = file.tell()
                frames = b"".join(map(_frame, found))
                if file.write(frames) != len(frames):
                    file.truncate(size)
                    raise OSError(28, "no space left", str(self._path))
        except OSError as error:
            raise Unavailable(f"cannot keep events aside in {self._path}: {error}") from None
        self._waiting += found
        self.runs.update(aside.event.run for aside in found)
        self.unmade |= _opened(found)
        self.continued |= _continued(found)
        self.kept.update(aside.end for aside in found)

    def take(self, deliver: Callable[[bytes, list[Aside]], bool], only: bytes | None = None) -> bool:
        """Deliver what can be delivered now, run by run.

        Args:
            deliver: takes all events of a run, and writes them; says False, or raises `NotYet`, where they have to
                wait.
            only: the one run that is meant, or None for all.

        Returns:
            whether anything was delivered.
        """
        groups: dict[bytes, list[Aside]] = {}
        for aside in self._waiting:
            if only is None or aside.event.run == only:
                groups.setdefault(aside.event.run, []).append(aside)
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
        left = [aside for aside in self._waiting if aside.event.run not in runs]
        delivered = {aside.end for aside in self._waiting if aside.event.run in runs} | self._delivered
        self._save(left, delivered)
        self._waiting, self._delivered = left, delivered
        self.runs -= runs
        self.unmade -= runs
        self.continued -= runs

    def _save(self, waiting: list[Aside], delivered: set[Position]) -> None:
        try:
            replace(self._path, b"".join([*(_HEAD.pack(0, *end) for end in delivered), *map(_frame, waiting)]))
        except OSError as error:
            raise Unavailable(f"cannot note what is kept aside in {self._path}: {error}") from None


def _opened(found: Iterable[Aside]) -> set[bytes]:
    return {aside.event.run for aside in found if isinstance(aside.event, (events.Open, events.Adopt))}


def _continued(found: Iterable[Aside]) -> set[bytes]:
    return {aside.event.run for aside in found if isinstance(aside.event, events.Open) and aside.event.goes_on}


def _frame(aside: Aside) -> bytes:
    payload = events.encode(aside.event)
    if not aside.times:
        return _HEAD.pack(len(payload), *aside.end) + payload
    payload = msgspec.msgpack.encode((aside.times, payload))
    return _HEAD.pack(len(payload) | _TIMED, *aside.end) + payload


def read_aside(directory: Path) -> list[Aside]:
    """What is kept aside in a journal's folder, read from outside: nothing is changed."""
    try:
        return _parse(read_regular(directory / _NAME))[0]
    except OSError:
        return []


def _read(path: Path) -> tuple[list[Aside], set[Position]]:
    """What was kept, and what was delivered; a torn end was not noted as read, and is cut off."""
    try:
        content = read_regular(path)
    except OSError:
        return [], set()
    found, delivered, end = _parse(content)
    if end < len(content):
        os.truncate(path, end)
    return found, delivered


def _parse(content: bytes) -> tuple[list[Aside], set[Position], int]:
    """What was kept, what was delivered, and where the whole frames end."""
    found: list[Aside] = []
    delivered: set[Position] = set()
    offset = 0
    while offset + _HEAD.size <= len(content):
        length, *end = _HEAD.unpack_from(content, offset)
        stop = offset + _HEAD.size + (length & ~_TIMED)
        try:
            if length:
                found.append(_unframe(content[offset + _HEAD.size : stop], Position(*end), timed=bool(length & _TIMED)))
            else:
                delivered.add(Position(*end))
        except (msgspec.MsgspecError, RecursionError):
            break
        offset = stop
    return found, delivered, offset


def _unframe(payload: bytes, end: Position, *, timed: bool) -> Aside:
    if not timed:
        return Aside(events.decode(payload), end)
    times, event = _decode_timed(payload)
    return Aside(events.decode(event), end, times)


_decode_timed = msgspec.msgpack.Decoder(tuple[tuple[int, ...], bytes]).decode
