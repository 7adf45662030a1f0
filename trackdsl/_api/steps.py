"""`steps(...)`: a loop with a progress bar, whose rounds are the steps of the metrics inside."""

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
    """Loop with a progress bar; the round is the step of the metrics logged inside.

    The values of a `range` are its steps, and so are the counts of an `enumerate`; the rounds of anything else are
    counted from 0, or from where a bar of tqdm stands (`initial`). A loop inside another one, on the same run, counts
    on where it stopped in the round before, so that every point has a step of its own.

    Args:
        iterable: what to loop over, with `for` or, where it is asynchronous, `async for`.
        name: what the bar calls a round.
        total: how many rounds there are, where the iterable does not tell.
        start: the step of the first round, each time the loop begins. The distance between steps stays the same.

    Returns:
        an iterator over the items, unchanged.

    Raises:
        OptionError: `start` is no whole number, `total` no number, or there is nothing to loop over.

    Example:
        >>> for epoch in steps(range(3), "epoch"):  # doctest: +SKIP
        ...     log_metric("loss", 1 / (epoch + 1))
    """
    check_iterable(iterable, "steps")
    if start is not None:
        start = _whole(start)
    if total is not None and not isinstance(total, (int, float)):
        message = f"steps(..., total={total!r}): it is how many rounds there are, such as total=100."
        raise OptionError(message, option="total")
    caller = sys._getframe(1)
    rounds = _Rounds(iterable, start, (caller.f_code, caller.f_lasti))
    inner = iterable.iterable if _is_bar(iterable) else iterable  # type: ignore[union-attr] # the bar's own
    if isinstance(inner, AsyncIterable) and not isinstance(inner, Iterable):
        return _AsyncLoop(iterable, name, total, rounds)  # type: ignore[arg-type] # as its inner one is
    return _loop(iterable, name, total, rounds)  # type: ignore[arg-type] # as its inner one is


def _loop(iterable: Iterable[T], name: str, total: int | None, rounds: _Rounds) -> Iterator[T]:
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
    """The same for `async for`: an object, as an asynchronous generator that is left early ends in another context."""

    def __init__(self, iterable: AsyncIterable[T], name: str, total: int | None, rounds: _Rounds) -> None:
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
        """Leave the loop, and close what it goes over."""
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
        highest: the highest step of each loop that has run inside it, by the place in the program.
    """

    __slots__ = ("highest",)

    def __init__(self, run: Run, outer: Scope | None, step: int) -> None:
        super().__init__(run, outer, None, step)
        self.highest: dict[Hashable, int] = {}


class _Natural(NamedTuple):
    """The steps that an iterable has by itself: the first, the distance between two, and the lowest."""

    first: int
    stride: int
    lowest: int


class _Rounds:
    """The steps of the rounds of one loop.

    Args:
        iterable: what it goes over.
        start: the first step, where the user has chosen it.
        site: the place in the program, by which the same loop is known in the next round of the loop around it.

    Attributes:
        first: the step of the first round.
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
        """Leave it, and note how far it came, if it had a round at all."""
        scope, self._scope = self._scope, None
        if scope is None:
            return
        if self._around is not None and ran:
            reached = max(self.first, scope.step)
            self._around.highest[self._site] = max(reached, self._around.highest.get(self._site, reached))
        _context.leave(scope)


def _make_current(scope: Scope) -> None:
    """Make the scope of a loop current again, where that of a generator is which loops by itself, beside or inside."""
    current = _context.current()
    if isinstance(current, _LoopScope) and (_is_in(current, scope) or _is_in(scope, current)):
        _context.enter(scope)


def _is_in(scope: Scope | None, other: Scope) -> bool:
    while scope is not None and scope is not other:
        scope = scope.outer
    return scope is not None


def _outermost_loop(scope: Scope | None, run: Run) -> _LoopScope | None:
    """The outermost loop around a place, of those whose metrics go to the same run."""
    found = None
    while scope is not None and scope.run is run:
        if isinstance(scope, _LoopScope):
            found = scope
        scope = scope.outer
    return found


def _natural(iterable: Any) -> _Natural:
    start = 0
    if _is_bar(iterable):
        start, iterable = int(iterable.n), iterable.iterable
    kind = type(iterable)
    if kind is enumerate:
        first = iterable.__reduce__()[1][1]
        return _Natural(first, 1, first)
    if kind is _RANGE_ITERATOR:  # Of `reversed(range(...))`.
        _, (whole,), *done = iterable.__reduce__()
        iterable, kind = whole[(done[0] if done else None) or 0 :], range
    if kind is range and len(iterable):
        return _Natural(iterable[0], iterable.step, min(iterable[0], iterable[-1]))
    return _Natural(start, 1, start)


def check_iterable(iterable: Any, function: str) -> None:
    kind = type(iterable)
    if hasattr(kind, "__iter__") or hasattr(kind, "__aiter__") or hasattr(kind, "__getitem__"):
        return
    instead = f" Write {function}(range({iterable}))." if isinstance(iterable, int) else ""
    raise OptionError(f"{function}() takes what a loop goes over, not {iterable!r}.{instead}", option="iterable")


def _whole(start: Any) -> int:
    try:
        return operator.index(start)
    except TypeError:
        raise OptionError(
            f"steps(..., start={start!r}): a step is a whole number, such as start=100.", option="start"
        ) from None


def _is_bar(iterable: Any) -> bool:
    """Whether the user has put a bar of tqdm's around the loop already."""
    return any(base.__module__.startswith("tqdm.") and base.__name__ == "tqdm" for base in type(iterable).__mro__)


def _bar(iterable: Iterable[T] | None, name: str, total: int | None) -> Any:
    if "ipykernel" in sys.modules:
        from tqdm.auto import tqdm as notebook_bar

        return notebook_bar(iterable, desc=name, total=total)
    from tqdm import tqdm

    # No bar where nobody looks: `disable=None` asks whether the output is a terminal.
    return tqdm(iterable, desc=name, total=total, disable=None)
