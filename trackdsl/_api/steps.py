"""`steps(...)`: a loop with a progress bar, which numbers the steps of the metrics inside."""

from __future__ import annotations

import operator
import sys
from collections.abc import AsyncIterable, AsyncIterator, Hashable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar, overload

from trackdsl._config.state import state
from trackdsl._core import context as _context
from trackdsl._core.context import Scope
from trackdsl._decorate.parentage import run_around
from trackdsl._recording.emit import guarded
from trackdsl._runs.run import Run
from trackdsl.errors import OptionError

T = TypeVar("T")

_RANGE_ITERATOR = type(iter(range(0)))


@overload
def steps(
    iterable: Iterable[T], name: str = "step", total: int | None = None, start: int | None = None
) -> Iterator[T]: ...
@overload
def steps(
    iterable: AsyncIterable[T], name: str = "step", total: int | None = None, start: int | None = None
) -> AsyncIterator[T]: ...
def steps(
    iterable: Iterable[T] | AsyncIterable[T], name: str = "step", total: int | None = None, start: int | None = None
) -> Iterator[T] | AsyncIterator[T]:
    """Loop with a progress bar. The iteration is the step of the metrics that are logged inside.

    The values of a `range` are its steps, as are the counts of an `enumerate`. The iterations of any other iterable are
    counted from 0, or from the `initial` of a tqdm bar. An inner loop on the same run continues to count where it
    stopped in the last iteration of the outer loop, so that every point has its own step.

    Args:
        iterable: what to loop over, with `for`, or with `async for` if it is asynchronous.
        name: the name of an iteration in the progress bar.
        total: the number of iterations, if the iterable has no length.
        start: the step of the first iteration, each time the loop begins. The distance between steps stays the same.

    Returns:
        an iterator over the items, unchanged.

    Raises:
        OptionError: `start` is no whole number, `total` is no number, or `iterable` cannot be iterated.

    Example:
        >>> for epoch in steps(range(3), "epoch"):  # doctest: +SKIP
        ...     log_metric("loss", 1 / (epoch + 1))
    """
    check_iterable(iterable, "steps")
    if start is not None:
        start = _whole(start)
    if total is not None and not isinstance(total, (int, float)):
        message = f"steps(..., total={total!r}): it is the number of iterations, such as total=100."
        raise OptionError(message, option="total")
    caller = sys._getframe(1)
    rounds = _Iterations(iterable, start, (caller.f_code, caller.f_lasti))
    inner = iterable.iterable if _is_bar(iterable) else iterable  # type: ignore[union-attr] # the bar's own
    if isinstance(inner, AsyncIterable) and not isinstance(inner, Iterable):
        return _AsyncLoop(iterable, name, total, rounds)  # type: ignore[arg-type] # as its inner one is
    return _loop(iterable, name, total, rounds)  # type: ignore[arg-type] # as its inner one is


def _loop(iterable: Iterable[T], name: str, total: int | None, rounds: _Iterations) -> Iterator[T]:
    own = not _is_bar(iterable)
    bar = _bar(iterable, name, total) if own else iterable
    scope = rounds.begin()
    step, stride, ran = rounds.first, rounds.stride, False
    try:
        for item in bar:
            ran = True
            if scope is not None:
                scope.step = step
                if _context.current() is not scope:
                    _make_current(scope)
            yield item
            step += stride
    finally:
        if own:
            bar.close()  # type: ignore[union-attr] # the bar's own
        rounds.end(ran=ran)


class _AsyncLoop(AsyncIterator[T]):
    """The same for `async for`. It is no asynchronous generator, as one that is left early ends in another context."""

    def __init__(self, iterable: AsyncIterable[T], name: str, total: int | None, rounds: _Iterations) -> None:
        self._iterable = iterable
        self._name = name
        self._total = total
        self._rounds = rounds
        self._iterator: AsyncIterator[T] | None = None
        self._bar: Any = None
        self._scope: Scope | None = None
        self._step = 0
        self._open = False
        self._ran = False

    async def __anext__(self) -> T:
        if self._iterator is None:
            self._iterator = aiter(self._iterable)
            self._bar = None if _is_bar(self._iterable) else _bar(None, self._name, self._total)
            self._scope = self._rounds.begin()
            self._step = self._rounds.first
            self._open = True
        else:
            self._step += self._rounds.stride
        try:
            item = await anext(self._iterator)
        except BaseException:
            self._end()
            raise
        self._ran = True
        if self._scope is not None:
            self._scope.step = self._step
            _make_current(self._scope)
        if self._bar is not None:
            self._bar.update(1)
        return item

    async def aclose(self) -> None:
        """Leave the loop, and close its iterator."""
        self._end()
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()

    def __del__(self) -> None:
        self._end()

    def _end(self) -> None:
        if self._open:
            self._open = False
            if self._bar is not None:
                self._bar.close()
            self._rounds.end(ran=self._ran)


class _LoopScope(Scope):
    """The scope of a loop.

    Attributes:
        highest: the highest step of each loop that has run inside it, by its line of code.
    """

    __slots__ = ("highest",)

    def __init__(self, run: Run, outer: Scope | None, step: int) -> None:
        super().__init__(run, outer, None, step)
        self.highest: dict[Hashable, int] = {}


class _OwnSteps(NamedTuple):
    """The steps that an iterable defines: the first, the distance between two steps, and the lowest."""

    first: int
    stride: int
    lowest: int


class _Iterations:
    """The steps of the iterations of one loop.

    Args:
        iterable: what the loop iterates over.
        start: the first step, if the user has chosen it.
        site: the line of code, which identifies the loop in the next iteration of the loop around it.

    Attributes:
        first: the step of the first iteration.
        stride: the distance from one step to the next.
    """

    __slots__ = ("_around", "_lowest", "_scope", "_shifts", "_site", "first", "stride")

    def __init__(self, iterable: Any, start: int | None, site: Hashable) -> None:
        self.first, self.stride, self._lowest = _natural(iterable)
        self._shifts = start is None
        if start is not None:
            self.first = start
        self._site = site
        self._scope: _LoopScope | None = None
        self._around: _LoopScope | None = None

    def begin(self) -> Scope | None:
        """Enter the scope of the loop; None outside of any run."""
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
        scope = self._scope = _LoopScope(run, outer, self.first)
        _context.enter(scope)
        return scope

    def end(self, *, ran: bool) -> None:
        """Leave the scope, and note the highest step if there was an iteration."""
        scope, self._scope = self._scope, None
        if scope is None:
            return
        if self._around is not None and ran:
            reached = max(self.first, scope.step)
            self._around.highest[self._site] = max(reached, self._around.highest.get(self._site, reached))
        _context.leave(scope)


def _make_current(scope: Scope) -> None:
    """Make the scope of a loop current again, after a generator has left the scope of its own loop current."""
    current = _context.current()
    if isinstance(current, _LoopScope) and (_is_in(current, scope) or _is_in(scope, current)):
        _context.enter(scope)


def _is_in(scope: Scope | None, other: Scope) -> bool:
    while scope is not None and scope is not other:
        scope = scope.outer
    return scope is not None


def _outermost_loop(scope: Scope | None, run: Run) -> _LoopScope | None:
    """The outermost of the loops around a scope whose metrics go to the same run."""
    found = None
    while scope is not None and scope.run is run:
        if isinstance(scope, _LoopScope):
            found = scope
        scope = scope.outer
    return found


def _natural(iterable: Any) -> _OwnSteps:
    start = 0
    if _is_bar(iterable):
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


def check_iterable(iterable: Any, function: str) -> None:
    kind = type(iterable)
    if hasattr(kind, "__iter__") or hasattr(kind, "__aiter__") or hasattr(kind, "__getitem__"):
        return
    instead = f" Write {function}(range({iterable}))." if isinstance(iterable, int) else ""
    raise OptionError(f"{function}() takes an iterable, not {iterable!r}.{instead}", option="iterable")


def _whole(start: Any) -> int:
    try:
        return operator.index(start)
    except TypeError:
        raise OptionError(
            f"steps(..., start={start!r}): a step is a whole number, such as start=100.", option="start"
        ) from None


def _is_bar(iterable: Any) -> bool:
    """Whether the iterable is a tqdm bar of the user."""
    return any(base.__module__.startswith("tqdm.") and base.__name__ == "tqdm" for base in type(iterable).__mro__)


def _bar(iterable: Iterable[T] | None, name: str, total: int | None) -> Any:
    if "ipykernel" in sys.modules:
        from tqdm.auto import tqdm as notebook_bar

        return notebook_bar(iterable, desc=name, total=total)
    from tqdm import tqdm

    # `disable=None` shows the bar only at a terminal.
    return tqdm(iterable, desc=name, total=total, disable=None)
