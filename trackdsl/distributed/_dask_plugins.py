"""What runs in Dask's scheduler and workers.

The scheduler alone knows how often a task was begun when workers come and go; workers have to know trackdsl before a
task that calls plain MLflow and nothing of ours.
"""

from __future__ import annotations

from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin

from trackdsl.distributed._dask_worker import ATTEMPT, CONTEXT, follow
from trackdsl.distributed._sending import by_value


class Attempts(SchedulerPlugin):  # type: ignore[misc] # Dask has no types
    """Writes into the annotations of a task, which go to the worker, which attempt the next one is."""

    name = "trackdsl-attempts"
    idempotent = True

    def __init__(self) -> None:
        self._scheduler: Any = None

    async def start(self, scheduler: Any) -> None:
        """Begin to count."""
        self._scheduler = scheduler

    def transition(self, key: Any, start: str, finish: str, *_: Any, **__: Any) -> None:
        """A task that ran, or whose result is lost, and that is not done: should it run again, that is another time."""
        if finish != "memory" and start in ("processing", "memory"):
            task = self._scheduler.tasks.get(key)
            if task is not None and task.annotations and CONTEXT in task.annotations:
                task.annotations = {**task.annotations, ATTEMPT: task.annotations.get(ATTEMPT, 1) + 1}


class Arrival(WorkerPlugin):  # type: ignore[misc] # Dask has no types
    """Has each worker import trackdsl, where it can, before its next task."""

    name = "trackdsl-arrival"
    idempotent = True

    def setup(self, worker: Any) -> None:  # noqa: ARG002 - Dask gives it by name
        """Stand around the tasks of this worker."""
        follow()

    def __reduce__(self) -> tuple[Any, ...]:
        return by_value(_arrive), ()


def _arrive() -> Any:
    try:
        from trackdsl.distributed._dask_plugins import Arrival

        return Arrival()
    except Exception:
        from distributed.diagnostics.plugin import WorkerPlugin

        return WorkerPlugin()
