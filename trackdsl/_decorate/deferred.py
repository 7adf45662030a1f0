"""Calls whose result runs later, as where another library wraps a coroutine function in a plain function."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from trackdsl._core import context as _context

if TYPE_CHECKING:
    from trackdsl._core.context import Scope
    from trackdsl._decorate.call import Args, Call, Kwargs


class Deferred:
    """A call that has begun, and continues when the object that it returned runs. It has the methods of a `Call`.

    Args:
        call: the decorated function.
        scope: the scope of the call. It is left, and entered again when the returned object runs.
        args: the positional arguments.
        kwargs: the keyword arguments.
    """

    def __init__(self, call: Call, scope: Scope | None, args: Args, kwargs: Kwargs) -> None:
        self.options = call.options
        self.returns = call.returns
        self.record_yield = call.record_yield
        self.report_unmet = call.report_unmet
        self.tag_closed_early = call.tag_closed_early
        self._call = call
        self._scope = scope
        self._given: tuple[Args, Kwargs] = (args, kwargs) if call.returns is not None else ((), {})
        self._around: Scope | None = None
        self._begun = False
        if scope is not None and call.options is not None:
            _context.leave(scope)

    def enter(self, _args: Args, _kwargs: Kwargs) -> Scope | None:
        """Continue the call: make its scope current again."""
        self._begun = True
        if self.options is not None and self._scope is not None:
            self._around = _context.current()
            _context.enter(self._scope)
        return self._scope

    def leave(self, scope: Scope | None, result: Any, error: BaseException | None, _args: Args, _kw: Kwargs) -> None:
        """End the call, and make the scope around it current again."""
        try:
            self._call.leave(scope, result, error, *self._given)
        finally:
            if self.options is not None and self._scope is not None:
                _context.enter(self._around)

    def abandon(self, scope: Scope | None, error: BaseException) -> None:
        """See `Call.abandon`."""
        self._call.abandon(scope, error)

    def when_done(self, future: Any) -> None:
        """End the call when a future is done."""
        self._begun = True
        # `future.exception()` would mark the exception as retrieved, and the loop would not log it.
        error = sys.modules["asyncio"].CancelledError() if future.cancelled() else getattr(future, "_exception", None)
        result = future.result() if error is None else None
        self._call.leave(self._scope, result, error, *self._given)

    def __del__(self) -> None:
        # The program has dropped the returned object without running it.
        if not self._begun and not sys.is_finalizing():
            self._begun = True
            self.tag_closed_early(self._scope)
            self._call.leave(self._scope, None, None, *self._given)


def is_future(value: Any) -> bool:
    """Whether a value is a future, or a task, of asyncio."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and bool(asyncio.isfuture(value))
