"""Root runs that wait for their changes to be written, or for a report or a trace: the ledger of their server has them.

A run is entered there when it begins, so that one whose program or delivery is killed is not forgotten. The work is
done while nothing is to be delivered, one run after the other, and programs do not wait for it. A thread that delivers
in a program only writes changes: a report or a trace would take the program's time, so these wait for the next process.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trackdsl._core import events
from trackdsl.delivery._timing import timing
from trackdsl.delivery.state._ledger import Ledger
from trackdsl.delivery.store._sink import Sink
from trackdsl.delivery.summaries._change_notes import write_changes
from trackdsl.delivery.summaries._left_out import make_or_leave_out
from trackdsl.delivery.summaries._program_contents import PROGRAM, ProgramReader, Site
from trackdsl.delivery.summaries._reports import Interrupted, make_report
from trackdsl.delivery.summaries._traces import make_trace
from trackdsl.errors import log_once, logger
from trackdsl.journal._lock import is_written
from trackdsl.journal._origin import Origin
from trackdsl.journal._spool import JOURNALS
from trackdsl.store_format.changes.stored import PATH as CHANGES_PATH
from trackdsl.store_format.ledger import CHANGES, NOTED, ORIGIN, TRACED
from trackdsl.store_format.report.material import PATH as REPORT_PATH
from trackdsl.store_format.root_runs import RootRun, with_origins

if TYPE_CHECKING:
    from trackdsl.delivery.state._open_journal import OpenJournal

#: After this many failures in a row, this process gives up, and a later one tries again.
_MOST_FAILURES = 5
#: How often to look whether journals are gone, in seconds.
_LOOK_EVERY = 1.0
#: Functions whose source waits to be read; of more, it is read when their root run has ended.
_MOST_SITES = 1000
#: When a report or trace is tried again that had to wait for a program, in seconds.
_AFTER_INTERRUPTION = 0.5


@dataclass
class Waiting:
    """A root run that waits.

    Attributes:
        root: the run.
        ended: whether it may have ended.
        failures: how often the store failed in a row.
        next_try: on the monotonic clock.
        made: what is made of it, or left out for good: the paths of files, and `trace`.
        to_process: whether it is left to a delivery process.
    """

    root: RootRun
    ended: bool = False
    failures: int = 0
    next_try: float = 0.0
    made: set[str] = field(default_factory=set)
    to_process: bool = False


class WhatChanged:
    """The root runs of the stores that share a folder.

    Args:
        spool: the spool's folder.
        ledger: that of the server.
        own: whether this process belongs to delivery.
    """

    def __init__(self, spool: Path, ledger: Ledger, *, own: bool) -> None:
        self._spool = spool
        self._own = own
        self._ledger = ledger
        self._program_reader = ProgramReader(own=own)
        self._waiting: dict[bytes, Waiting] = {}
        #: How many runs wait of each journal.
        self._journals: Counter[str] = Counter()
        #: What the ledger does not have yet.
        self._unsaved: list[tuple[int, Any, Any]] = []
        self._sites: deque[tuple[Origin, Site]] = deque(maxlen=_MOST_SITES)
        self._seen: set[tuple[str, Site]] = set()
        self._looked = 0.0
        roots = ledger.load(CHANGES, self._roots)
        traced, written = ledger.load(TRACED, self._traced), ledger.load(NOTED, self._written)
        for root in with_origins(roots, ledger.load(ORIGIN, self._origins), traced):
            made = {CHANGES_PATH} if root.id_ in written else set()
            # Ended perhaps: its end may have been delivered.
            self._waiting[root.id_] = Waiting(root, ended=True, made=made, to_process=not own)
            self._journals[root.journal] += 1

    def opened(self, stream: OpenJournal, event: events.Open, run_id: str) -> None:
        """A run has begun."""
        origin = stream.origin
        if not _wanted(origin, traces=event.traces):
            return
        if event.rank is not None:
            self._add_shared(stream, event.run, traces=event.traces)
        elif event.parent is None:
            self._add(RootRun(event.run, run_id, stream.directory.name, origin, event.traces))
        if origin.project is not None and event.site is not None and (origin.prefix, event.site) not in self._seen:
            if len(self._seen) > _MOST_SITES:
                self._seen.clear()
            self._seen.add((origin.prefix, event.site))
            self._sites.append((origin, event.site))

    def closed(self, stream: OpenJournal, id_: bytes) -> None:
        """A run has ended."""
        root = stream.runs.ranks.get(id_)
        if root is not None:  # The last rank ends the root that they share, whichever began first.
            self._add_shared(stream, id_)
        waiting = self._waiting.get(root or id_)
        if waiting is not None:
            waiting.ended = True

    def _add_shared(self, stream: OpenJournal, rank: bytes, *, traces: bool = False) -> None:
        id_ = stream.runs.ranks.get(rank)
        root = None if id_ is None else stream.runs.get(id_)
        if id_ is not None and root is not None and _wanted(stream.origin, traces=traces):
            self._add(RootRun(id_, root.run_id, stream.directory.name, stream.origin, traces))

    def read_next_source(self) -> bool:
        """Read the source of one function that was called for the first time; returns whether there was one."""
        if not self._sites:
            return False
        origin, site = self._sites.popleft()
        self._program_reader.begin(origin)
        self._program_reader.read_site(origin, site)
        return True

    def due(self) -> list[Waiting]:
        """The runs that can be done now, as far as is known here."""
        now = time.monotonic()
        if now - self._looked > _LOOK_EVERY:
            self._looked = now
            for waiting in self._waiting.values():
                waiting.ended = waiting.ended or not (self._spool / JOURNALS / waiting.root.journal).is_dir()
        return [one for one in self._waiting.values() if one.ended and not one.to_process and one.next_try <= now]

    def expects(self) -> bool:
        """Whether runs are left that this process can do without waiting for long."""
        return bool(self._sites) or any(
            one.ended and not one.to_process and one.failures < _MOST_FAILURES for one in self._waiting.values()
        )

    def write(self, sink: Sink, waiting: Waiting, waits: Callable[[], bool]) -> None:
        """Write the changes of one root run, and make its report and trace.

        Args:
            sink: the store.
            waiting: the run.
            waits: whether a program waits for delivery. Then its report and trace are made later.

        Raises:
            Unavailable: the store cannot be reached.
        """
        root = waiting.root
        try:
            done = self._make_all(sink, waiting, waits)
        except Interrupted:
            waiting.next_try = time.monotonic() + _AFTER_INTERRUPTION
            return
        waiting.failures = 0
        if done and not self._own and _has_pages(root):
            self._leave(waiting)
        elif done or not (self._spool / JOURNALS / root.journal).is_dir():
            # A run that is open although its program has ended is continued elsewhere, and done there.
            self._remove(root)
        else:
            waiting.ended = False  # Its end was read, and is not delivered yet.

    def _make_all(self, sink: Sink, waiting: Waiting, waits: Callable[[], bool]) -> bool:
        """Make what a run still lacks; returns whether there is nothing more to do."""
        for name, make in self._to_make(sink, waiting.root, waits):
            if name not in waiting.made:
                if not make_or_leave_out(sink, waiting.root.run_id, name, make):
                    return False
                waiting.made.add(name)
                if name == CHANGES_PATH and _has_pages(waiting.root):
                    # Later, the program's files may be others, so that less would be known.
                    self._unsaved.append(NOTED.change(waiting.root.id_, True))
                    self.save()
        return True

    def _leave(self, waiting: Waiting) -> None:
        """Leave a run's report and trace to a process, because this is a thread of a program."""
        waiting.to_process = True
        if waiting.root.traces:
            log_once(
                "trackdsl: a thread that delivers makes no traces and no reports, as this would take the program's "
                "time: `trackdsl sync` makes them, or the next delivery process.",
                key="traces-of-threads",
            )

    def _to_make(
        self, sink: Sink, root: RootRun, waits: Callable[[], bool]
    ) -> Iterator[tuple[str, Callable[[], bool]]]:
        """The artifacts that are to be made of a root run, in order, each with the function that makes it."""
        origin = root.origin
        if origin.project is not None:
            capture = partial(self._program_reader.of_program, origin)
            yield CHANGES_PATH, partial(write_changes, sink, root.run_id, origin, capture)
        if origin.reports and self._own:
            yield REPORT_PATH, partial(make_report, sink, root.run_id, waits)
        if root.traces and self._own:
            still_runs = is_written(self._spool / JOURNALS / root.journal)
            yield "trace", partial(make_trace, sink, root.run_id, waits, still_runs=still_runs)

    def failed(self, waiting: Waiting, error: Exception) -> None:
        """A run could not be done; it is tried again later, and by a later process."""
        waiting.failures += 1
        pause = min(timing().first_retry * 2**waiting.failures, timing().longest_retry)
        waiting.next_try = time.monotonic() + pause
        if waiting.failures == _MOST_FAILURES:
            log_once(
                f"trackdsl: what changed in run {waiting.root.run_id} is not written, or its report or trace not made, "
                f"yet: {error}",
                key=f"not made yet:{error}",
            )

    def give_up(self, waiting: Waiting) -> None:
        """Forget a run, because of a fault that would occur again."""
        self._remove(waiting.root)

    def close(self) -> None:
        """End what is being read."""
        self._program_reader.close()

    def save(self) -> None:
        """Write what is new to the ledger, before the journals write their progress."""
        if self._unsaved:
            changes, self._unsaved = self._unsaved, []
            try:
                self._ledger.write(changes)
            except OSError as error:  # On a full disk. Only a kill makes a difference.
                logger.warning("trackdsl cannot write the list of runs whose changes are to be written: %s", error)

    def _add(self, root: RootRun) -> None:
        if root.id_ in self._waiting:
            return
        if not self._journals[root.journal]:
            self._unsaved.append(ORIGIN.change(root.journal, msgspec.json.encode(root.origin)))
        self._journals[root.journal] += 1
        self._unsaved.append(CHANGES.change(root.id_, (root.run_id, root.journal)))
        if root.traces:
            self._unsaved.append(TRACED.change(root.id_, True))
        self._waiting[root.id_] = Waiting(root)
        self._sites.append((root.origin, PROGRAM))  # Also packages and git.

    def _remove(self, root: RootRun) -> None:
        waiting = self._waiting.pop(root.id_, None)
        if waiting is None:
            return
        self._unsaved.append(CHANGES.change(root.id_, None))
        if root.traces:
            self._unsaved.append(TRACED.change(root.id_, None))
        if CHANGES_PATH in waiting.made and _has_pages(root):
            self._unsaved.append(NOTED.change(root.id_, None))
        self._journals[root.journal] -= 1
        if not self._journals[root.journal]:
            del self._journals[root.journal]
            self._unsaved.append(ORIGIN.change(root.journal, None))
        self.save()
        if not self._waiting:
            self._ledger.tidy()

    def _roots(self) -> Iterator[tuple[bytes, tuple[str, str]]]:
        for id_, waiting in self._waiting.items():
            yield id_, (waiting.root.run_id, waiting.root.journal)

    def _origins(self) -> Iterator[tuple[str, bytes]]:
        for waiting in {waiting.root.journal: waiting for waiting in self._waiting.values()}.values():
            yield waiting.root.journal, msgspec.json.encode(waiting.root.origin)

    def _traced(self) -> Iterator[tuple[bytes, bool]]:
        yield from ((id_, True) for id_, waiting in self._waiting.items() if waiting.root.traces)

    def _written(self) -> Iterator[tuple[bytes, bool]]:
        yield from ((id_, True) for id_, waiting in self._waiting.items() if CHANGES_PATH in waiting.made)


def _wanted(origin: Origin, *, traces: bool) -> bool:
    """Whether anything is to be done for a root run."""
    return origin.project is not None or origin.reports or traces


def _has_pages(root: RootRun) -> bool:
    """Whether a report or a trace of a root run is wanted."""
    return root.traces or root.origin.reports
