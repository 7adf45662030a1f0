"""Notes in the journal how far a `steps` loop is, for programs that show it, such as `trackdsl watch`.

The loop asks only after several iterations if they are quick, and most of the time there is nothing to write.
"""

from __future__ import annotations

import time

from trackdsl._core.events import Loop
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import mask_name
from trackdsl._recording.emit import guarded

#: Between two events about a loop of a run, in seconds.
_PAUSE = 0.5
#: The clock is read at least once in this many iterations: a loop may become slow, with minutes for each iteration.
_MOST_AT_ONCE = 128
#: Iterations that take less, in seconds, are counted several at once.
_QUICK = 0.01

_clock = time.monotonic


class LoopNotes:
    """The notes about one loop.

    The outermost loop of a run is reported at once. A loop inside is reported when none at its depth was for a while:
    many short ones must not fill the journal.

    Args:
        run: the run.
        name: what an iteration is called.
        outer: of the loop around it in the same run.
    """

    __slots__ = ("_asked", "_began", "_depth", "_done", "_due", "_name", "_outermost", "_run", "_step", "_total")

    def __init__(self, run: RunHandle, name: str, outer: LoopNotes | None) -> None:
        self._run = run
        self._name = name
        self._outermost: LoopNotes = self if outer is None else outer._outermost
        self._depth: int = 0 if outer is None else outer._depth + 1
        self._began = time.time_ns()
        #: When the loop last asked, on the monotonic clock.
        self._asked = 0.0
        #: In the outermost loop: when the next event about a loop may be recorded, by the loop's depth.
        self._due: dict[int, float] = {}
        self._done = self._step = 0
        self._total: object = None

    def report(self, total: object) -> int:
        """Report how far the loop is, if it is time; called at the beginning of an iteration.

        Args:
            total: the number of iterations, if it is known.

        Returns:
            after how many further iterations to call it again.
        """
        now = _clock()
        self._done += self._step
        self._total = total
        due = self._outermost._due
        if now >= due.get(self._depth, 0.0):
            self._write(self._done)
            if len(due) > self._depth + 1:  # The loop inside is another one now.
                due.clear()
            due[self._depth] = now + _PAUSE
        self._step = min(2 * self._step or 1, _MOST_AT_ONCE) if now - self._asked < _QUICK else 1
        self._asked = now
        return self._step

    def end(self, done: int) -> None:
        """Record the end of an outermost loop that was recorded.

        Args:
            done: how many iterations are over.
        """
        # A generator may be closed long after its run has ended.
        if self is self._outermost and self._due and self._run.is_open:
            self._write(done)

    def _write(self, done: int) -> None:
        with guarded("steps"):
            name = mask_name(self._name) if isinstance(self._name, str) else "step"  # type: ignore[redundant-expr] # users'
            total = float(self._total) if isinstance(self._total, (int, float)) else None
            self._run.emit(Loop(self._run.key, name, done, total, self._depth, self._began, time.time_ns()))
