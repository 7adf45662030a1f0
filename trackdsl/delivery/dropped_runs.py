"""Dropped runs: their events that are not at MLflow yet, and those of runs below them, are never delivered.

The file `dropped` in a journal's folder holds our ids of these runs in hexadecimal, one a line.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from trackdsl._core import events
from trackdsl._core.ids import prefix_of
from trackdsl.errors import logger
from trackdsl.journal._files import open_regular, read_regular
from trackdsl.journal._origin import read_origin
from trackdsl.journal._snapshots import remove_snapshot
from trackdsl.journal._spool import journals

_NAME = "dropped"


def drop_run(spool: Path, run: bytes) -> list[Path]:
    """Drop one run for good: its events that are not at MLflow yet, and those of the runs below it.

    What MLflow already has of it stays there. Call `wake(spool)` afterwards: a running delivery process looks for
    dropped runs when it is woken.

    Args:
        spool: the spool's folder.
        run: our id of the run.

    Returns:
        the journals that may hold its events: those of its process, and of processes that this one started.

    Raises:
        OSError: it cannot be written.
    """
    noted = []
    for directory in journals(spool):
        origin = read_origin(directory)
        if origin is not None and prefix_of(run).hex() in (origin.prefix, *origin.ancestors):
            mark_dropped(directory, run)
            noted.append(directory)
    return noted


def mark_dropped(directory: Path, run: bytes) -> None:
    """Mark a run as dropped in one journal's folder.

    Raises:
        OSError: it cannot be written.
    """
    # After a power cut the last line may be torn: the newline keeps this one separate.
    line = f"\n{run.hex()}\n".encode()
    descriptor = open_regular(directory / _NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def dropped_runs(directory: Path) -> set[bytes]:
    """Our ids of the dropped runs of a journal."""
    ids: set[bytes] = set()
    try:
        lines = read_regular(directory / _NAME).split(b"\n")
    except OSError:
        return ids
    for line in lines:
        if len(line) == 32:
            with contextlib.suppress(ValueError):
                ids.add(bytes.fromhex(line.decode("ascii")))
    return ids


class DroppedRuns:
    """The dropped runs of one journal, for its delivery.

    Args:
        directory: the journal's folder.
        elsewhere: whether a run is dropped in another journal.
    """

    def __init__(self, directory: Path, elsewhere: Callable[[bytes], bool]) -> None:
        self._directory = directory
        self._elsewhere = elsewhere
        self._runs = dropped_runs(directory)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._runs

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._runs)

    def read(self) -> None:
        """Look for runs that were dropped since the last time."""
        self._runs |= dropped_runs(self._directory)

    def covers(self, event: events.AnyEvent) -> bool:
        """Whether an event belongs to a dropped run, or opens a run below one, which is then dropped too."""
        if event.run in self._runs:
            return True
        if not isinstance(event, events.Open) or event.parent is None:
            return False
        if event.parent not in self._runs and not self._elsewhere(event.parent):
            return False
        try:
            mark_dropped(self._directory, event.run)
        except OSError as error:
            # After a restart, the other events of this run belong to an unknown run, and are left out too.
            logger.warning("trackdsl cannot write a dropped run to %s: %s", self._directory, error)
        self._runs.add(event.run)
        return True

    def forget(self, event: events.AnyEvent) -> None:
        """Remove the snapshot of a dropped run's event."""
        snapshot = getattr(event, "snapshot", "")
        if snapshot:
            remove_snapshot(self._directory, snapshot)
