"""Dask: a task belongs to the run that was current where the task was submitted.

Dask gets the program's functions unchanged, so keys, purity and caching stay what they were. The context travels as an
annotation, which Dask keeps with each task through retries and from worker to worker. The worker enters the context
around the task.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

from trackdsl._core import context as _context
from trackdsl._core.patching import Patch
from trackdsl.distributed._contexts import Context, InScope, attach
from trackdsl.distributed._dask_worker import CONTEXT, CallOfActor, current_task, follow, task_of
from trackdsl.distributed._sending import text_here
from trackdsl.distributed._task_context import inside
from trackdsl.distributed._threads import submit_in_scope
from trackdsl.errors import format_error, logger, reraise_from_signal

__all__ = ["PATCHES", "current_task", "follow"]

#: How many seconds the first task waits for a scheduler that does not answer.
_PATIENCE = 5.0
#: Clients whose scheduler counts attempts.
_counted: weakref.WeakSet[Any] = weakref.WeakSet()


def _graph_to_futures(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap what `submit`, `map`, `compute`, `persist` and `get` all call."""

    def graph_to_futures(self: Any, *args: Any, **kwargs: Any) -> Any:
        text = text_here("Dask")
        if not text:
            return original(self, *args, **kwargs)
        _count_attempts(self)
        follow()
        with sys.modules["dask"].annotate(**{CONTEXT: text}):
            return original(self, *args, **kwargs)

    return graph_to_futures


def _count_attempts(client: Any) -> None:
    """Have the scheduler count attempts, as nothing else knows them after a worker has died."""
    if client in _counted:
        return
    _counted.add(client)

    async def register() -> None:
        from trackdsl.distributed._dask_plugins import Attempts, ImportTrackdsl  # It imports Dask.

        for plugin, missed in (
            (Attempts(), "count the attempts of Dask's tasks"),
            (ImportTrackdsl(), "prepare Dask's workers"),
        ):
            try:
                await client.register_plugin(plugin, name=plugin.name)
            except Exception as error:
                reraise_from_signal(error)
                logger.warning("trackdsl cannot %s: %s", missed, format_error(error))

    with contextlib.suppress(Exception):
        if client.asynchronous:
            client.loop.add_callback(register)
        else:  # Wait, so that the first task is counted too. An event loop cannot wait.
            client.sync(register, callback_timeout=_PATIENCE)


def _run(original: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        scope = _context.current()
        if scope is not None and callable(function):
            context = Context(scope)
            if inspect.iscoroutinefunction(function):
                function = functools.wraps(function)(functools.partial(_run_coroutine, function, context))
            else:
                function = InScope(function, context)
        return original(self, function, *args, **kwargs)

    return run


async def _run_coroutine(function: Callable[..., Any], context: Context, /, *args: Any, **kwargs: Any) -> Any:
    with attach(context):
        return await function(*args, **kwargs)


def _execute(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def execute(self: Any, key: Any, *args: Any, **kwargs: Any) -> Any:
        with inside(task_of(self, key)):
            return await original(self, key, *args, **kwargs)

    return execute


def _serve(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Schedulers and workers serve many programs, so nothing that they do belongs to the current scope.
        before = _context.current()
        _context.enter(None)
        try:
            return await original(self, *args, **kwargs)
        finally:
            _context.enter(before)

    return start


def _attribute_of_actor(original: Callable[..., Any]) -> Callable[..., Any]:
    def __getattr__(self: Any, name: str) -> Any:  # noqa: N807 - it replaces the method of this name
        found = original(self, name)
        text = text_here("Dask")
        if not text or not _is_remote(found):
            return found

        @functools.wraps(found)
        def call(*args: Any, separate_thread: bool = True, **kwargs: Any) -> Any:
            return found(*args, separate_thread=CallOfActor(separate_thread, text), **kwargs)

        return call

    return __getattr__


def _is_remote(found: Any) -> bool:
    """Whether an attribute of an actor is the function with which Dask calls a method on a worker."""
    return (
        inspect.isfunction(found)
        and hasattr(found, "__wrapped__")
        and found.__globals__.get("__name__") == "distributed.actor"
    )


PATCHES = [
    Patch("distributed.client", "Client._graph_to_futures", _graph_to_futures),
    Patch("distributed.client", "Client.run", _run),
    Patch("distributed.actor", "Actor.__getattr__", _attribute_of_actor),
    Patch("distributed.core", "Server.start", _serve),
    Patch("distributed.worker", "Worker.execute", _execute),
    # Dask has a copy of the standard library's pool.
    Patch("distributed._concurrent_futures_thread", "ThreadPoolExecutor.submit", submit_in_scope),
]
