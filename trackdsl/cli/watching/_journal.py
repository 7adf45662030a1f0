"""Follows one journal for `trackdsl watch`, at a bounded cost: it reads, and changes nothing."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import msgspec

from trackdsl._core import events
from trackdsl._core.redaction import mask_prose
from trackdsl.cli._hosts import why_unsure
from trackdsl.cli.watching._position_times import PositionTimes
from trackdsl.cli.watching._runs import ENDED, WatchedRuns
from trackdsl.cli.watching._seen_runs import SeenRuns
from trackdsl.journal._lock import is_held
from trackdsl.journal._mounts import FileSystem
from trackdsl.journal._origin import Origin, may_still_run
from trackdsl.journal._reader import Reader
from trackdsl.journal._segments import START, Position, segments
from trackdsl.journal._structure import skim
from trackdsl.store_format.backlog import bytes_between
from trackdsl.store_format.journal_ledger import read_journal
from trackdsl.store_format.journals import Journal
from trackdsl.store_format.known_runs import read_runs
from trackdsl.store_format.ledger import BEGINNING, changes_in, latest
from trackdsl.store_format.progress import Progress, read_progress

#: Events between two readings of the clock.
_AT_ONCE = 1000
#: If more than this is left to read, in bytes, only the events of the tree of runs are read from most of it.
_MOST_READ = 2_000_000
#: What is read in any case, in bytes before the end: it has the latest points.
_TAIL = 200_000


class WatchedJournal:
    """A journal that is followed.

    Args:
        directory: its folder.
        origin: the program that writes it.
        runs: what is read is applied to them.
        kind: the file system of the spool.

    Attributes:
        alive: whether its program runs.
        is_local: whether its program runs on this machine.
        unsure: why it may have ended although it counts as running, for a program of another machine.
        was_alive: whether it was alive at some time since it is watched.
        finished: whether nothing more will be read from it.
        progress: how much of it is delivered.
        behind: bytes of events that are not delivered.
        left_out: whether points were passed over, because they were recorded faster than they could be read.
    """

    def __init__(self, directory: Path, origin: Origin, runs: WatchedRuns, kind: FileSystem) -> None:
        self.directory = directory
        self.name = directory.name
        self.origin = origin
        self.alive = True
        self.unsure = ""
        self.was_alive = False
        self.finished = False
        self.progress = Progress()
        self.behind = 0
        self.left_out = False
        self._runs = runs
        self._kind = kind
        self.is_local = origin.host == os.uname().nodename
        first = segments(directory)
        self._reader = Reader(directory, Position(first[0], 0) if first else START)
        #: Whether segments were removed before they were read.
        self._gap = not first or first[0] > 1
        self._seen = SeenRuns(origin.prefix)
        #: Ended runs that delivery knew of when it had removed segments; those that are never read are counted.
        self._perhaps_unread: list[bytes] = []
        self._caught_up = False
        self._time = origin.time
        self._alive_at = 0
        self._position_times = PositionTimes(origin.time / 1e9)

    @property
    def caught_up(self) -> bool:
        """Whether everything was read at the last look."""
        return self._caught_up

    @property
    def position(self) -> Position:
        """Behind the last event that was read."""
        return self._reader.position

    @property
    def delay(self) -> float:
        """For how many seconds the oldest event that is not delivered has been waiting."""
        since = self._position_times.since()
        return 0.0 if since is None or not self.behind else max(0.0, time.time() - since)

    @property
    def error(self) -> str:
        """Why delivery fails, in a line without credentials; empty while it works."""
        return mask_prose(self.progress.error).partition("\n")[0] if self.progress.blocked_since else ""

    def read(self, seconds: float) -> None:
        """Read what is new.

        Args:
            seconds: of CPU time for it, and a moment for the end.
        """
        if self.finished:
            return
        gone = not os.path.lexists(self.directory / "lock")
        # Before reading: once the lock of a dead program is free, all of its events are there.
        alive = self._is_alive(gone)
        if alive:
            self.was_alive = True
        if not self._caught_up:  # Only what is not delivered yet has to be remembered.
            self.progress = read_progress(self.directory) or self.progress
        self._read(time.thread_time() + seconds, alive=alive and not gone)
        self.alive = alive
        if alive:
            self._alive_at = time.time_ns()
        if not gone:
            self._look_at_delivery()
        if not alive and self._caught_up:
            self._finish()

    def close(self) -> None:
        """Close its files until they are used again."""
        self._reader.close()

    def _is_alive(self, gone: bool) -> bool:
        if gone:  # It is delivered, dropped or deleted. A program that still runs begins another one.
            return bool(self._runs.open_in(self.name)) and may_still_run(self.origin)
        with contextlib.suppress(OSError):
            if is_held(self.directory / "lock"):
                self.unsure = ""
                return True
        if not self.is_local:
            found = Journal(self.directory, self.origin, False, self.progress, self.position, None)
            self.unsure = why_unsure(found, self._kind)
        return bool(self.unsure)

    def _read(self, give_up: float, *, alive: bool) -> None:
        if self._gap:
            self._fill_gap()
        # What is read for the first time may have been recorded long ago, and its own time says when.
        late = not self._caught_up
        if late:
            self._pass_over(give_up)
        self._caught_up = False
        try:
            while time.thread_time() < give_up:
                entries = self._reader.read_stretch(_AT_ONCE, writer_alive=alive)
                if not entries:
                    self._caught_up = True
                    break
                for entry in entries:
                    if entry.event is not None:
                        self._apply(entry.event)
                    elif entry.missing:
                        self._gap = True
                    if late and entry.end > self.progress.position:
                        self._position_times.add(entry.end, self._time / 1e9)
        except (OSError, ValueError):  # A file was damaged or removed at this moment.
            self._reader.close()
            self._caught_up = not os.path.lexists(self.directory)
        self._count_unread()

    def _count_unread(self) -> None:
        """Count the ended runs of removed segments, once everything else is read."""
        if not self._caught_up or not self._perhaps_unread:
            return
        unread = [id_ for id_ in self._perhaps_unread if id_ not in self._seen]
        self._perhaps_unread.clear()
        for id_ in unread:
            self._seen.add(id_)
        self._runs.count_unread(unread, self.name)

    def _pass_over(self, give_up: float) -> None:
        """Read only the tree of runs of most of what is left, if that is much."""
        with contextlib.suppress(OSError, ValueError):
            numbers = segments(self.directory)
            while numbers and self._left(numbers) > _MOST_READ and time.thread_time() < give_up:
                number, before = self.position.segment, self.position
                for event in skim(self._reader, _TAIL if number >= numbers[-1] else 0):
                    self._apply(event)
                    self._position_times.add(Position(number, before.offset + 1), self._time / 1e9)
                if self.position > before:
                    self.left_out = True
                    self._position_times.add(self.position, self._time / 1e9)
                elif not self._next_segment(numbers):
                    break

    def _left(self, numbers: list[int]) -> int:
        """About how many bytes are left to read."""
        left = 0
        for number in numbers:
            if number >= self.position.segment:
                size = (self.directory / f"{number:06d}.seg").stat().st_size
                left += size - (self.position.offset if number == self.position.segment else 0)
        return left

    def _next_segment(self, numbers: list[int]) -> bool:
        """Go to the next segment; returns whether there is one."""
        following = next((number for number in numbers if number > self.position.segment), None)
        if following is None:
            return False
        self._reader.position = Position(following, 0)
        return True

    def _apply(self, event: events.AnyEvent) -> None:
        self._time = getattr(event, "time", self._time)
        if isinstance(event, events.Open):
            self._seen.add(event.run)
        self._runs.apply(event, self.name)

    def _fill_gap(self) -> None:
        """Learn from delivery's ledger which runs began, and ended, in segments that were removed unread."""
        self._gap = False
        content = read_journal(self.directory)
        for payload in latest(changes_in(content), BEGINNING).values():
            with contextlib.suppress(msgspec.MsgspecError, RecursionError):
                event = events.decode(payload)
                if self._runs.get(event.run) is None:
                    self._apply(event)
        over = [id_ for id_, known in read_runs(self.directory) if known.ours and not known.open]
        open_ = {run.id: run for run in self._runs.open_in(self.name)}
        for id_ in over:
            if id_ in open_:
                self._runs.end(open_[id_], ENDED, self._time)
        self._perhaps_unread = [id_ for id_ in over if id_ not in self._seen]

    def _look_at_delivery(self) -> None:
        found = read_progress(self.directory)
        if found is None:
            return
        self.progress = found
        self._position_times.add(self.position, time.time())
        self._position_times.forget(found.position)
        self.behind = bytes_between(self.directory, found.position, self.position)

    def _finish(self) -> None:
        """Its program has ended, and everything was read."""
        self.finished = True
        self._reader.close()
        for run in self._runs.open_in(self.name):
            status = ENDED if self._gap or run.derived else "KILLED"
            self._runs.end(run, status, max(self._time, run.began, self._alive_at))
