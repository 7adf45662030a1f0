"""`log_stream(...)`: a loop that records the numbers that an iterator yields."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, TypeVar, overload

from trackdsl._api.steps import check_iterable
from trackdsl._core import context as _context
from trackdsl._decorate.parentage import run_outside
from trackdsl._recording.emit import guarded
from trackdsl._recording.numbers import is_mapping, is_number, leaves
from trackdsl._runs.run import Run

T = TypeVar("T")


@overload
def log_stream(iterable: Iterable[T], *, prefix: str = "", start: int = 0) -> Iterator[T]: ...
@overload
def log_stream(iterable: AsyncIterable[T], *, prefix: str = "", start: int = 0) -> AsyncIterator[T]: ...
def log_stream(
    iterable: Iterable[T] | AsyncIterable[T], *, prefix: str = "", start: int = 0
) -> Iterator[T] | AsyncIterator[T]:
    """Loop over an iterable that reports numbers, record each item on the current run, and yield it unchanged.

    A mapping or dataclass becomes one metric for each number in it. A number becomes the metric `prefix`, or `value`.
    Other items are yielded without being recorded. The run is the one that is current when the loop begins. Leaving the
    loop closes a generator.

    Args:
        iterable: what to loop over, with `for`, or with `async for` if it is asynchronous.
        prefix: put before every metric's name, such as `train/`.
        start: the step of the first item. Each further item has the next step.

    Returns:
        an iterator over the same items.

    Raises:
        OptionError: `iterable` cannot be iterated.

    Example:
        >>> for row in log_stream(train(model), prefix="train/"):  # doctest: +SKIP
        ...     print(row["loss"])
    """
    check_iterable(iterable, "log_stream")
    if isinstance(iterable, AsyncIterable) and not isinstance(iterable, Iterable):
        return _async_stream(iterable, prefix, start)
    return _stream(iterable, prefix, start)


def _stream(iterable: Iterable[T], prefix: str, start: int) -> Iterator[T]:
    run = _current("log_stream")
    iterator = iter(iterable)
    try:
        for index, item in enumerate(iterator, start):
            _record(run, item, prefix, index)
            yield item
    finally:
        # Only generators: something else, such as a file, is closed by its owner.
        if hasattr(iterator, "throw") and hasattr(iterator, "close"):
            iterator.close()


async def _async_stream(iterable: AsyncIterable[T], prefix: str, start: int) -> AsyncIterator[T]:
    run = _current("log_stream")
    iterator, index = aiter(iterable), start
    try:
        async for item in iterator:
            _record(run, item, prefix, index)
            yield item
            index += 1
    finally:
        if hasattr(iterator, "athrow") and hasattr(iterator, "aclose"):
            await iterator.aclose()


def _current(doing: str) -> Run | None:
    scope = _context.current()
    return scope.run if scope is not None else run_outside(doing)


def _record(run: Run | None, item: Any, prefix: str, step: int) -> None:
    if run is None:
        return
    with guarded("log_stream", run):
        if is_number(item):
            run.log_metrics({prefix.rstrip("/") or "value": item}, step)
        elif is_mapping(item):
            numbers = {name: value for name, value in leaves(item, prefix) if is_number(value)}
            if numbers:
                run.log_metrics(numbers, step)
