"""The iterations of a loop: their steps, the scope that gives them to metrics, and what displays show of them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from trackdsl._api.loop_notes import LoopNotes
from trackdsl._config.state import state
from trackdsl._core import context as _context
from trackdsl._core import runtime
from trackdsl._core.context import Scope
from trackdsl._core.runtime import Phase
from trackdsl._decorate.parentage import run_around
from trackdsl._recording.emit import guarded
from trackdsl._runs.run import Run
from trackdsl.errors import reraise_from_signal

#: Ids of runs with a display that shows progress → the loop that began last inside the run, or None.
_shown: dict[bytes, LoopScope | None] = {}
runtime.register("shown loops", Phase.RUNS, after_fork=_shown.clear, reset=_shown.clear)
_RANGE_ITERATOR = type(iter(range(0)))


class LoopScope(Scope):
    """The scope of a loop.

    Attributes:
        highest: the highest step of each loop that has run inside it, by its line of code.
        loop: the name of an iteration, the first step, the distance between steps, and the number of iterations or
            None.
        notes: reports in the journal how far it is.
    """

    __slots__ = ("highest", "loop", "notes")

    def __init__(
        self, run: Run, outer: Scope | None, step: int, loop: tuple[str, int, int, float | None], notes: LoopNotes
    ) -> None:
        super().__init__(run, outer, None, step)
        self.highest: dict[Hashable, int] = {}
        self.loop = loop
        self.notes = notes


class _OwnSteps(NamedTuple):
    """The steps that an iterable defines: the first, the distance between two steps, and the lowest."""

    first: int
    stride: int
    lowest: int


class Iterations:
    """The steps of the iterations of one loop.

    Args:
        iterable: what the loop iterates over.
        start: the first step, if the user has chosen it.
        site: the line of code, which identifies the loop in the next iteration of the loop around it.

    Attributes:
        first: the step of the first iteration.
        stride: the distance from one step to the next.
        shown: whether a display of its run shows the loop's progress.
    """

    __slots__ = ("_around", "_lowest", "_scope", "_shifts", "_site", "_size", "first", "shown", "stride")

    def __init__(self, iterable: Any, start: int | None, site: Hashable) -> None:
        self.first, self.stride, self._lowest = _natural(iterable)
        self._shifts = start is None
        if start is not None:
            self.first = start
        self._site = site
        self._size = _size(iterable) if _shown else None
        self.shown = False
        self._scope: LoopScope | None = None
        self._around: LoopScope | None = None

    def begin(self, name: str, total: float | None) -> LoopScope | None:
        """Enter the scope of the loop; None outside of any run.

        Args:
            name: the name of an iteration.
            total: the number of iterations, if the user has given it.
        """
        outer = _context.current()
        run = None if outer is None else outer.run
        if outer is None and not state.disabled:
            with guarded("steps"):
                run = run_around()
        if run is None:
            return None
        around = self._around = _outermost_loop(outer, run)
        if around is not None and self._shifts:
            highest = around.highest.get(self._site)
            if highest is not None and self._lowest <= highest:
                self.first += highest + abs(self.stride) - self._lowest
        total = self._size if total is None else total
        inside = _loop_around(outer, run)
        notes = LoopNotes(run, name, None if inside is None else inside.notes)
        scope = self._scope = LoopScope(run, outer, self.first, (name, self.first, self.stride, total), notes)
        _context.enter(scope)
        if _shown:
            self.shown = _show(run, scope)
        return scope

    def end(self, step: int, *, ran: bool) -> None:
        """Leave the scope, and remember the highest step if there was an iteration.

        Args:
            step: of the iteration that did not take place, if all others did.
            ran: whether there was an iteration.
        """
        scope, self._scope = self._scope, None
        if scope is None:
            return
        scope.notes.end(abs(step - self.first) // (abs(self.stride) or 1))
        if self._around is not None and ran:
            reached = max(self.first, scope.step)
            self._around.highest[self._site] = max(reached, self._around.highest.get(self._site, reached))
        _context.leave(scope)


def _show(run: Run | None, scope: LoopScope) -> bool:
    """Let the displays of a run and of the runs around it show a loop; returns whether any of them has a display."""
    found = False
    while run is not None:
        if run.key in _shown:
            _shown[run.key], found = scope, True
        run = run.parent
    return found


def show_progress(run: Run, shown: bool) -> None:
    """A display of a run begins or stops to show the progress of loops, which then draw no bar."""
    if shown:
        _shown[run.key] = None
    else:
        _shown.pop(run.key, None)


def progress_of(run: Run) -> tuple[str, int, float | None] | None:
    """The progress of a loop, for the display of a run: the loop in the run or below it that began last.

    Returns:
        the name of an iteration, how many are over, and of how many, if that is known; None without a loop.
    """
    scope = _shown.get(run.key)
    if scope is None:
        return None
    name, first, stride, total = scope.loop
    return name, abs(scope.step - first) // (abs(stride) or 1) + 1, total


def make_current(scope: Scope) -> None:
    """Make the scope of a loop current again, after a generator has left the scope of its own loop current."""
    current = _context.current()
    if isinstance(current, LoopScope) and (_is_in(current, scope) or _is_in(scope, current)):
        _context.enter(scope)


def _is_in(scope: Scope | None, other: Scope) -> bool:
    while scope is not None and scope is not other:
        scope = scope.outer
    return scope is not None


def _outermost_loop(scope: Scope | None, run: Run) -> LoopScope | None:
    """The outermost of the loops around a scope whose metrics go to the same run."""
    found = None
    while scope is not None and scope.run is run:
        if isinstance(scope, LoopScope):
            found = scope
        scope = scope.outer
    return found


def _loop_around(scope: Scope | None, run: Run) -> LoopScope | None:
    """The innermost of the loops around a scope whose metrics go to the same run."""
    while scope is not None and scope.run is run:
        if isinstance(scope, LoopScope):
            return scope
        scope = scope.outer
    return None


def _natural(iterable: Any) -> _OwnSteps:
    """The steps that an iterable defines: the values of a range, the counts of an `enumerate`, or 0, 1, 2, …."""
    start = 0
    if is_bar(iterable):
        start, iterable = int(iterable.n), iterable.iterable
    kind = type(iterable)
    if kind is enumerate:
        first = iterable.__reduce__()[1][1]
        return _OwnSteps(first, 1, first)
    if kind is _RANGE_ITERATOR:  # Of `reversed(range(...))`.
        _, (whole,), *done = iterable.__reduce__()
        iterable, kind = whole[(done[0] if done else None) or 0 :], range
    if kind is range and len(iterable):
        return _OwnSteps(iterable[0], iterable.step, min(iterable[0], iterable[-1]))
    return _OwnSteps(start, 1, start)


def is_bar(iterable: Any) -> bool:
    """Whether the iterable is a tqdm bar of the user."""
    return any(base.__module__.startswith("tqdm.") and base.__name__ == "tqdm" for base in type(iterable).__mro__)


def _size(iterable: Any) -> float | None:
    """The number of items, for a display; None if the iterable has no length, or if its `__len__` raises."""
    if is_bar(iterable):
        return getattr(iterable, "total", None)
    try:
        return len(iterable)
    except Exception as error:
        reraise_from_signal(error)
        return None
