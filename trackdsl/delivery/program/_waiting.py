"""Waiting until what this process, and those that it started, have recorded so far is delivered."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trackdsl._core.ids import prefix
from trackdsl._core.terminal import at_terminal
from trackdsl.delivery._timing import timing
from trackdsl.errors import logger, report
from trackdsl.journal._lock import is_held
from trackdsl.journal._origin import Origin, read_origin
from trackdsl.journal._segments import Position
from trackdsl.journal._spool import LOG, journals
from trackdsl.journal._waiters import Waiter
from trackdsl.journal._writer import Writer
from trackdsl.store_format.backlog import bytes_between, delivery_state, end_of
from trackdsl.store_format.blocked_runs import read_blocked
from trackdsl.store_format.heartbeat_monitor import HeartbeatMonitor
from trackdsl.store_format.progress import Progress, read_progress

_POLL = 0.02
_SHOW_AFTER = 1.0
_TITLE = "delivering to MLflow"


@dataclass
class _AwaitedJournal:
    """A journal, and the position up to which it must be delivered.

    Attributes:
        own: whether this process writes it.
        origin: the program that writes it, and its store.
        failures: how often its delivery had failed before the wait: that problem may be solved.
        alive: whether its program was running at the beginning.
    """

    directory: Path
    end: Position
    own: bool
    origin: Origin | None
    failures: int = 0
    alive: bool = True

    def is_reached(self, progress: Progress | None) -> bool:
        """Whether everything up to the position is delivered.

        Args:
            progress: the journal's progress file.
        """
        # Delivery removes no journal of a running program, so an unreadable one is not delivered. It removes the
        # journal of a dead program once the last run has been ended.
        if not self.own and not self.directory.is_dir():
            return True
        delivered = progress is not None and progress.position >= self.end and not progress.deferred
        return delivered and self.alive

    @property
    def spool(self) -> Path:
        """The spool that it is in."""
        return self.directory.parent.parent

    def state(self, progress: Progress | None) -> object:
        """A value that changes when its delivery makes progress."""
        return progress and delivery_state(self.directory, progress)

    def is_stalled(self, progress: Progress | None, *, again: bool) -> bool:
        """Whether nothing more can be expected soon.

        Args:
            progress: the journal's progress file.
            again: whether to wait until what is deferred was tried again since the wait began.
        """
        if progress is None:
            return not self.directory.is_dir()
        # Deferred items say nothing about later events.
        failed = progress.failures > self.failures
        return (failed or not again) if self.is_deferred(progress) else bool(progress.blocked_since and failed)

    def is_deferred(self, progress: Progress | None) -> bool:
        """Whether everything is delivered except what is deferred, such as blocked runs."""
        return progress is not None and bool(progress.deferred) and progress.position >= self.end


class Wait:
    """A wait until some journals are delivered up to their present ends.

    Args:
        writers: of this process's journals. The journals of processes that it started are added.
        start: starts the delivery of a spool, if it is not running.
        wake: makes the delivery of a spool try again at once.
        show: whether to show a progress bar, if there is a terminal.
        counts: selects processes that this one started by their origin; all by default.
    """

    def __init__(
        self,
        writers: list[Writer],
        start: Callable[[Path], None],
        wake: Callable[[Path], None],
        *,
        show: bool = False,
        counts: Callable[[Origin], bool] | None = None,
    ) -> None:
        self._spools = list(dict.fromkeys(writer.directory.parent.parent for writer in writers))
        self._start = start
        self._wake = wake
        self._show = show
        self._bar: Any = None
        self._journals = [
            _AwaitedJournal(writer.directory, Position(*writer.position()), True, read_origin(writer.directory))
            for writer in writers
        ]
        own = {journal.directory for journal in self._journals}
        self._journals += [journal for journal in _descendants(self._spools, counts) if journal.directory not in own]
        for journal in self._journals:
            progress = read_progress(journal.directory)
            journal.failures = 0 if progress is None else progress.failures
        self._monitor = _monitor_of(self._journals)

    def is_over(self) -> bool:
        """Whether everything is delivered."""
        return not self._left()

    def until_done(self, timeout: float | None, restart_after: float, *, while_progressing: bool = False) -> bool:
        """Wait; returns whether everything is delivered.

        Args:
            timeout: seconds to wait at most; None to wait as long as delivery is at work.
            restart_after: how often to check that a delivery process runs, in seconds.
            while_progressing: end the wait early too if no progress can be expected, as without a timeout. The timeout
                then counts only the time without progress, since starting delivery takes seconds; the wait ends after
                half a minute in any case.
        """
        clock = _Clock(timeout, self._monitor, while_progressing=while_progressing)
        waiter = Waiter(self._spools)
        next_start = 0.0
        for spool in self._spools:
            self._wake(spool)
        try:
            while left := self._left():
                if clock.is_over(left):
                    return False
                now = time.monotonic()
                if now >= next_start:
                    next_start = now + restart_after
                    for spool in self._spools:
                        self._start(spool)
                waiter.show()
                if self._show and now - clock.begun > _SHOW_AFTER:
                    self._show_progress(left)
                time.sleep(_POLL)
            return True
        finally:
            waiter.close()
            if self._bar is not None:
                self._bar.close()

    def is_blocked(self) -> bool:
        """Whether a store did not answer delivery at its last attempt."""
        return any(progress is not None and progress.blocked_since for _, progress in self._left())

    def has_only_deferred(self) -> bool:
        """Whether only deferred items are left, so that a later wait for new events can succeed."""
        return all(journal.is_deferred(progress) for journal, progress in self._left())

    def state(self) -> object:
        """A value that changes when delivery starts or makes progress."""
        self._monitor.update(progressed=False)
        return self._monitor.prepares, [
            (journal.directory, journal.state(progress)) for journal, progress in self._left()
        ]

    def report(self) -> None:
        """Report in one line what is not delivered, and why."""
        # A journal that was deleted in the meantime is not kept.
        left = [(journal, progress) for journal, progress in self._left() if journal.directory.is_dir()]
        if not left:
            return
        known = [progress for _, progress in left if progress is not None]
        blocked = [progress.error for progress in known if progress.blocked_since or progress.blocked]
        why = next(iter(blocked), "").partition("\n")[0] or "delivery continues in the background"
        report("left", f"trackdsl: not everything is at MLflow yet ({why}). It is kept; `trackdsl sync` delivers it.")

    def _left(self) -> list[tuple[_AwaitedJournal, Progress | None]]:
        found = [(journal, read_progress(journal.directory)) for journal in self._journals]
        return [(journal, progress) for journal, progress in found if not journal.is_reached(progress)]

    def _show_progress(self, left: list[tuple[_AwaitedJournal, Progress | None]]) -> None:
        known = ((journal, progress) for journal, progress in left if progress is not None)
        open_ = sum(bytes_between(journal.directory, progress.position, journal.end) for journal, progress in known)
        if self._bar is None:
            from tqdm import tqdm

            shown = at_terminal()  # Without one, the standard error is the program's: a file of its own, for example.
            if not shown:
                logger.info("trackdsl: waiting for the delivery to MLflow (Ctrl-C leaves it to the background)")
            self._bar = tqdm(
                total=open_, desc=f"trackdsl: {_TITLE}", unit="B", unit_scale=True, leave=False, disable=not shown
            )
        self._bar.set_description(f"trackdsl: {self._monitor.description() or _TITLE}", refresh=False)
        self._bar.update(self._bar.total - open_ - self._bar.n)


class RunWatch:
    """Whether a run can still be expected soon: as long as its delivery is at work and does not fail.

    Args:
        writer: of the journal that the run is in.
        id_: our id of the run.
    """

    def __init__(self, writer: Writer, id_: bytes) -> None:
        directory = writer.directory
        self._journal = _AwaitedJournal(directory, Position(*writer.position()), True, read_origin(directory))
        progress = read_progress(directory)
        self._journal.failures = 0 if progress is None else progress.failures
        self._id = id_.hex()
        self._monitor = _monitor_of([self._journal])
        self._seen: object = None
        self._looked = self._well = time.monotonic()

    def why_lost(self) -> str | None:
        """Why the run cannot be expected soon; None while it can, or if this was asked a moment ago."""
        if time.monotonic() - self._looked < timing().check:
            return None
        progress, journal, monitor = read_progress(self._journal.directory), self._journal, self._monitor
        seen, self._seen = self._seen, journal.state(progress)
        monitor.update(progressed=self._seen != seen, hangs=timing().no_progress)
        failure = self._failure(progress)
        now = self._looked = time.monotonic()
        if failure is None:
            self._well = now
        if now - self._well > timing().failing:
            return failure
        if now - monitor.lived > timing().no_sign:
            what = "the delivery process writes no heartbeat" if monitor.runs else "no process delivers it"
            return f"{what}; see {journal.spool / LOG}"
        if now - monitor.worked > timing().no_progress:
            return "delivery hangs"
        return None

    def _failure(self, progress: Progress | None) -> str | None:
        """Why delivery fails now."""
        blocked = [run.reason for run in read_blocked(self._journal.directory) if run.run == self._id]
        if blocked:
            return blocked[0]
        if progress is None:
            return None if self._journal.directory.is_dir() else "its journal was deleted"
        if progress.blocked_since and progress.failures > self._journal.failures:
            return progress.error
        # Deferred items may wait for another machine.
        return "" if progress.position >= self._journal.end and not progress.deferred else None


class _Clock:
    """Decides how long to wait; see `Wait.until_done`.

    Attributes:
        begun: when the wait began, on the monotonic clock.
    """

    def __init__(self, timeout: float | None, monitor: HeartbeatMonitor, *, while_progressing: bool) -> None:
        self._timeout = timeout
        self._monitor = monitor
        self._while_progressing = while_progressing
        self.begun = self._started = time.monotonic()
        self._seen: object = None

    def is_over(self, left: list[tuple[_AwaitedJournal, Progress | None]]) -> bool:
        """Whether to stop waiting for what is left."""
        state = [journal.state(progress) for journal, progress in left]
        progressed, self._seen = state != self._seen, state
        self._monitor.update(progressed=progressed, hangs=timing().no_progress)
        now = time.monotonic()
        if (
            self._while_progressing
            and now - self.begun < timing().longest_wait
            and (progressed or self._monitor.prepares)
        ):
            self._started = now
        if self._timeout is not None and now - self._started >= self._timeout:
            return True
        if self._timeout is not None and not self._while_progressing:
            return False
        if now - self._monitor.worked > timing().no_sign:
            return True
        # One of many reads of plain MLflow does not wait for what is deferred.
        return all(journal.is_stalled(seen, again=not self._while_progressing) for journal, seen in left)


def _monitor_of(awaited: list[_AwaitedJournal]) -> HeartbeatMonitor:
    return HeartbeatMonitor((journal.spool, journal.origin.uri) for journal in awaited if journal.origin is not None)


def _descendants(spools: Iterable[Path], counts: Callable[[Origin], bool] | None) -> Iterator[_AwaitedJournal]:
    for spool in spools:
        for directory in journals(spool):
            origin = read_origin(directory)
            if origin is not None and is_descendant(origin) and (counts is None or counts(origin)):
                with contextlib.suppress(OSError):  # It was finished in the meantime.
                    alive = is_held(directory / "lock")
                    yield _AwaitedJournal(directory, end_of(directory), False, origin, alive=alive)


def is_descendant(origin: Origin) -> bool:
    """Whether a journal's process was started inside a run of this one, directly or through other processes."""
    return prefix().hex() in origin.ancestors
