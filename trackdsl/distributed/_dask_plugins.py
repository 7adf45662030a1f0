"""Plugins for Dask's scheduler and workers.

Only the scheduler knows how often a task has been started, as workers come and go. Workers have to import trackdsl
before tasks that only call plain MLflow.
"""

from __future__ import annotations

from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin

from trackdsl.distributed._dask_worker import ATTEMPT, CONTEXT, follow
from trackdsl.distributed._sending import by_value


class Attempts(SchedulerPlugin):  # type: ignore[misc] # Dask has no types
    """Writes the number of the next attempt into the annotations of a task, which go to the worker."""

    name = "trackdsl-attempts"
    idempotent = True

    def __init__(self) -> None:
        self._scheduler: Any = None

    async def start(self, scheduler: Any) -> None:
        """Start counting."""
        self._scheduler = scheduler

    def transition(self, key: Any, start: str, finish: str, *_: Any, **__: Any) -> None:
        """Count one more attempt if a task failed, or its result was lost: it may run again."""
        if finish != "memory" and start in ("processing", "memory"):
            task = self._scheduler.tasks.get(key)
            if task is not None and task.annotations and CONTEXT in task.annotations:
                task.annotations = {**task.annotations, ATTEMPT: task.annotations.get(ATTEMPT, 1) + 1}


class ImportTrackdsl(WorkerPlugin):  # type: ignore[misc] # Dask has no types
    """Makes each worker import trackdsl, if it can, before its next task."""

    name = "trackdsl-import"
    idempotent = True

    def setup(self, worker: Any) -> None:  # noqa: ARG002 - Dask gives it by name
        """Follow the tasks of this worker."""
        follow()

    def __reduce__(self) -> tuple[Any, ...]:
        return by_value(_import_trackdsl), ()


def _import_trackdsl() -> Any:
    try:
        from trackdsl.distributed._dask_plugins import ImportTrackdsl

        return ImportTrackdsl()
    except Exception:
        from distributed.diagnostics.plugin import WorkerPlugin

        return WorkerPlugin()
