"""Reads the events, runs and files in a journal that are not delivered yet."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trackdsl._core import events
from trackdsl.journal._reader import Reader
from trackdsl.store_format.blocked_runs import read_blocked
from trackdsl.store_format.held_events import read_held
from trackdsl.store_format.journals import Journal
from trackdsl.store_format.known_runs import read_runs


@dataclass(frozen=True)
class UndeliveredRun:
    """A run with records in a journal that are not delivered.

    Attributes:
        id: trackdsl's id of the run.
        name: its name; None if the event with the name is delivered.
        parent: trackdsl's id of its parent; None for a root run, and if the event with the parent is delivered.
        exists: whether MLflow has the run.
        events: the number of its events that are not delivered.
    """

    id: str
    name: str | None
    parent: str | None
    exists: bool
    events: int


@dataclass(frozen=True)
class Contents:
    """The records of a journal that are not delivered.

    Attributes:
        events: the number of events; None if this version cannot read them.
        runs: the runs that the program opened and that are not finished at MLflow, in order.
        files: the number of files.
        file_bytes: the total size of the files.
    """

    events: int | None
    runs: tuple[UndeliveredRun, ...]
    files: int
    file_bytes: int


def contents(journal: Journal) -> Contents:
    """Read a journal to its end."""
    files, file_bytes = _files(journal.directory / "files")
    if journal.problem:
        return Contents(None, (), files, file_bytes)
    opened: dict[bytes, events.Open] = {}
    waiting: Counter[bytes] = Counter()
    for event, delivered in _events(journal):
        if isinstance(event, events.Open):
            opened[event.run] = event
        waiting[event.run] += not delivered
    known = dict(read_runs(journal.directory))
    blocked = {bytes.fromhex(run.run): run.name for run in read_blocked(journal.directory)}
    found = []
    for id_ in {**opened, **{id_: run for id_, run in known.items() if run.ours or run.continued}, **blocked}:
        exists = id_ in known
        if waiting[id_] or id_ in blocked or not exists or known[id_].open:
            open_ = opened.get(id_)
            name = blocked.get(id_) if open_ is None else open_.name
            parent = None if open_ is None or open_.parent is None else open_.parent.hex()
            found.append(UndeliveredRun(id_.hex(), name or None, parent, exists, waiting[id_]))
    return Contents(waiting.total(), tuple(found), files, file_bytes)


def _events(journal: Journal) -> Iterator[tuple[events.AnyEvent, bool]]:
    """The events of a journal that can still be read, each with whether it is delivered."""
    aside = read_held(journal.directory)
    kept = {each.end for each in aside}
    yield from ((each.event, False) for each in aside)
    reader = Reader(journal.directory)  # From the beginning, for the names of runs that MLflow has already.
    try:
        for entry in reader.read(1 << 62, writer_alive=journal.alive):
            if entry.event is not None and entry.end not in kept:
                yield entry.event, entry.end <= journal.progress.position
    finally:
        reader.close()


def _files(folder: Path) -> tuple[int, int]:
    count = total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size
            except OSError:  # It was delivered a moment ago.
                continue
            count += 1
    return count, total
