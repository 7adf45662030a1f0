"""joblib and loky: a task belongs to the scope that called `Parallel`, or that submitted the task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trackdsl._core import context as _context
from trackdsl._core.patching import Patch
from trackdsl.distributed._contexts import Context, InScope
from trackdsl.distributed._processes import InScopeIterable, InScopeIterator, make_pool, submit_to_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from trackdsl._core.context import Scope

_current = _context.current


class Tasks(InScopeIterable):
    """The tasks of one call of `Parallel`, each of which runs in the scope of that call. They are made when needed.

    joblib takes the later tasks in threads that have no scope, and gives them to backends of other libraries.

    Args:
        iterable: of tuples of function, arguments and keyword arguments.
        scope: the scope.
    """

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return _TaskIterator(iter(self._iterable), self._scope)


class _CountedTasks(Tasks):
    """The tasks of one call of `Parallel` with a known number."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._iterable)  # type: ignore[arg-type]


class _TaskIterator(InScopeIterator):
    """See `Tasks`."""

    __slots__ = ("_context", "_of")

    def __init__(self, iterator: Iterator[Any], scope: Scope) -> None:
        super().__init__(iterator, scope)
        self._of: Scope | None = scope
        self._context = Context(scope)

    def item_for_pool(self, item: Any) -> Any:
        """See `InScopeIterator`."""
        if self.scope is not self._of:  # The iterable is a generator that has opened a scope.
            self._of, self._context = self.scope, Context(self.scope)
        if isinstance(item, tuple) and len(item) == 3 and callable(item[0]):
            return InScope(item[0], self._context), item[1], item[2]
        return item  # joblib raises for it.


def _call(original: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, iterable: Iterable[Any]) -> Any:
        scope = _current()
        if scope is not None:
            iterable = (_CountedTasks if hasattr(iterable, "__len__") else Tasks)(iterable, scope)
        return original(self, iterable)

    return call


def _start_workers(original: Callable[..., None]) -> Callable[..., None]:
    def start_workers(self: Any) -> None:
        scope = _current()
        try:
            _context.enter(None)
            original(self)
        finally:
            _context.enter(scope)

    return start_workers


#: loky is a part of joblib, and also a package of its own.
_LOKY = ("joblib.externals.loky.process_executor", "loky.process_executor")

PATCHES = [
    Patch("joblib.parallel", "Parallel.__call__", _call),
    *(Patch(module, "ProcessPoolExecutor.__init__", make_pool) for module in _LOKY),
    *(Patch(module, "ProcessPoolExecutor.submit", submit_to_pool) for module in _LOKY),
    # A reused pool replaces workers that have ended.
    *(Patch(module, "ProcessPoolExecutor._adjust_process_count", _start_workers) for module in _LOKY),
]
