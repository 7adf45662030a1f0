"""What `trackdsl sync` has to reach, and whether it still comes nearer."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trackdsl.journal._lock import is_held, is_written
from trackdsl.journal._spool import LOCK
from trackdsl.store_format.backlog import bytes_between
from trackdsl.store_format.journals import Journal
from trackdsl.store_format.progress import Progress, read_progress
from trackdsl.store_format.servers import is_starting, last_answer

_TITLE = "delivering to MLflow"
_DRAW_EVERY = 0.2
#: A store may be busy for a moment; twice in a row means that it is away.
_ENOUGH_FAILURES = 2


@dataclass
class _Goal:
    """One journal, to be delivered up to where it was found; to its very end where its program is dead."""

    journal: Journal
    reached: bool = False
    progress: Progress | None = None
    state: object = None
    failures: int = 0
    answer: int = 0

    def look(self) -> bool:
        """Look how far it is; returns whether it has come nearer."""
        directory = self.journal.directory
        alive = is_written(directory)
        progress = read_progress(directory)
        if not directory.is_dir():
            self.reached = True
            return True
        if progress is None:
            return False
        self.reached = alive and progress.position >= self.journal.end and not progress.deferred
        # Runs are made one by one before a stretch of events counts as delivered; a slow server answers in between.
        origin = self.journal.origin
        answer = last_answer(directory.parent.parent, origin.uri) if origin is not None else 0
        state = (progress.position, progress.intent, progress.deferred, _size(directory / "runs"))
        moved, answered = state != self.state, answer != self.answer
        if moved:
            self.failures = 0
        elif self.progress is not None:
            self.failures += progress.failures - self.progress.failures
        self.state, self.progress, self.answer = state, progress, answer
        return moved or answered

    def starts(self) -> bool:
        """Whether delivery has begun and is not ready yet."""
        spool, origin = self.journal.directory.parent.parent, self.journal.origin
        return origin is not None and is_held(spool / LOCK) and is_starting(spool, origin.uri)

    def measure(self) -> int:
        """Bytes of events that are not delivered right now; changes nothing, so that any thread may ask."""
        progress = read_progress(self.journal.directory)
        return 0 if progress is None else bytes_between(self.journal.directory, progress.position, self.journal.end)


class Goals:
    """All that is to be delivered.

    Args:
        journals: the journals, as they were found.
        timeout: seconds without any progress that mean failure.
    """

    def __init__(self, journals: list[Journal], timeout: float) -> None:
        self._goals = [_Goal(journal) for journal in journals]
        self._timeout = timeout
        self._total = sum(goal.measure() for goal in self._goals)
        self._moved = time.monotonic()

    def __len__(self) -> int:
        return len(self._goals)

    def moving(self) -> bool:
        """Whether something is left to deliver, and worth waiting for."""
        open_ = [goal for goal in self._goals if not goal.reached]
        moved = [goal.look() for goal in open_]
        if any(moved) or any(goal.starts() for goal in open_):
            self._moved = time.monotonic()
        open_ = [goal for goal in open_ if not goal.reached]
        if not open_ or all(goal.failures >= _ENOUGH_FAILURES for goal in open_):
            return False
        return time.monotonic() - self._moved < self._timeout

    def forget_failures(self) -> None:
        """Count the failures anew: those so far may have had a cause that is mended."""
        for goal in self._goals:
            goal.failures = 0

    def left(self) -> list[Path]:
        """The journals that are not delivered."""
        return [goal.journal.directory for goal in self._goals if not goal.reached]

    def summary(self) -> str:
        """What was delivered, for people."""
        targets = sorted({goal.journal.target or "" for goal in self._goals})
        programs = "1 program" if len(self._goals) == 1 else f"{len(self._goals)} programs"
        return f"the runs of {programs} are at {', '.join(targets)}"

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show a progress bar on the terminal, drawn by a thread: a round of delivery may take a while."""
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
            left = sum(goal.measure() for goal in self._goals)
            bar.update(self._total - left - bar.n)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
