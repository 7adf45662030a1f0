"""The body of a decorated generator: each time it runs, its own run is current, whatever is current for its caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trackdsl._core import context as _context
from trackdsl._core import recursion_limit

if TYPE_CHECKING:
    from trackdsl._core.context import Scope
    from trackdsl._decorate.call import Call
    from trackdsl._decorate.deferred import Deferred


class Unrecorded:
    """The body of a generator while nothing is recorded.

    Args:
        args: the positional arguments, which are released once the generator is made.
        kwargs: the keyword arguments.
    """

    __slots__ = ("_args", "_budget", "_kwargs")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args = args
        self._kwargs = kwargs
        self._budget: recursion_limit.RecursionBudget | None = None

    def begin(self, fn: Callable[..., Any]) -> Any:
        """Call the function, which makes the generator."""
        args, kwargs = self._args, self._kwargs
        self._args, self._kwargs = (), {}
        if not recursion_limit.shallow():
            self._budget = recursion_limit.raise_limit()
        return fn(*args, **kwargs)

    def suspend(self, item: Any) -> None:
        """The generator has yielded an item."""

    def resume(self, sent: Any) -> None:
        """The generator continues, with a value that was sent or an exception that was thrown."""

    def end(self, result: Any, error: BaseException | None) -> None:  # noqa: ARG002 - `Body` uses them
        """The generator has ended."""
        recursion_limit.release(self._budget)


class Body(Unrecorded):
    """The body of one generator: its scope is current while it runs, never for its caller.

    Args:
        call: the decorated function.
        args: the positional arguments, which are released once the generator is made, unless its result is recorded.
        kwargs: the keyword arguments.
    """

    __slots__ = ("_call", "_closing", "_count", "_inside", "_met", "_outer", "_scope")

    def __init__(self, call: Call | Deferred, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(args, kwargs)
        self._call = call
        self._closing = False
        self._count = 0
        self._met: dict[str, None] = {}
        self._outer = _context.current()
        self._inside: Scope | None = None
        self._scope: Scope | None = None

    def begin(self, fn: Callable[..., Any]) -> Any:
        """Enter the call and make the generator."""
        args, kwargs = self._args, self._kwargs
        self._scope = self._call.enter(args, kwargs)
        try:
            inner = fn(*args, **kwargs)
        except BaseException as error:
            self.end(None, error)
            raise
        if self._call.returns is None:
            self._args, self._kwargs = (), {}
        return inner

    def suspend(self, item: Any) -> None:
        """Record the yielded value, and make the caller's scope current again."""
        self._call.record_yield(self._scope, item, self._count, self._met)
        self._count += 1
        if self._call.options is not None:
            if self._scope is not None:
                self._scope.step = self._count
            self._inside = _context.current()
            _context.enter(self._outer)

    def resume(self, sent: Any) -> None:
        """Make the generator's scope current, as its caller asks for the next item or closes it."""
        self._closing = isinstance(sent, GeneratorExit)
        if self._call.options is not None:
            self._outer = _context.current()
            _context.enter(self._inside)

    def end(self, result: Any, error: BaseException | None) -> None:
        """End the call. A generator that its caller closes has not failed."""
        if self._closing and (error is None or isinstance(error, GeneratorExit)):
            self._call.tag_closed_early(self._scope)
            error = None
        if error is None and result is None and self._count:
            self._call.report_unmet(self._scope, self._met)
        try:
            self._call.leave(self._scope, result, error, self._args, self._kwargs)
        finally:
            if self._call.options is not None:
                _context.enter(self._outer)
