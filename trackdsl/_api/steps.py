"""`steps(...)`: a loop with a progress bar, which numbers the steps of the metrics inside."""

from __future__ import annotations

import operator
import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from importlib.util import find_spec
from typing import Any, TypeVar, overload

from trackdsl._api.iterations import Iterations, LoopScope, is_bar, make_current
from trackdsl._core import context as _context
from trackdsl.errors import OptionError

T = TypeVar("T")


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
        OptionError: `start` is not an integer, `total` is not a number, or `iterable` is not iterable.

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
    rounds = Iterations(iterable, start, (caller.f_code, caller.f_lasti))
    inner = iterable.iterable if is_bar(iterable) else iterable  # type: ignore[union-attr] # the bar's own
    if isinstance(inner, AsyncIterable) and not isinstance(inner, Iterable):
        return _AsyncLoop(iterable, name, total, rounds)  # type: ignore[arg-type] # as its inner one is
    return _loop(iterable, name, total, rounds)  # type: ignore[arg-type] # as its inner one is


def _loop(iterable: Iterable[T], name: str, total: int | None, rounds: Iterations) -> Iterator[T]:
    own = not is_bar(iterable)
    bar: Any = None
    scope = rounds.begin(name, total)
    step, stride, ran, until_report = rounds.first, rounds.stride, False, 1
    try:
        bar = _bar(iterable, name, total, hidden=rounds.shown) if own else iterable
        for item in bar:
            ran = True
            if scope is not None:
                until_report -= 1
                if not until_report:
                    until_report = scope.notes.report(bar.total)
                scope.step = step
                if _context.current() is not scope:
                    make_current(scope)
            yield item
            step += stride
    finally:
        if own and bar is not None:
            bar.close()
        rounds.end(step, ran=ran)


class _AsyncLoop(AsyncIterator[T]):
    """The loop of `async for`. It is not an async generator: one that is left early is finalized in another context."""

    def __init__(self, iterable: AsyncIterable[T], name: str, total: int | None, rounds: Iterations) -> None:
        self._iterable = iterable
        self._name = name
        self._total = total
        self._rounds = rounds
        self._iterator: AsyncIterator[T] | None = None
        self._bar: Any = None
        self._scope: LoopScope | None = None
        self._step = 0
        self._until_report = 1
        self._open = False
        self._ran = False

    async def __anext__(self) -> T:
        if self._iterator is None:
            self._iterator = aiter(self._iterable)
            self._scope = self._rounds.begin(self._name, self._total)
            hidden = self._rounds.shown
            self._bar = None if is_bar(self._iterable) else _bar(None, self._name, self._total, hidden=hidden)
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
            self._until_report -= 1
            if not self._until_report:
                bar: Any = self._iterable if self._bar is None else self._bar
                self._until_report = self._scope.notes.report(bar.total)
            self._scope.step = self._step
            make_current(self._scope)
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
            self._rounds.end(self._step, ran=self._ran)


def check_iterable(iterable: Any, function: str) -> None:
    """Raise an `OptionError` if the argument of `steps` or `log_stream` cannot be iterated."""
    kind = type(iterable)
    if hasattr(kind, "__iter__") or hasattr(kind, "__aiter__") or hasattr(kind, "__getitem__"):
        return
    instead = f" Write {function}(range({iterable}))." if isinstance(iterable, int) else ""
    raise OptionError(f"{function}() takes an iterable, not {iterable!r}.{instead}", option="iterable")


def _whole(start: Any) -> int:
    """The argument `start` as an integer."""
    try:
        return operator.index(start)
    except TypeError:
        raise OptionError(
            f"steps(..., start={start!r}): a step must be an integer, such as start=100.", option="start"
        ) from None


def _bar(iterable: Iterable[T] | None, name: str, total: int | None, *, hidden: bool) -> Any:
    in_notebook = "ipykernel" in sys.modules and not hidden
    if in_notebook and find_spec("ipywidgets") is not None:
        from tqdm.auto import tqdm as notebook_bar

        return notebook_bar(iterable, desc=name, total=total)
    from tqdm import tqdm

    if in_notebook:  # `tqdm.auto` would warn that ipywidgets is not installed.
        return tqdm(iterable, desc=name, total=total)

    # `disable=None` shows the bar only at a terminal.
    return tqdm(iterable, desc=name, total=total, disable=hidden or None)
