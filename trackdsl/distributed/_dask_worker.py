"""What happens in a Dask worker: it enters the context of each task, and of each call of an actor's method."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from trackdsl._core.ids import begins_with, prefix
from trackdsl._core.redaction import mask_text
from trackdsl.distributed._contexts import Context
from trackdsl.distributed._patching import opened
from trackdsl.distributed._task_context import Task, inside
from trackdsl.errors import format_error, logger, reraise_from_signal
from trackdsl.journal import _target

#: The annotation of a task that holds its context, and the one that counts its attempts, from the second on.
CONTEXT = "trackdsl"
ATTEMPT = "trackdsl_attempt"

_NOTHING = Context(None)
_WORKER = "distributed.worker"


def current_task() -> Task | None:
    """The task of a Dask worker that this code runs in."""
    try:
        worker = sys.modules[_WORKER].get_worker()
        key = worker.get_current_task()
    except (ValueError, KeyError, AttributeError):
        return None
    # The worker has imported trackdsl during this very task; the next one finds everything in place.
    follow()
    return task_of(worker, key)


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


def task_of(worker: Any, key: Any, text: str | None = None) -> Task:
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


def _actor_handler(worker: Any, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def actor_execute(actor: Any = None, kwargs: dict[str, Any] | None = None, **rest: Any) -> Any:
        call = (kwargs or {}).get("separate_thread")
        text = None
        if isinstance(call, CallOfActor):
            kwargs, text = {**(kwargs or {}), "separate_thread": call.separately}, call.text
        with inside(task_of(worker, actor, text)):
            return await original(actor=actor, kwargs=kwargs, **rest)

    actor_execute.trackdsl = True  # type: ignore[attr-defined]
    return actor_execute
