"""The journals that `trackdsl sync` delivers, and whether the delivery makes progress."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trackdsl.journal._lock import is_written
from trackdsl.store_format.backlog import bytes_between, delivery_state
from trackdsl.store_format.heartbeat_monitor import HeartbeatMonitor
from trackdsl.store_format.journals import Journal
from trackdsl.store_format.progress import Progress, read_progress

_TITLE = "delivering to MLflow"
_DRAW_EVERY = 0.2
#: A store may be busy for a moment. After two failures in a row it counts as unreachable.
_ENOUGH_FAILURES = 2


@dataclass
class _DeliveryTarget:
    """A journal, and how far it has to be delivered: to the end that it had, or completely if its program is dead."""

    journal: Journal
    reached: bool = False
    progress: Progress | None = None
    state: object = None
    failures: int = 0

    def update(self) -> bool:
        """Read how far the delivery is; returns whether it has made progress."""
        directory = self.journal.directory
        alive = is_written(directory)
        progress = read_progress(directory)
        if not directory.is_dir():
            self.reached = True
            return True
        if progress is None:
            return False
        self.reached = alive and progress.position >= self.journal.end and not progress.deferred
        state = delivery_state(directory, progress)
        moved = state != self.state
        if moved:
            self.failures = 0
        elif self.progress is not None:
            self.failures += progress.failures - self.progress.failures
        self.state, self.progress = state, progress
        return moved

    def measure(self) -> int:
        """The size of the undelivered events in bytes. Any thread can call this, because it changes nothing."""
        progress = read_progress(self.journal.directory)
        return 0 if progress is None else bytes_between(self.journal.directory, progress.position, self.journal.end)


class DeliveryTargets:
    """The journals that a command delivers.

    Args:
        journals: the journals.
        timeout: after this many seconds without a sign that a process delivers them, the command gives up.
    """

    def __init__(self, journals: list[Journal], timeout: float) -> None:
        self._targets = [_DeliveryTarget(journal) for journal in journals]
        self._timeout = timeout
        self._total = sum(target.measure() for target in self._targets)
        stores = [(each.directory.parent.parent, each.origin.uri) for each in journals if each.origin is not None]
        self._monitor = HeartbeatMonitor(stores)

    def __len__(self) -> int:
        return len(self._targets)

    def moving(self) -> bool:
        """Whether something is left to deliver, and the delivery makes progress."""
        open_ = [target for target in self._targets if not target.reached]
        moved = [target.update() for target in open_]
        self._monitor.update(progressed=any(moved))
        open_ = [target for target in open_ if not target.reached]
        if not open_ or all(target.failures >= _ENOUGH_FAILURES for target in open_):
            return False
        return time.monotonic() - self._monitor.worked < self._timeout

    def forget_failures(self) -> None:
        """Start to count failures again. The cause of the earlier ones may be gone."""
        for target in self._targets:
            target.failures = 0

    def left(self) -> list[Path]:
        """The journals that are not delivered."""
        return [target.journal.directory for target in self._targets if not target.reached]

    def summary(self) -> str:
        """A sentence about what was delivered."""
        targets = sorted({target.journal.target or "" for target in self._targets})
        programs = "1 program" if len(self._targets) == 1 else f"{len(self._targets)} programs"
        return f"the runs of {programs} are at {', '.join(targets)}"

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show a progress bar on the terminal. A thread draws it, because a round of delivery may take long."""
        from tqdm import tqdm

        bar = tqdm(
            total=self._total, desc=_TITLE, unit="B", unit_scale=True, file=sys.stderr, disable=None, leave=False
        )
        done = threading.Event()
        thread = threading.Thread(target=self._draw, args=(bar, done), name="trackdsl-bar", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            bar.close()

    def _draw(self, bar: Any, done: threading.Event) -> None:
        while not bar.disable and not done.wait(_DRAW_EVERY):
            left = sum(target.measure() for target in self._targets)
            bar.set_description(self._monitor.description() or _TITLE, refresh=False)
            bar.update(self._total - left - bar.n)
