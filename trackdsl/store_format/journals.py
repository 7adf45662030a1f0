"""The journals of a spool as commands see them: reading changes nothing and disturbs neither writers nor delivery."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trackdsl._core import uris as _uris
from trackdsl._core.redaction import mask_prose
from trackdsl.journal import _spool, _spool_choice
from trackdsl.journal._files import open_regular
from trackdsl.journal._lock import is_held
from trackdsl.journal._origin import Origin, read_origin
from trackdsl.journal._reader import Reader
from trackdsl.journal._segments import START, Position, missing_segments
from trackdsl.store_format.backlog import bytes_between, end_of
from trackdsl.store_format.progress import Progress, read_progress
from trackdsl.store_format.sinks import SinkNote, read_sink

#: The limit for counting events one by one: `trackdsl status` must be quick.
MOST_COUNTED = 10_000
#: A store that has not answered for this time may be gone for good, in nanoseconds.
_LONG = 3_600_000_000_000


@dataclass(frozen=True)
class Journal:
    """A journal as it was found.

    Attributes:
        directory: its folder.
        origin: who writes it; None if that file is damaged.
        alive: whether its program is running.
        progress: how much is delivered.
        end: behind the last event.
        newer: the version of its events, if this trackdsl is too old to read them.
        damage: why nothing of it can be read, or None.
    """

    directory: Path
    origin: Origin | None
    alive: bool
    progress: Progress
    end: Position
    newer: int | None
    damage: str | None = None

    @property
    def problem(self) -> str | None:
        """Why this version can never deliver it, or None."""
        if self.damage is not None:
            return "unreadable"
        if self.origin is None:
            return "damaged-origin"
        return None if self.newer is None else "newer-version"

    @property
    def waits(self) -> bool:
        """Whether something is left to do. Delivery also has to finish the journal of a dead program."""
        if self.problem or not self.alive:
            return True
        return self.progress.position < self.end or self.progress.deferred > 0

    @property
    def target(self) -> str | None:
        """The tracking URI, without credentials."""
        return None if self.origin is None else mask_prose(self.origin.uri)

    @property
    def sink(self) -> SinkNote | None:
        """How delivery writes to its store; None if it has not done so yet."""
        origin = self.origin
        return None if origin is None else read_sink(self.directory.parent.parent, origin.uri, origin.cwd)

    @property
    def wrong_target(self) -> str | None:
        """The mistake in the tracking URI, if its text shows one."""
        return None if self.origin is None else _uris.describe_mistake(self.origin.uri)

    @property
    def is_stuck(self) -> bool:
        """Whether it may never be delivered."""
        since = self.progress.blocked_since
        hopeless = self.origin is None or self.wrong_target is not None or self.progress.blocked > 0
        return hopeless or bool(since and time.time_ns() - since > _LONG)

    @property
    def source(self) -> str | None:
        """The program's file, without credentials."""
        return None if self.origin is None else mask_prose(self.origin.source)

    @property
    def program(self) -> str:
        """The program, for people."""
        if self.origin is None:
            return f"the journal {self.directory.name}"
        return f"{self.source} (pid {self.origin.pid})"

    @property
    def since(self) -> int | None:
        """Since when it waits, in nanoseconds since 1970: since delivery fails, or since it was made."""
        return self.progress.blocked_since or (None if self.origin is None else self.origin.time)

    @property
    def error(self) -> str:
        """The last error of delivery, without credentials."""
        return mask_prose(self.progress.error)

    @property
    def brief_error(self) -> str:
        """The first line of the error: the error of a database contains the whole statement."""
        return self.error.partition("\n")[0]

    def bytes_left(self) -> int:
        """Bytes of events that are not delivered."""
        return bytes_between(self.directory, self.progress.position, self.end)

    def missing(self) -> list[str]:
        """The missing segments, and ends of segments, whether delivery has noticed or not."""
        gone = [] if self.problem else missing_segments(self.directory, self.progress.position)
        if gone and (read_progress(self.directory) or Progress()).position != self.progress.position:
            gone = []  # Delivery has removed them in the meantime.
        return [*self.progress.missing, *(f"segment {number}" for number in gone)]

    def count(self) -> tuple[int, int]:
        """The number of waiting events, up to `MOST_COUNTED`, and of events that were lost before they were written."""
        if self.problem:
            return 0, 0
        reader = Reader(self.directory, self.progress.position)
        waiting = lost = 0
        try:
            # One of its files may have been removed by now.
            with contextlib.suppress(OSError):
                waiting = sum(entry.event is not None for entry in reader.read(MOST_COUNTED, writer_alive=self.alive))
                lost = reader.lost()
            return waiting, lost
        finally:
            reader.close()


def read_journals(spool: Path) -> Iterator[Journal]:
    """The journals of a spool, oldest first."""
    for directory, problem in _spool.scan_journals(spool):
        journal = _read(directory) if problem is None else _unread(directory, problem)
        if journal is not None:
            yield journal


def undelivered_sentence(uri: str) -> str:
    """A sentence with the number of undelivered events for a store, and what to do about them.

    Args:
        uri: the tracking URI, made absolute.

    Returns:
        the sentence; empty if everything is delivered.
    """
    events, programs = 0, []
    with contextlib.suppress(OSError, RuntimeError):  # Without a spool, nothing waits.
        spool = _spool_choice.named_path()
        for journal in read_journals(spool) if (spool / _spool.JOURNALS).is_dir() else ():
            if journal.origin is None or _comparable(journal.origin.uri) != _comparable(uri) or not journal.waits:
                continue
            count = journal.count()[0] or journal.progress.deferred
            events += count
            programs += [journal.program] if count else []
    if not events:
        return ""
    more = f" and {len(programs) - 1} more" if len(programs) > 1 else ""
    verb = "1 event waits" if events == 1 else f"{events:,} events wait"
    return f"{verb} for delivery to this store, from {programs[0]}{more}: `trackdsl sync` delivers them."


def absence_message(what: str, uri: str, otherwise: str, nearest: str = ".") -> str:
    """The message about something that a store does not have: it may be among the events that are not delivered yet.

    Args:
        what: names what was requested.
        uri: the tracking URI of the store, made absolute.
        otherwise: the message if all events are delivered.
        nearest: the text of a `Suggestion`.
    """
    waiting = undelivered_sentence(uri)
    hint = ":" if nearest == "." else nearest
    return f"{what} is not at MLflow, or not yet{hint} {waiting}" if waiting else otherwise


def _comparable(uri: str) -> str:
    """A tracking URI for comparisons: without credentials and without a slash at the end."""
    return re.sub(r"//[^/]*@", "//", uri).rstrip("/")


def _read(directory: Path) -> Journal | None:
    origin = read_origin(directory)
    try:
        # In this order: once the lock of a dead program is free, all of its events are there.
        alive = is_held(directory / "lock")
        progress = _progress_of(directory)
        found = Journal(
            directory, origin, alive, progress, end_of(directory), _newer_schema(directory, progress.position)
        )
    except OSError as error:
        found = _unread(directory, reason_of(error))
    # If the journal was finished during this look, nothing of the above counts.
    return found if directory.is_dir() else None


def _unread(directory: Path, why: str) -> Journal:
    return Journal(directory, None, False, Progress(), START, None, why)


def _progress_of(directory: Path) -> Progress:
    progress = read_progress(directory)
    path = directory / "progress"
    if progress is None and os.path.lexists(path):
        os.close(open_regular(path, os.O_RDWR))  # A short file is fine: delivery makes it longer.
    return progress or Progress()


def reason_of(error: OSError) -> str:
    """The error of a file, and the file."""
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename else what


def _newer_schema(directory: Path, position: Position) -> int | None:
    reader = Reader(directory, position)
    try:
        next(reader.read(1, writer_alive=True), None)
        return reader.newer_schema
    finally:
        reader.close()
