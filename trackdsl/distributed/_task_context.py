"""Tasks of cluster engines: the run that a task belongs to.

If possible, the engine runs a task `inside` its context. Otherwise, for example if the task itself imports trackdsl,
`_engines.current_task` asks the engine when a run begins without a scope.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import NamedTuple

from trackdsl._config.state import state
from trackdsl._core import context as _context
from trackdsl._core.context import Scope, TaskScope
from trackdsl._core.patching import closed, opened
from trackdsl.distributed._contexts import Context
from trackdsl.errors import format_error, logger, reraise_from_signal

_NONE: Mapping[str, str] = MappingProxyType({})


class Task(NamedTuple):
    """The task of a cluster that this code runs in.

    Attributes:
        context: the context in which it was submitted; empty if no run was current.
        tags: the tags of runs that begin in it: `trackdsl.task`, the engine's name of the task, and
            `trackdsl.attempt`, which counts from 1.
    """

    context: Context
    tags: Mapping[str, str] = _NONE


_here: ContextVar[Task | None] = ContextVar("trackdsl_task", default=None)


class inside:  # noqa: N801 - it is used as a function: `with inside(task)`
    """Run a task in the scope that submitted it, or in none. The scope of the worker's thread does not matter.

    It never raises, as the user's task should run. If the context cannot be entered, the task belongs to no run.

    Args:
        task: the task.
    """

    __slots__ = ("_before", "_scope", "_task", "_task_before")

    def __init__(self, task: Task) -> None:
        self._task = task
        self._scope: Scope | None = None

    def __enter__(self) -> None:
        task = self._task
        self._before, self._task_before = _context.current(), _here.get()
        if not state.disabled:
            try:
                scope = task.context.scope()
                if scope is not None:
                    self._scope = TaskScope(scope.run, None, self, scope.step, task.tags)
                    opened(self)
            except Exception as error:
                reraise_from_signal(error)
                logger.warning(
                    "trackdsl cannot enter %r, so runs begin as roots: %s", task.context, format_error(error)
                )
        _context.enter(self._scope)
        _here.set(task)

    def __exit__(self, *_: object) -> None:
        if self._scope is not None:
            closed(self)
        _context.enter(self._before)
        _here.set(self._task_before)


def task_inside() -> Task | None:
    """The task that this code runs `inside`; None without one."""
    return _here.get()
