"""Runs that another journal opened: the parents of runs of a forked child, or of runs of a cluster's worker.

A run's id begins with the prefix of the process that opened it (`Origin.prefix`). If a journal of that process is in
this spool, it holds the run before any event that refers to the run: the other journal waits until that one is read so
far, and asks nothing of the store. Otherwise another machine delivers the run, or it was delivered long ago: the store
is asked, once for all journals. A run that the store does not have may still come, so it is waited for, within limits:
see `state/_awaited_runs.py`.
`_parents.py` explains how a child that did not wait long enough finds its parent later.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trackdsl._core.ids import begins_with, prefix_of
from trackdsl.delivery.state._awaited_runs import AwaitedRuns
from trackdsl.delivery.state._ledger import Ledger
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._errors import NotYet, Refused, RunBlocked
from trackdsl.delivery.store._sink import Sink
from trackdsl.journal._lock import is_held

if TYPE_CHECKING:
    from trackdsl._core import events
    from trackdsl.delivery.state._open_journal import OpenJournal

#: How many runs of a process are looked up one by one.
_SINGLE_LOOKS = 4
#: How many runs are remembered at most.
_MOST = 10_000


class RemoteRuns:
    """Finds runs for journals that did not open them.

    Args:
        ledger: where it writes which runs it waits for.
        find_journals: looks for new journals, and calls `add` for each.
    """

    def __init__(self, ledger: Ledger, find_journals: Callable[[], None]) -> None:
        self._find_journals = find_journals
        self._streams: dict[bytes, list[OpenJournal]] = {}
        self._finished: set[bytes] = set()
        self._from_store: dict[bytes, DeliveredRun] = {}
        self._looks: Counter[bytes] = Counter()
        self._lost: set[bytes] = set()
        self._awaited = AwaitedRuns(ledger)
        self._waits: dict[Path, bytes] = {}
        #: MLflow's ids of resumed runs that are known from the journals.
        self.continued: set[str] = set()

    def add(self, stream: OpenJournal) -> None:
        """Add a journal."""
        self._streams.setdefault(stream.prefix, []).append(stream)
        self.continued.update(stream.runs.continued())

    def remove(self, stream: OpenJournal) -> None:
        """Remove a finished journal."""
        others = self._streams[stream.prefix]
        others.remove(stream)
        if not others:
            del self._streams[stream.prefix]
        self._finished.add(stream.prefix)
        self._waits.pop(stream.directory, None)

    def waits_no_more(self, stream: OpenJournal) -> None:
        """A journal does not wait for a run any more: it is read again from an earlier event."""
        self._waits.pop(stream.directory, None)

    def known(self, id_: bytes) -> DeliveredRun | None:
        """A run that is known without asking the store."""
        for stream in self._sources(id_):
            run = stream.runs.get(id_)
            if run is not None:
                return run
        return self._from_store.get(id_)

    def owners(self, id_: bytes) -> list[str]:
        """The journals of the process that opened a run."""
        return [stream.directory.name for stream in self._sources(id_)]

    def successors(self, stream: OpenJournal) -> list[OpenJournal]:
        """The journals that succeed a deleted one."""
        self._find_journals()
        same = self._streams.get(stream.prefix, [])
        return [other for other in same if other.origin.after == stream.directory.name]

    def of_same_program(self, asking: OpenJournal, id_: bytes) -> DeliveredRun | None:
        """A run that another journal of the same program has created."""
        for stream in self._streams.get(asking.prefix, ()):
            run = None if stream is asking else stream.runs.get(id_)
            if run is not None and run.ours:
                return run
        return None

    def is_lost(self, id_: bytes) -> bool:
        """Whether a run that was asked for will never come."""
        return id_ in self._lost

    def is_dropped(self, id_: bytes) -> bool:
        """Whether a run was dropped."""
        return any(stream.is_dropped(id_) for stream in self._sources(id_))

    def retry_now(self) -> None:
        """Ask the store again at once."""
        self._awaited.retry_now()

    def find(
        self, sink: Sink, asking: OpenJournal, id_: bytes, at: int, experiment: str | None = None
    ) -> DeliveredRun | None:
        """Find a run.

        Args:
            sink: the store.
            asking: the journal that refers to the run.
            id_: our id of it.
            at: when the event that refers to it was recorded, in nanoseconds since 1970.
            experiment: the name of the experiment that it should be in.

        Returns:
            the run; None if it is lost, or was awaited for long enough.

        Raises:
            NotYet: it may still come.
            RunBlocked: it is blocked.
            Unavailable: the store cannot be asked.
        """
        self._waits.pop(asking.directory, None)
        run = self.known(id_)
        if run is not None or id_ in self._lost:
            if run is not None and not run.ours:
                # If plain MLflow opened it, our id of it is not at MLflow, and the journal that knows it may be gone
                # the next time.
                run = _added_to(asking, id_, run)
            self._awaited.forget(id_)
            return run
        self._check_not_blocked(id_)
        self._wait_for_journals(id_, asking)
        if self._awaited.is_due(id_):
            run = self._ask(sink, asking, id_, experiment)
            if run is not None:
                return run
        if self._is_from_here(id_, asking):
            self._find_journals()  # A journal may have been made since the last look.
            self._wait_for_journals(id_, asking)
            self._give_up(id_)
        elif self._awaited.is_outdated(id_):
            self._give_up(id_)
        else:
            self._awaited.wait_for(id_, at)
        return None

    def ask_again(self, sink: Sink, id_: bytes) -> DeliveredRun | None:
        """Ask the store again for a run that was missing, regardless of when it was last asked."""
        return self.known(id_) or self._look_up(sink, id_, None)

    def find_here(self, asking: OpenJournal, id_: bytes) -> DeliveredRun | None:
        """A run that is written down by a journal of this spool; None if the store has to be asked.

        Raises:
            NotYet: a journal may have it, and is not read so far.
            RunBlocked: the run is blocked.
        """
        self._waits.pop(asking.directory, None)
        run = self.known(id_)
        if run is None:
            self._find_journals()
            self._check_not_blocked(id_)
            self._wait_for_journals(id_, asking)
        return run

    def others_at(self, asking: OpenJournal, run_id: str, event: events.Open) -> list[bool]:
        """For each other journal here that has an MLflow run open: whether its program is running.

        Raises:
            NotYet: one of them must be read first, up to the time of the event.
        """
        running = []
        for stream in [each for streams in self._streams.values() for each in streams if each is not asking]:
            if not stream.runs.open_as(run_id):
                continue
            # A journal that waits for this one would stand at a later event than this one.
            if stream.behind() and stream.reached() < event.time // 1_000_000:
                raise NotYet(f"run {run_id} has more in the journal {stream.directory.name}")
            running.append(is_held(stream.directory / "lock"))
        return running

    def _check_not_blocked(self, id_: bytes) -> None:
        for stream in self._sources(id_):
            why = stream.block_reason(id_)
            if why is not None:
                raise RunBlocked(why, waits=True)

    def _wait_for_journals(self, id_: bytes, asking: OpenJournal) -> None:
        """Return if no journal of this spool will open a run.

        Raises:
            NotYet: one may.
        """
        if any(self._moves(stream, {asking.directory}) for stream in self._unread(id_, asking)):
            self._waits[asking.directory] = id_
            raise NotYet(f"run {id_.hex()} is opened by another journal")

    def _ask(self, sink: Sink, asking: OpenJournal, id_: bytes, experiment: str | None) -> DeliveredRun | None:
        now = time.time()
        run = self._look_up(sink, id_, experiment)
        if run is None:
            self._awaited.mark_missing(id_, now)
            return None
        return _added_to(asking, id_, run)

    def _look_up(self, sink: Sink, id_: bytes, experiment: str | None) -> DeliveredRun | None:
        # If many runs of a process are asked for, ask for groups of them: a look-up at a store with many runs takes
        # long, however many runs it returns.
        process = prefix_of(id_)
        start = id_.hex() if self._looks[process] < _SINGLE_LOOKS else id_.hex()[:-2]
        if experiment is not None:
            with contextlib.suppress(Refused):
                self._take(sink.find_runs(start, sink.experiment(experiment)))
        if id_ not in self._from_store:
            self._take(sink.find_runs(start, None))
        run = self._from_store.get(id_)
        if run is None:
            return None
        self._looks[process] += 1
        self._awaited.mark_present(id_)
        return run

    def _take(self, rows: list[tuple[str, str, str]]) -> None:
        if len(self._from_store) >= _MOST:
            self._from_store.clear()
            self._looks.clear()
        for id_, run_id, experiment_id in rows:
            with contextlib.suppress(ValueError):  # A user's tag of the same name.
                self._from_store[bytes.fromhex(id_)] = DeliveredRun(run_id, experiment_id, open=False, ours=False)

    def _give_up(self, id_: bytes) -> None:
        self._awaited.forget(id_)
        if len(self._lost) < _MOST:
            self._lost.add(id_)

    def _is_from_here(self, id_: bytes, asking: OpenJournal) -> bool:
        """Whether the process that opened a run has, or had, a journal in this spool."""
        prefix = prefix_of(id_)
        return prefix in self._streams or prefix in self._finished or prefix.hex() in asking.origin.same_spool

    def _sources(self, id_: bytes) -> Iterator[OpenJournal]:
        """The journals that may know a run; those of old versions have no prefix."""
        yield from self._streams.get(prefix_of(id_), ())
        yield from self._streams.get(b"", ())

    def _unread(self, id_: bytes, asking: OpenJournal) -> list[OpenJournal]:
        store = _without_user(asking.origin.uri)
        return [
            stream
            for stream in self._sources(id_)
            if stream is not asking and stream.behind() and _without_user(stream.origin.uri) == store
        ]

    def _moves(self, stream: OpenJournal, seen: set[Path]) -> bool:
        """Whether a journal, or one that it waits for, will be read further.

        No program can refer to a run that does not exist yet, so journals wait for each other in a circle only if a
        record is damaged. Then the asking journal stops waiting.
        """
        seen.add(stream.directory)
        awaited = self._waits.get(stream.directory)
        if awaited is None or self.known(awaited) is not None:
            return True
        sources = self._unread(awaited, stream)
        return not sources or any(s.directory not in seen and self._moves(s, seen) for s in sources)


def _added_to(asking: OpenJournal, id_: bytes, run: DeliveredRun) -> DeliveredRun:
    """Add a run to the journal that refers to it."""
    if begins_with(id_, asking.prefix):
        # It is the journal's own run, and the note of it was lost: the journal has to end it with its others.
        run = DeliveredRun(run.run_id, run.experiment_id)
        asking.runs.add(id_, run)
    else:
        asking.runs.adopt(id_, run)
    return asking.runs.get(id_) or run


def _without_user(uri: str) -> str:
    """A tracking URI without credentials: two programs may use different ones."""
    return re.sub(r"//[^/@]*@", "//", uri)
