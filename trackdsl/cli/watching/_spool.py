"""Follows all journals of a spool: those of programs that run, and those of programs that begin later."""

from __future__ import annotations

import os
import time
from pathlib import Path

from trackdsl.cli.watching._journal import WatchedJournal
from trackdsl.cli.watching._runs import WatchedRuns
from trackdsl.journal._lock import is_written
from trackdsl.journal._mounts import file_system
from trackdsl.journal._origin import read_origin
from trackdsl.journal._spool import JOURNALS, scan_journals
from trackdsl.store_format.heartbeat_monitor import HeartbeatMonitor

#: At the latest after this time, in seconds, the folder is listed again although it seems unchanged.
_LIST_AFTER = 2.0
#: The files of at most this many journals stay open between two reads.
_MOST_OPEN = 200
#: For each journal that is read, in seconds of CPU time.
_LEAST = 0.002


class WatchedSpool:
    """The journals of a spool.

    Args:
        spool: its folder.
        ended: whether programs that have ended before are read too.

    Attributes:
        runs: the runs of all of them.
        journals: by name, those that are followed or were.
        unreadable: the names of journals that cannot be read, and why.
        delivering: what delivery does, in a few words; None if no delivery process runs.
    """

    def __init__(self, spool: Path, *, ended: bool) -> None:
        self.spool = spool
        self.runs = WatchedRuns()
        self.journals: dict[str, WatchedJournal] = {}
        self.unreadable: dict[str, str] = {}
        self.delivering: str | None = None
        self._monitor: tuple[set[str], HeartbeatMonitor] = set(), HeartbeatMonitor(())
        self._ended = ended
        self._kind = file_system(spool)
        self._listed = (0, 0.0)
        #: Journals of ended programs, which are not read.
        self._passed: set[str] = set()
        self._next = 0

    def read(self, seconds: float) -> None:
        """Read what is new in all journals; what does not fit into the time is read by the next call.

        Args:
            seconds: of CPU time for it.
        """
        give_up = time.thread_time() + seconds
        self._find()
        following = [journal for journal in self.journals.values() if not journal.finished]
        for count in range(len(following)):
            journal = following[(self._next + count) % len(following)]
            left = give_up - time.thread_time()
            if left <= 0:
                self._next = (self._next + count) % len(following)
                break
            journal.read(max(left / (len(following) - count), _LEAST))
            if len(following) > _MOST_OPEN:
                journal.close()
        self._forget()
        self._look_at_delivery()

    @property
    def is_behind(self) -> bool:
        """Whether something is known to be left to read."""
        return any(not journal.finished and not journal.caught_up for journal in self.journals.values())

    def _find(self) -> None:
        """Find new journals."""
        now = time.monotonic()
        try:
            changed = os.stat(self.spool / JOURNALS).st_mtime_ns
        except OSError:
            return
        if self._listed[0] == changed and now < self._listed[1]:
            return
        self._listed = (changed, now + _LIST_AFTER)
        found = {path: problem for path, problem in scan_journals(self.spool) if path.name not in self.journals}
        self.unreadable = {path.name: problem for path, problem in found.items() if problem is not None}
        self._passed &= {path.name for path in found}
        new = [path for path, problem in found.items() if problem is None and path.name not in self._passed]
        origins = {path: read_origin(path) for path in new}
        related = {prefix for journal in self.journals.values() for prefix in _family(journal)}
        for path, origin in origins.items():
            if origin is not None and is_written(path):
                related |= {origin.prefix, *origin.ancestors}
        for path, origin in origins.items():
            if origin is None:
                self.unreadable[path.name] = "its `origin` file is damaged"
            elif (
                self._ended
                or is_written(path)
                or origin.host != os.uname().nodename
                or (related & {origin.prefix, *origin.ancestors})
            ):
                self.journals[path.name] = WatchedJournal(path, origin, self.runs, self._kind)
            else:
                self._passed.add(path.name)

    def _look_at_delivery(self) -> None:
        stores = {journal.origin.uri for journal in self.journals.values() if journal.behind}
        if stores != self._monitor[0]:
            self._monitor = stores, HeartbeatMonitor((self.spool, uri) for uri in stores)
        monitor = self._monitor[1]
        monitor.update(progressed=False)
        self.delivering = monitor.description() if monitor.runs else None

    def _forget(self) -> None:
        """Forget journals that are read to their ends and of which no run is kept."""
        finished = [journal for journal in self.journals.values() if journal.finished]
        if len(finished) <= _MOST_OPEN:
            return
        used = {run.journal for run in self.runs}
        for journal in finished:
            if journal.name not in used:
                del self.journals[journal.name]
                self._passed.add(journal.name)


def _family(journal: WatchedJournal) -> set[str]:
    return {journal.origin.prefix, *journal.origin.ancestors} if not journal.finished else set()
