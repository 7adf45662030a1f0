"""Threads and thread pools: what runs in them belongs to the scope that started it."""

from __future__ import annotations

import sys
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

from trackdsl._core import context as _context
from trackdsl._core.patching import Patch, closed, opened
from trackdsl.distributed._frames import hide_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from trackdsl._core.context import Scope

#: Modules whose threads run work of many scopes, and choose the context of each piece of work themselves.
_POOLS = frozenset(
    ["concurrent.futures.thread", "anyio._backends._asyncio", "trio._core._thread_cache"]
    # Loops, pools and processes of Dask. Tasks that run in them bring their own context.
    + ["distributed." + name for name in ("_concurrent_futures_thread", "nanny", "process", "profile")]
    + ["distributed.threadpoolexecutor", "distributed.utils"]
)
_current, _enter = _context.current, _context.enter


class InThread:
    """A function that runs in the scope that submitted it.

    Args:
        fn: the function.
        scope: the scope.
    """

    __slots__ = ("_fn", "_scope")

    def __init__(self, fn: Callable[..., Any], scope: Scope) -> None:
        self._fn = fn
        self._scope = scope

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        before = _current()
        try:
            opened(self)
            _enter(self._scope)
            return self._fn(*args, **kwargs)
        except BaseException as error:
            hide_frame(error)
            raise
        finally:
            _enter(before)
            closed(self)


class ThreadBody:
    """Replaces the `run` of a thread until it is called.

    Args:
        thread: the thread.
        scope: the scope that starts it.
    """

    __slots__ = ("_own", "_scope", "_thread")

    def __init__(self, thread: Thread, scope: Scope) -> None:
        self._thread = thread
        self._scope = scope
        #: A `run` that the program has set on this thread alone.
        self._own = vars(thread).get("run")

    def __call__(self, *_: object) -> None:
        # A library that has wrapped it, such as Sentry, may pass the thread as an argument.
        run = self.restore()
        # A daemon thread may never end, and would keep the patches installed.
        if not self._thread.daemon:
            opened(self)
        _enter(self._scope)
        try:
            run()
        except BaseException as error:
            hide_frame(error)
            raise
        finally:
            closed(self)

    def restore(self) -> Callable[[], None]:
        """Put the thread's own `run` back.

        Returns:
            that `run`, even if another library has wrapped ours.
        """
        thread = self._thread
        attributes = vars(thread)
        if attributes.get("run") is not self:
            return self._own or partial(type(thread).run, thread)
        if self._own is None:
            del attributes["run"]
        else:
            attributes["run"] = self._own
        return thread.run


def _serves(thread: Thread) -> bool:
    """Whether a pool starts the thread through a wrapper of another library."""
    return getattr(getattr(thread, "_target", None), "__module__", None) in _POOLS


def _start(original: Callable[..., None]) -> Callable[..., None]:
    def start(self: Thread, *args: Any, **kwargs: Any) -> None:
        scope = _current()
        # A thread of a pool serves other scopes later, so it belongs to none.
        if scope is None:
            return original(self, *args, **kwargs)
        if sys._getframe(1).f_globals.get("__name__") in _POOLS or _serves(self):
            try:
                _enter(None)  # A greenlet that replaces a thread inherits the current scope.
                return original(self, *args, **kwargs)
            finally:
                _enter(scope)
        body = ThreadBody(self, scope)
        vars(self)["run"] = body  # Without calling a `__setattr__` of its class.
        try:
            return original(self, *args, **kwargs)
        except BaseException:
            body.restore()
            raise

    return start


def submit_in_scope(original: Callable[..., Any]) -> Callable[..., Any]:
    def submit(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        scope = _current()
        return original(self, fn if scope is None else InThread(fn, scope), *args, **kwargs)

    return submit


def _add_done_callback(original: Callable[..., None]) -> Callable[..., None]:
    def add_done_callback(self: Any, fn: Callable[..., Any]) -> None:
        scope = _current()
        return original(self, fn if scope is None else InThread(fn, scope))

    return add_done_callback


PATCHES = [
    Patch("threading", "Thread.start", _start),
    Patch("concurrent.futures.thread", "ThreadPoolExecutor.submit", submit_in_scope),
    # The thread that completes the future calls the callback.
    Patch("concurrent.futures._base", "Future.add_done_callback", _add_done_callback),
]
