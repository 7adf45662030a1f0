"""What a waiting journal holds: the events that are not at MLflow, the runs and the files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trackdsl import _events as events
from trackdsl.cli._journals import Journal
from trackdsl.delivery._runs import read_runs
from trackdsl.journal._reader import Reader


@dataclass(frozen=True)
class RunOf:
    """A run of a journal.

    Attributes:
        id: our id of it.
        name: its name; None where the event that tells it was delivered.
        exists: whether it is at MLflow already.
        events: how many events of it are not at MLflow.
    """

    id: str
    name: str | None
    exists: bool
    events: int


@dataclass(frozen=True)
class Contents:
    """What a journal holds.

    Attributes:
        events: how many of its events are not at MLflow; None where this version cannot read them.
        runs: the runs that its program opened and that are not finished at MLflow, in order.
        files: how many files wait.
        file_bytes: how large they are together.
    """

    events: int | None
    runs: tuple[RunOf, ...]
    files: int
    file_bytes: int


def contents(journal: Journal) -> Contents:
    """Read a journal to its end."""
    files, file_bytes = _files(journal.directory / "files")
    if journal.problem:
        return Contents(None, (), files, file_bytes)
    names: dict[bytes, str] = {}
    waiting: dict[bytes, int] = {}
    reader = Reader(journal.directory)  # From the beginning: the names of runs that exist already stand there.
    try:
        for entry in reader.read(1 << 62, writer_alive=journal.alive):
            event = entry.event
            if event is None:
                continue
            if isinstance(event, events.Open):
                names[event.run] = event.name
            if entry.end > journal.progress.position:
                waiting[event.run] = waiting.get(event.run, 0) + 1
    finally:
        reader.close()
    known = dict(read_runs(journal.directory))
    found = [
        RunOf(id_.hex(), names.get(id_), id_ in known, waiting.get(id_, 0))
        for id_ in {**names, **{id_: "" for id_, run in known.items() if run.ours}}
        if waiting.get(id_) or id_ not in known or known[id_].open
    ]
    return Contents(sum(waiting.values()), tuple(found), files, file_bytes)


def _files(folder: Path) -> tuple[int, int]:
    count = total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size
            except OSError:  # It has just been delivered.
                continue
            count += 1
    return count, total
