"""What a journal says of runs that do not come: kept aside, so that the rest is delivered and this is not lost.

On another machine a program may log on a run of which MLflow has nothing yet, because the machine that opened it
cannot reach the server, or delivers by `trackdsl sync` tomorrow. A file of frames: length, position in the journal,
event. A frame without an event tells of one that was delivered from here, and may be read from the journal once more.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from trackdsl import _events as events
from trackdsl.delivery._sink import NotYet, Unavailable
from trackdsl.journal._files import open_regular, read_regular, replace
from trackdsl.journal._reader import Position

_HEAD = struct.Struct("<IIQ")
_NAME = "aside"


class Aside(NamedTuple):
    """An event and the position behind it."""

    event: events.AnyEvent
    end: Position


class Orphans:
    """The events of one journal whose runs are not there.

    Args:
        directory: the journal's folder.

    Attributes:
        runs: our ids of those runs.
        kept: the positions behind the events that were taken over from the journal.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME
        self._waiting, self._delivered = _read(self._path)
        self.runs = {aside.event.run for aside in self._waiting}
        self.kept = {aside.end for aside in self._waiting} | self._delivered

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def reason(self) -> str:
        """What they wait for."""
        runs = sorted(id_.hex() for id_ in self.runs)
        return f"{len(self)} events wait for {len(runs)} runs that another machine delivers: {', '.join(runs[:3])}"

    def add(self, event: events.AnyEvent, end: Position) -> None:
        """Keep an event aside.

        Raises:
            Unavailable: there is no room for it.
        """
        try:
            with open(open_regular(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0) as file:
                size = file.tell()
                frame = _frame(Aside(event, end))
                if file.write(frame) != len(frame):
                    file.truncate(size)
                    raise OSError(28, "no space left", str(self._path))
        except OSError as error:
            raise Unavailable(f"cannot keep events aside in {self._path}: {error}") from None
        self._waiting.append(Aside(event, end))
        self.runs.add(event.run)
        self.kept.add(end)

    def take(self, apply: Callable[[Aside], bool], settle: Callable[[], None]) -> bool:
        """Deliver what can be delivered now.

        Args:
            apply: takes an event whose run has come; says False, or raises `NotYet`, where it has not.
            settle: called before anything counts as delivered.

        Returns:
            whether anything was delivered.
        """
        left: list[Aside] = []
        absent: set[bytes] = set()
        for aside in self._waiting:
            run = aside.event.run
            try:
                if run in absent or not apply(aside):
                    absent.add(run)
                    left.append(aside)
            except NotYet:
                absent.add(run)
                left.append(aside)
        if len(left) == len(self._waiting):
            return False
        settle()
        kept = {aside.end for aside in left}
        delivered = {aside.end for aside in self._waiting} - kept | self._delivered
        self._save(left, delivered)
        self._waiting, self._delivered = left, delivered
        self.runs = absent
        return True

    def noted(self) -> None:
        """What was delivered from here will not be read from the journal again."""
        if self._delivered:
            self.kept -= self._delivered
            self._delivered = set()
            self._save(self._waiting, self._delivered)

    def _save(self, waiting: list[Aside], delivered: set[Position]) -> None:
        try:
            replace(self._path, b"".join([*(_HEAD.pack(0, *end) for end in delivered), *map(_frame, waiting)]))
        except OSError as error:
            raise Unavailable(f"cannot note what is kept aside in {self._path}: {error}") from None


def _frame(aside: Aside) -> bytes:
    payload = events.encode(aside.event)
    return _HEAD.pack(len(payload), *aside.end) + payload


def _read(path: Path) -> tuple[list[Aside], set[Position]]:
    """What was kept, and what was delivered; a torn end was not noted as read, and is cut off."""
    found: list[Aside] = []
    delivered: set[Position] = set()
    try:
        content = read_regular(path)
    except OSError:
        return found, delivered
    offset = 0
    while offset + _HEAD.size <= len(content):
        length, *end = _HEAD.unpack_from(content, offset)
        stop = offset + _HEAD.size + length
        try:
            if length:
                found.append(Aside(events.decode(content[offset + _HEAD.size : stop]), Position(*end)))
            else:
                delivered.add(Position(*end))
        except msgspec.MsgspecError:
            break
        offset = stop
    if offset < len(content):
        os.truncate(path, offset)
    return found, delivered
