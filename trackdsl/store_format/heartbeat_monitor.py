"""Signs of life of the processes that deliver, as a waiting program sees them: locks, heartbeats, CPU time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from trackdsl.journal._lock import is_held
from trackdsl.store_format.heartbeat import EVERY, Heartbeat, is_starting, read_heartbeat, silence
from trackdsl.store_format.servers import LOCAL, lock_of, server_of

#: How often a program that waits looks at the heartbeat, in seconds.
_LOOK_EVERY = 0.1
#: After this time without a beat, the CPU time of the process shows whether it lives, in seconds.
_UNSURE = 2.0
#: A thread that has not moved for this time hangs, in seconds.
_HANGS = 300.0
#: A process that has gone through all journals so often has nothing to do for those that made no progress.
_MOST_ROUNDS = 50
#: The number of processes that may end one after the other without progress.
_MOST_PROCESSES = 3


class LastHeartbeat(NamedTuple):
    """The latest heartbeats of a delivery process.

    Attributes:
        runs: whether there is one that holds its lock.
        at: when it last showed that it lives, on the monotonic clock.
        beat: its last beat; None if there is none.
        steady: whether it was in the same round of its journals at the last two beats, and does not hang.
    """

    runs: bool
    at: float
    beat: Heartbeat | None
    steady: bool


class _HeartbeatReader:
    """Listens to the process that delivers from a spool to the store of a tracking URI."""

    def __init__(self, spool: Path, uri: str) -> None:
        self._spool = spool
        self._server = server_of(uri)
        self._next = self._cpu = self._cpu_next = 0.0
        self._heard = LastHeartbeat(False, time.monotonic(), None, False)

    def listen(self, hangs: float) -> LastHeartbeat:
        """Read the lock and the heartbeat of the process, unless that was done a moment ago.

        Args:
            hangs: after this time without a movement, in seconds, the process hangs.
        """
        now, last = time.monotonic(), self._heard
        if now < self._next:
            return last
        self._next = now + _LOOK_EVERY
        beat, runs = self._read()
        if beat is None:
            self._heard = last._replace(runs=runs, beat=None, steady=False)
            return self._heard
        at, steady, known = last.at, last.steady, last.beat
        if known is None or (beat.pid, beat.count) != (known.pid, known.count):
            at, self._cpu = now, 0.0
            steady = known is None or beat.pid != known.pid or beat.rounds == known.rounds
        elif now - at > _UNSURE and self._computes(beat.pid, now):
            at = now
        self._heard = LastHeartbeat(runs, at, beat, steady and beat.still < hangs)
        return self._heard

    def silence(self) -> float:
        """For how many seconds the process has written no heartbeat; 0 if there is none."""
        for server in dict.fromkeys((self._server, LOCAL)):
            with contextlib.suppress(OSError):
                if is_held(lock_of(self._spool, server)):
                    return silence(self._spool, server)
        return 0.0

    def _read(self) -> tuple[Heartbeat | None, bool]:
        """The last beat of the child for the server, else of the spool's own process; and whether that runs."""
        for server in dict.fromkeys((self._server, LOCAL)):
            with contextlib.suppress(OSError):
                if is_held(lock_of(self._spool, server)):
                    return read_heartbeat(self._spool, server), True
            if is_starting(self._spool, server):
                return read_heartbeat(self._spool, server), False
        return None, False

    def _computes(self, pid: int, now: float) -> bool:
        """Whether a process without a beat gets CPU time: a call of C code may keep all its other threads."""
        if now < self._cpu_next:
            return False
        self._cpu_next = now + EVERY
        import psutil

        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            return False
        before, self._cpu = self._cpu, times.user + times.system
        return 0.0 < before < self._cpu


class HeartbeatMonitor:
    """Watches the heartbeats of the processes that deliver some journals.

    Args:
        stores: the spools, and the tracking URIs of the journals in them.

    Attributes:
        lived: when one of the processes last showed that it lives, on the monotonic clock.
        worked: when something was last delivered, or a process was at work on what may be one of the journals.
    """

    def __init__(self, stores: Iterable[tuple[Path, str]]) -> None:
        self._readers = [_HeartbeatReader(*store) for store in dict.fromkeys(stores)]
        self._rounds: dict[int, int] = {}
        self._heard: list[LastHeartbeat] = []
        self.lived = self.worked = time.monotonic()

    @property
    def runs(self) -> bool:
        """Whether there is a process at all."""
        return any(heard.runs for heard in self._heard)

    @property
    def prepares(self) -> bool:
        """Whether a process that lives makes something ready that it needs before it delivers."""
        fresh = time.monotonic() - _UNSURE
        return any(heard.at >= fresh and heard.beat is not None and heard.beat.prepares for heard in self._heard)

    def silence(self) -> float:
        """For how many seconds one of the processes that hold their locks has written no heartbeat."""
        return max((each.silence() for each in self._readers), default=0.0)

    def description(self) -> str:
        """The activity of the processes in a few words; empty if nothing is known."""
        descriptions = [heard.beat.description() for heard in self._heard if heard.beat is not None]
        return next(filter(None, descriptions), "")

    def update(self, *, progressed: bool, hangs: float = _HANGS) -> None:
        """Read the heartbeats again.

        Args:
            progressed: whether one of the journals has made progress since the last time.
            hangs: after this time without a movement, in seconds, a process hangs.
        """
        if progressed:
            self._rounds.clear()
            self.worked = time.monotonic()
        self._heard = [listener.listen(hangs) for listener in self._readers]
        for heard in self._heard:
            if heard.beat is None:
                if heard.runs:  # It cannot write the file. Its lock shows that it lives.
                    self.lived = time.monotonic()
                continue
            begun = self._rounds.setdefault(heard.beat.pid, heard.beat.rounds)
            if len(self._rounds) > _MOST_PROCESSES + len(self._readers):
                continue  # One after the other is killed, perhaps because of the memory that it takes.
            self.lived = max(self.lived, heard.at)
            if heard.steady and heard.beat.rounds - begun <= _MOST_ROUNDS:
                self.worked = max(self.worked, heard.at)
