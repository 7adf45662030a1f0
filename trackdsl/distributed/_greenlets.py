"""Greenlets of gevent and eventlet: what runs in them belongs to the scope that started them.

A greenlet starts with an empty context of `contextvars`. So trackdsl gives it one with the current scope, and with no
other variables of the program.
"""

from __future__ import annotations

from contextvars import Context
from typing import TYPE_CHECKING, Any

from trackdsl._core import context as _context
from trackdsl._core.patching import Patch
from trackdsl.distributed._threads import InThread
from trackdsl.errors import format_error, report, reraise_from_signal

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

_current, _enter = _context.current, _context.enter


def follow(greenlet: Any) -> None:
    """Put a greenlet that has not started into the current scope."""
    scope = _current()
    if scope is None:
        return
    try:
        context = greenlet.gr_context or Context()
        context.run(_enter, scope)
        greenlet.gr_context = context
    except Exception as error:  # Greenlets before 1.0 have no contexts, and subclasses may raise anything.
        reraise_from_signal(error)
        report("greenlets", f"trackdsl cannot follow greenlets to where they run: {format_error(error)}")


def _follow_gevent(module: ModuleType) -> None:
    """Follow every greenlet that gevent starts. Its class cannot be patched, so gevent calls us back."""
    module.Greenlet.add_spawn_callback(follow)


def _spawn_raw(original: Callable[..., Any]) -> Callable[..., Any]:
    def spawn_raw(*args: Any, **kwargs: Any) -> Any:
        greenlet = original(*args, **kwargs)
        follow(greenlet)
        return greenlet

    return spawn_raw


def _spawn_n(original: Callable[..., Any]) -> Callable[..., Any]:
    def spawn_n(*args: Any, **kwargs: Any) -> Any:
        timer, greenlet = original(*args, **kwargs)
        follow(greenlet)
        return timer, greenlet

    return spawn_n


def _make(original: Callable[..., None]) -> Callable[..., None]:
    def make(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        follow(self)

    return make


def _in_native_thread(index: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Wrap a function that submits its argument number `index` to a pool of threads."""

    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        def hand_over(*args: Any, **kwargs: Any) -> Any:
            scope = _current()
            if scope is not None and len(args) > index and callable(args[index]):
                args = (*args[:index], InThread(args[index], scope), *args[index + 1 :])
            return original(*args, **kwargs)

        return hand_over

    return wrapper


PATCHES = [
    Patch("gevent.hub", "spawn_raw", _spawn_raw),
    Patch("gevent", "spawn_raw", _spawn_raw),
    Patch("gevent.threadpool", "ThreadPool.spawn", _in_native_thread(1)),
    Patch("eventlet.greenthread", "GreenThread.__init__", _make),
    Patch("eventlet.greenthread", "_spawn_n", _spawn_n),
    Patch("eventlet.tpool", "execute", _in_native_thread(0)),
]
#: What is called once with a module, after its import.
HOOKS = {"gevent.greenlet": _follow_gevent}
