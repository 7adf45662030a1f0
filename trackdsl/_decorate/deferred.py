"""Calls that give back something still to be run, as a plain function around a coroutine function does."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from trackdsl._core import context as _context

if TYPE_CHECKING:
    from trackdsl._core.context import Scope
    from trackdsl._decorate.call import Args, Call, Kwargs


class Deferred:
    """A call that has begun, and goes on where what it gave back is run. It stands in for the `Call` there.

    Args:
        call: how it is recorded.
        scope: its scope, which is left for now.
        args: its arguments.
        kwargs: those given by name.
    """

    def __init__(self, call: Call, scope: Scope | None, args: Args, kwargs: Kwargs) -> None:
        self.options = call.options
        self.returns = call.returns
        self.record_yield = call.record_yield
        self.report_unmet = call.report_unmet
        self.note_closed_early = call.note_closed_early
        self._call = call
        self._scope = scope
        self._given: tuple[Args, Kwargs] = (args, kwargs) if call.returns is not None else ((), {})
        self._around: Scope | None = None
        self._begun = False
        if scope is not None and call.options is not None:
            _context.leave(scope)

    def enter(self, _args: Args, _kwargs: Kwargs) -> Scope | None:
        """Go on: the scope is current again."""
        self._begun = True
        if self.options is not None and self._scope is not None:
            self._around = _context.current()
            _context.enter(self._scope)
        return self._scope

    def leave(self, scope: Scope | None, result: Any, error: BaseException | None, _args: Args, _kw: Kwargs) -> None:
        """End the call, and make current again what was current where it went on."""
        try:
            self._call.leave(scope, result, error, *self._given)
        finally:
            if self.options is not None and self._scope is not None:
                _context.enter(self._around)

    def abandon(self, scope: Scope | None, error: BaseException) -> None:
        """See `Call.abandon`."""
        self._call.abandon(scope, error)

    def when_done(self, future: Any) -> None:
        """End the call with a future."""
        self._begun = True
        # Asked by its method, the exception would count as seen, and the loop would not tell of it.
        error = sys.modules["asyncio"].CancelledError() if future.cancelled() else getattr(future, "_exception", None)
        result = future.result() if error is None else None
        self._call.leave(self._scope, result, error, *self._given)

    def __del__(self) -> None:
        # It was never awaited, and never asked for an item.
        if not self._begun and not sys.is_finalizing():
            self._begun = True
            self.note_closed_early(self._scope)
            self._call.leave(self._scope, None, None, *self._given)


def is_future(value: Any) -> bool:
    """Whether a value is a future, or a task, of asyncio."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and bool(asyncio.isfuture(value))
