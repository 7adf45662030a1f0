"""The heart of a delivery process: a thread that writes down twice a second what the process does, see `heartbeat`.

The thread that delivers may be inside of a call that takes long: an import, a wait for SQLite's lock or for a server.
So the beat says too for how long that thread has not moved, by its own CPU time.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from trackdsl.errors import logger
from trackdsl.store_format.heartbeat import EVERY, IDLE, STARTING, Heartbeat, HeartbeatFile, shortened
from trackdsl.store_format.servers import LOCAL

#: A thread with less CPU time between two beats only waits, and wakes up now and then to look.
_MOVES = 0.001


class HeartbeatWriter:
    """Keeps the current activity of this process, and a thread that writes it to the heartbeat.

    Args:
        spool: the spool's folder; None to write nothing.
        server: what the process delivers to, see `server_of`.
    """

    def __init__(self, spool: Path | None, server: str = LOCAL) -> None:
        self._activity, self._store = STARTING, ""
        self._rounds = self._count = 0
        self._steps = self._steps_seen = 0
        self._clocks: dict[int, float] = {}
        self._moved = time.monotonic()
        self._done = threading.Event()
        self._file: HeartbeatFile | None = None
        self._thread = threading.Thread(target=self._run, name="trackdsl-heartbeat", daemon=True)
        if spool is None:
            return
        self.watch()
        try:
            self._file = HeartbeatFile(spool, server)
            self.beat()
        except OSError as error:  # Programs then wait by what they see of the progress.
            logger.warning("trackdsl: cannot write the heartbeat of delivery: %s", error)
        else:
            self._thread.start()

    def watch(self) -> None:
        """Count the calling thread, which must not end before this process, as one that delivers."""
        clock = getattr(time, "pthread_getcpuclockid", None)
        if clock is not None:  # Not on macOS.
            self._clocks[clock(threading.get_ident())] = 0.0

    def doing(self, activity: str, store: str = "") -> None:
        """Say what the process does from now on."""
        self._activity, self._store = activity, store
        self._steps += 1

    @contextlib.contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """Say that the process does something else as long as the block lasts."""
        before, store = self._activity, self._store
        self.doing(activity, store)
        try:
            yield
        finally:
            # Another thread may have begun something else: files are sent by threads of their own.
            if self._activity == activity:
                self.doing(before, store)

    def begin_round(self) -> None:
        """Say that the process looks at all journals again."""
        self._rounds += 1

    def end_round(self) -> None:
        """Say that the process has gone through all journals."""
        self.doing(IDLE)

    def step(self) -> None:
        """Record progress in what the process does, such as an answer of a server."""
        self._steps += 1

    def beat(self) -> None:
        """Write a record to the heartbeat.

        Raises:
            OSError: it cannot be written.
        """
        now = time.monotonic()
        if self._has_moved():
            self._moved = now
        self._count += 1
        still = round(now - self._moved, 1)
        store = shortened(self._store)
        if self._file is not None:
            self._file.write(Heartbeat(os.getpid(), self._count, self._rounds, self._activity, store, still))

    def close(self) -> None:
        """End the thread."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _has_moved(self) -> bool:
        moved, self._steps_seen = self._steps != self._steps_seen, self._steps
        for clock, before in list(self._clocks.items()):
            now = time.clock_gettime(clock)
            moved |= now - before >= _MOVES
            self._clocks[clock] = now
        return moved

    def _run(self) -> None:
        warned = False
        while not self._done.wait(EVERY):
            try:
                self.beat()
            except OSError as error:
                if not warned:
                    logger.warning("trackdsl: cannot write the heartbeat of delivery: %s", error)
                warned = True
