"""What happens in a Dask worker: it enters the context of each task, and of each call of an actor's method."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from trackdsl._core.ids import begins_with, prefix
from trackdsl._core.patching import opened
from trackdsl._core.redaction import mask_text
from trackdsl.distributed._contexts import Context
from trackdsl.distributed._task_context import Task, inside
from trackdsl.errors import format_error, logger, reraise_from_signal
from trackdsl.journal import _delivery_hooks
from trackdsl.store_format.tags import ATTEMPT_TAG, TASK_TAG

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
    # This task has made the worker import trackdsl. From the next task on, the plugin in the worker enters the context.
    follow()
    return task_of(worker, key)


def follow() -> None:
    """Keep the patches installed for good if workers live in this process: their tasks open and close many scopes.

    It never raises. If this version of Dask is not as expected, it is left unchanged.
    """
    with contextlib.suppress(Exception):
        for worker in list(sys.modules[_WORKER].Worker._instances):
            opened(_WORKER)
            handler = worker.handlers["actor_execute"]
            if not hasattr(handler, "trackdsl"):
                worker.handlers["actor_execute"] = _actor_handler(worker, handler)


def task_of(worker: Any, key: Any, text: str | None = None) -> Task:
    """A task as the worker knows it: its context, its key, and the number of its attempt."""
    tags = {}
    try:
        tags[TASK_TAG] = mask_text(str(key))
        known = worker.state.tasks.get(key)
        annotations = (None if known is None else known.annotations) or {}
        text = text or annotations.get(CONTEXT)
        if text:  # Attempts are only counted for tasks with a context.
            tags[ATTEMPT_TAG] = str(annotations.get(ATTEMPT, 1))
            return Task(_received(text), tags)
    except Exception as error:
        reraise_from_signal(error)
        logger.warning(
            "trackdsl cannot find out which run submitted this task, so its runs begin as roots: %s",
            format_error(error),
        )
    return Task(_NOTHING, tags)


def _received(text: str) -> Context:
    context = Context.from_text(text)
    if _delivery_hooks.waits_at_exit() and _is_from_same_host(context):
        _delivery_hooks.leave_delivery_to_parent()
    return context


def _is_from_same_host(context: Context) -> bool:
    """Whether another process of this machine submitted the task, as with a `LocalCluster` of processes."""
    wire = context._wire
    return wire is not None and wire.host == os.uname().nodename and not begins_with(bytes.fromhex(wire.run), prefix())


class CallOfActor:
    """Replaces the argument `separate_thread` of an actor's method, which Dask removes. It brings the context.

    Args:
        separately: the value of that argument.
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
