"""Dask: a task belongs to the run that submitted it.

Functions are handed to Dask as they are, so that keys, purity and caching stay what they were. The context travels as
an annotation, which Dask keeps with each task through retries and from worker to worker; the worker enters it around
the task.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

from trackdsl._core import context as _context
from trackdsl._core.ids import begins_with, prefix
from trackdsl._core.redaction import mask_text
from trackdsl.distributed._contexts import Context, InScope, attach
from trackdsl.distributed._patching import Patch, opened
from trackdsl.distributed._sending import text_here
from trackdsl.distributed._task_context import Task, inside
from trackdsl.distributed._threads import _submit
from trackdsl.errors import format_error, logger, reraise_from_signal
from trackdsl.journal import _target

#: The annotation of a task that holds its context, and the one that counts its attempts, from the second on.
CONTEXT = "trackdsl"
ATTEMPT = "trackdsl_attempt"

_NOTHING = Context(None)
_WORKER = "distributed.worker"
#: How long a first task waits for a scheduler that does not answer, in seconds.
_PATIENCE = 5.0
#: Clients whose scheduler counts attempts.
_counted: weakref.WeakSet[Any] = weakref.WeakSet()


def current_task() -> Task | None:
    """The task of a Dask worker that this code runs in."""
    try:
        worker = sys.modules[_WORKER].get_worker()
        key = worker.get_current_task()
    except (ValueError, KeyError, AttributeError):
        return None
    # The worker has imported trackdsl during this very task; the next one finds everything in place.
    follow()
    return _task(worker, key)


def follow() -> None:
    """Let the patches stand for good where workers live in this process: their tasks come and go with many scopes.

    It never raises: the engine is left alone where it is another than expected.
    """
    with contextlib.suppress(Exception):
        for worker in list(sys.modules[_WORKER].Worker._instances):
            opened(_WORKER)
            handler = worker.handlers["actor_execute"]
            if not hasattr(handler, "trackdsl"):
                worker.handlers["actor_execute"] = _actor_handler(worker, handler)


def _task(worker: Any, key: Any, text: str | None = None) -> Task:
    """What the worker knows of a task: its context, its key, and how often it was begun before."""
    tags = {}
    try:
        tags["trackdsl.task"] = mask_text(str(key))
        known = worker.state.tasks.get(key)
        annotations = (None if known is None else known.annotations) or {}
        text = text or annotations.get(CONTEXT)
        if text:  # Without a context nobody has counted.
            tags["trackdsl.attempt"] = str(annotations.get(ATTEMPT, 1))
            return Task(_received(text), tags)
    except Exception as error:
        reraise_from_signal(error)
        logger.warning("trackdsl cannot tell whose task this is, so its runs begin as roots: %s", format_error(error))
    return Task(_NOTHING, tags)


def _received(text: str) -> Context:
    context = Context.from_text(text)
    if _target.waits_at_exit() and _is_of_neighbour(context):
        _target.leave_delivery_to_parent()
    return context


def _is_of_neighbour(context: Context) -> bool:
    """Whether another process of this machine has submitted: a `LocalCluster`, and not one that lives in it."""
    carried = context._carried
    return (
        carried is not None
        and carried.host == os.uname().nodename
        and not begins_with(bytes.fromhex(carried.run), prefix())
    )


def _graph_to_futures(original: Callable[..., Any]) -> Callable[..., Any]:
    """What `submit`, `map`, `compute`, `persist` and `get` have in common."""

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
    """Have the scheduler count attempts: nobody else knows them when a worker dies."""
    if client in _counted:
        return
    _counted.add(client)

    async def register() -> None:
        from trackdsl.distributed._dask_scheduler import Arrival, Attempts

        for plugin, missed in (
            (Attempts(), "count the attempts of Dask's tasks"),
            (Arrival(), "prepare Dask's workers"),
        ):
            try:
                await client.register_plugin(plugin, name=plugin.name)
            except Exception as error:
                reraise_from_signal(error)
                logger.warning("trackdsl cannot %s: %s", missed, format_error(error))

    with contextlib.suppress(Exception):
        if client.asynchronous:
            client.loop.add_callback(register)
        else:  # Before its first task, so that none is missed; only an event loop cannot wait.
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
        with inside(_task(self, key)):
            return await original(self, key, *args, **kwargs)

    return execute


def _serve(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Schedulers and workers serve whoever comes: what they do from here on belongs to no scope.
        before = _context.current()
        _context.enter(None)
        try:
            return await original(self, *args, **kwargs)
        finally:
            _context.enter(before)

    return start


class CallOfActor:
    """Stands for the argument `separate_thread` of an actor's method, which Dask takes out; it brings the context.

    Args:
        separately: what was given for that argument.
        text: the context of the call.
    """

    def __init__(self, separately: bool, text: str) -> None:
        self.separately = separately
        self.text = text
        follow()

    def __bool__(self) -> bool:
        return self.separately

    def __reduce__(self) -> tuple[Any, ...]:
        return CallOfActor, (self.separately, self.text)


def _attribute_of_actor(original: Callable[..., Any]) -> Callable[..., Any]:
    def __getattr__(self: Any, name: str) -> Any:  # noqa: N807 - the name of what it stands for
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
    """Whether it is the function by which Dask calls a method elsewhere, and not a value, nor the method itself."""
    return (
        inspect.isfunction(found)
        and hasattr(found, "__wrapped__")
        and found.__globals__.get("__name__") == "distributed.actor"
    )


def _actor_handler(worker: Any, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def actor_execute(actor: Any = None, kwargs: dict[str, Any] | None = None, **rest: Any) -> Any:
        call = (kwargs or {}).get("separate_thread")
        text = None
        if isinstance(call, CallOfActor):
            kwargs, text = {**(kwargs or {}), "separate_thread": call.separately}, call.text
        with inside(_task(worker, actor, text)):
            return await original(actor=actor, kwargs=kwargs, **rest)

    actor_execute.trackdsl = True  # type: ignore[attr-defined]
    return actor_execute


PATCHES = [
    Patch("distributed.client", "Client._graph_to_futures", _graph_to_futures),
    Patch("distributed.client", "Client.run", _run),
    Patch("distributed.actor", "Actor.__getattr__", _attribute_of_actor),
    Patch("distributed.core", "Server.start", _serve),
    Patch(_WORKER, "Worker.execute", _execute),
    # Dask has a copy of the standard library's pool.
    Patch("distributed._concurrent_futures_thread", "ThreadPoolExecutor.submit", _submit),
]
