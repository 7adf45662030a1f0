"""Waiting for the delivery of what was recorded up to now, by this process and by those that it started."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trackdsl._core.ids import prefix
from trackdsl.errors import report
from trackdsl.journal._lock import is_held
from trackdsl.journal._origin import Origin, read_origin
from trackdsl.journal._reader import Position
from trackdsl.journal._spool import LOCK, LOG, journals
from trackdsl.journal._writer import Writer
from trackdsl.store_format.backlog import bytes_between, end_of
from trackdsl.store_format.blocked_runs import read_blocked
from trackdsl.store_format.progress import Progress, read_progress
from trackdsl.store_format.servers import LOCAL, is_starting, last_answer, server_of

_POLL = 0.02
_GLANCE = 0.1
#: How long to wait for a delivery that shows no progress, in seconds: a server answers within milliseconds, but
#: MLflow takes seconds to import and to set up a new database.
_PATIENCE = 20.0
_PATIENCE_SERVER = 4.0
#: The same for stores on this machine while their delivery is alive: a busy machine may take that long for a model.
_PATIENCE_LOCAL = 60.0
#: The same where a single run is waited for, and a process that delivers is alive: so long it would have to hang.
_PATIENCE_ALIVE = 300.0
#: For so long a single run is waited for although delivery fails: a server may be about to start.
_PATIENCE_FAILING = 3.0
_SHOW_AFTER = 1.0
#: Where only the time without progress is counted: how long to wait in all, in seconds.
_LONGEST = 30.0


@dataclass
class _AwaitedJournal:
    """A journal, and the position up to which it is to be delivered.

    Attributes:
        own: this process writes it.
        origin: who writes it, and where it goes.
        failures: how often its delivery had failed before: that may be over.
        alive: its program lived, and may go on.
    """

    directory: Path
    end: Position
    own: bool
    origin: Origin | None
    failures: int = 0
    alive: bool = True

    def is_reached(self, progress: Progress | None) -> bool:
        """Whether everything has arrived.

        Args:
            progress: what `read_progress` says of the journal.
        """
        # Delivery removes no journal whose program lives, so one that cannot be read is not known to be delivered. That
        # of a dead one is there until its last run has been ended.
        if not self.own and not self.directory.is_dir():
            return True
        delivered = progress is not None and progress.position >= self.end and not progress.deferred
        return delivered and self.alive

    def starts(self) -> bool:
        """Whether delivery has begun and is not ready yet."""
        spool = self.directory.parent.parent
        return self.origin is not None and is_held(spool / LOCK) and is_starting(spool, self.origin.uri)

    def is_local_and_alive(self) -> bool:
        """Whether it is for a store on this machine, and a process is alive that delivers it."""
        local = self.origin is not None and server_of(self.origin.uri) == LOCAL
        return local and _is_delivered_from(self.directory.parent.parent)

    def is_hopeless(self, progress: Progress | None) -> bool:
        """Whether it is known that nothing will come soon."""
        if progress is None:
            return not self.directory.is_dir()
        # What is kept for later says nothing of the events behind it.
        return self.is_kept(progress) or bool(progress.blocked_since and progress.failures > self.failures)

    def is_kept(self, progress: Progress | None) -> bool:
        """Whether all has arrived that can, and the rest is kept for later: runs that are set aside, for example."""
        return progress is not None and bool(progress.deferred) and progress.position >= self.end


class Wait:
    """Waiting for the delivery of some journals up to where they are now.

    Args:
        writers: of this process's own journals. Those of the processes that it started count too.
        start: starts the delivery of a spool, where nobody is at it.
        wake: asks the delivery of a spool to go on at once.
        show: whether to show a progress bar.
        counts: whether a process that this one started counts, by who it is; all of them do by default.
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
        self._goals = [
            _AwaitedJournal(writer.directory, Position(*writer.position()), True, read_origin(writer.directory))
            for writer in writers
        ]
        own = {goal.directory for goal in self._goals}
        self._goals += [goal for goal in _descendants(self._spools, counts) if goal.directory not in own]
        for goal in self._goals:
            progress = read_progress(goal.directory)
            goal.failures = 0 if progress is None else progress.failures

    def is_over(self) -> bool:
        """Whether everything has arrived."""
        return not self._left()

    def until_done(self, timeout: float | None, restart_after: float, *, hopeful: bool = False) -> bool:
        """Wait; returns whether everything has arrived.

        Args:
            timeout: seconds to wait at most; None to wait as long as delivery comes forward.
            restart_after: how often to see to it that somebody delivers, in seconds.
            hopeful: wait no longer than there is hope, as without a timeout; and count the time without progress alone,
                as starting delivery takes seconds, but wait half a minute at most.
        """
        clock = _Clock(timeout, hopeful=hopeful)
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
                if self._show and now - clock.begun > _SHOW_AFTER:
                    self._draw(left)
                time.sleep(_POLL)
            return True
        finally:
            if self._bar is not None:
                self._bar.close()

    def is_blocked(self) -> bool:
        """Whether a store has not answered delivery the last time."""
        return any(progress is not None and progress.blocked_since for _, progress in self._left())

    def has_come_to_rest(self) -> bool:
        """Whether all has arrived but what is kept for later, so that another wait for more is worth while."""
        return all(goal.is_kept(progress) for goal, progress in self._left())

    def state(self) -> object:
        """What changes when delivery makes progress, or has begun."""
        return [(goal.directory, goal.starts(), _state(goal, progress)) for goal, progress in self._left()]

    def tell(self) -> None:
        """One line on what is left behind, and why."""
        # A journal that was deleted in the meantime is not kept.
        left = [(goal, progress) for goal, progress in self._left() if goal.directory.is_dir()]
        if not left:
            return
        known = [progress for _, progress in left if progress is not None]
        blocked = [progress.error for progress in known if progress.blocked_since or progress.set_aside]
        why = next(iter(blocked), "").partition("\n")[0] or "delivery goes on in the background"
        report("left", f"trackdsl: not everything is at MLflow yet ({why}). It is kept; `trackdsl sync` delivers it.")

    def _left(self) -> list[tuple[_AwaitedJournal, Progress | None]]:
        looked = [(goal, read_progress(goal.directory)) for goal in self._goals]
        return [(goal, progress) for goal, progress in looked if not goal.is_reached(progress)]

    def _draw(self, left: list[tuple[_AwaitedJournal, Progress | None]]) -> None:
        known = ((goal, progress) for goal, progress in left if progress is not None)
        open_ = sum(bytes_between(goal.directory, progress.position, goal.end) for goal, progress in known)
        if self._bar is None:
            from tqdm import tqdm

            if not sys.stderr.isatty():
                sys.stderr.write("trackdsl: waiting for the delivery to MLflow (Ctrl-C leaves it to the background)\n")
            self._bar = tqdm(
                total=open_, desc="trackdsl: delivering to MLflow", unit="B", unit_scale=True, leave=False, disable=None
            )
        self._bar.update(self._bar.total - open_ - self._bar.n)


class Hope:
    """Whether a run may still come to MLflow soon: as long as its delivery is alive, and does not fail.

    Args:
        writer: of the journal that the run is in.
        id_: our id of the run.
    """

    def __init__(self, writer: Writer, id_: bytes) -> None:
        directory = writer.directory
        self._goal = _AwaitedJournal(directory, Position(*writer.position()), True, read_origin(directory))
        progress = read_progress(directory)
        self._goal.failures = 0 if progress is None else progress.failures
        self._id = id_.hex()
        self._seen: object = None
        self._looked = self._changed = self._alive = self._well = time.monotonic()

    def why_lost(self) -> str | None:
        """Why the run will not come soon; None while it may, and where this was asked a moment ago."""
        now, goal = time.monotonic(), self._goal
        if now - self._looked < _GLANCE:
            return None
        self._looked = now
        progress = read_progress(goal.directory)
        state = _state(goal, progress)
        if state != self._seen:
            self._seen, self._changed = state, now
        spool = goal.directory.parent.parent
        if _is_delivered_from(spool):
            self._alive = now
        failure = self._failure(progress)
        if failure is None:
            self._well = now
        if now - self._well > _PATIENCE_FAILING:
            return failure
        if now - self._alive > _PATIENCE:
            return f"no process delivers it; {spool / LOG} may say why"
        if now - self._changed > _PATIENCE_ALIVE:
            return "delivery hangs"
        return None

    def _failure(self, progress: Progress | None) -> str | None:
        """What stands in the way now."""
        blocked = [run.reason for run in read_blocked(self._goal.directory) if run.run == self._id]
        if blocked:
            return blocked[0]
        if progress is None:
            return None if self._goal.directory.is_dir() else "its journal was deleted"
        if progress.blocked_since and progress.failures > self._goal.failures:
            return progress.error
        # What is kept for later may be waiting for another machine.
        return "" if progress.position >= self._goal.end and not progress.deferred else None


class _Clock:
    """How long to wait; see `Wait.until_done`.

    Attributes:
        begun: when the waiting began, on the monotonic clock.
    """

    def __init__(self, timeout: float | None, *, hopeful: bool) -> None:
        self._timeout = timeout
        self._hopeful = hopeful
        self.begun = self._started = self._changed = time.monotonic()
        self._seen: object = None

    def is_over(self, left: list[tuple[_AwaitedJournal, Progress | None]]) -> bool:
        """Whether to wait no longer for what is left."""
        now = time.monotonic()
        state = [_state(goal, progress) for goal, progress in left]
        progress = state != self._seen
        if progress:
            self._seen, self._changed = state, now
        if self._hopeful and now - self.begun < _LONGEST and (progress or any(goal.starts() for goal, _ in left)):
            self._started = now
        if self._timeout is not None and now - self._started >= self._timeout:
            return True
        return (self._timeout is None or self._hopeful) and _hopeless(left, now - self._changed)


def _descendants(spools: Iterable[Path], counts: Callable[[Origin], bool] | None) -> Iterator[_AwaitedJournal]:
    for spool in spools:
        for directory in journals(spool):
            origin = read_origin(directory)
            if origin is not None and is_descendant(origin) and (counts is None or counts(origin)):
                with contextlib.suppress(OSError):  # It is finished by now.
                    alive = is_held(directory / "lock")
                    yield _AwaitedJournal(directory, end_of(directory), False, origin, alive=alive)


def is_descendant(origin: Origin) -> bool:
    """Whether a journal is of a process that was started inside a run of this one, at any remove."""
    return prefix().hex() in origin.within


def _is_delivered_from(spool: Path) -> bool:
    """Whether a process is alive that delivers from a spool."""
    try:
        return is_held(spool / LOCK)
    except OSError:  # It can never be held.
        return False


def _hopeless(left: list[tuple[_AwaitedJournal, Progress | None]], quiet: float) -> bool:
    if all(goal.is_hopeless(progress) for goal, progress in left):
        return True
    if any(goal.starts() for goal, _ in left):
        return False
    if _PATIENCE < quiet <= _PATIENCE_LOCAL and all(goal.is_local_and_alive() for goal, _ in left):
        return False
    server = all(goal.origin is not None and goal.origin.uri.startswith("http") for goal, _ in left)
    started = any(progress is not None and (progress.events or progress.intent_offset) for _, progress in left)
    return quiet > (_PATIENCE_SERVER if server and started else _PATIENCE)


def _state(goal: _AwaitedJournal, progress: Progress | None) -> object:
    # Runs are made one by one before a stretch of events counts as delivered; a slow server answers in between.
    try:
        runs = (goal.directory / "runs").stat().st_size
    except OSError:
        runs = 0
    answer = last_answer(goal.directory.parent.parent, goal.origin.uri) if goal.origin is not None else 0
    return progress and (progress.position, progress.intent, progress.deferred, runs, answer)
