"""A sink around a real one that fails, or is killed, at the n-th call to it: before or after the call took effect."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import wait_until
from tests.memory_store import Crash
from trackdsl.delivery.process._environments import Environments
from trackdsl.delivery.process._stores import open_store
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.delivery.store._sink import NewRun, Sink

#: What says nothing about the store, or must not fail.
_ALWAYS = ("close", "stale", "own_ids", "collects", "folds_keys", "files")


@dataclass
class Faults:
    """What to raise at the n-th call, and whether the call has done its work by then; counts the calls of all sinks."""

    at: dict[int, tuple[Callable[[str], BaseException], bool]] = field(default_factory=dict)
    calls: int = 0
    names: list[str] = field(default_factory=list)

    @contextmanager
    def around(self, name: str) -> Iterator[None]:
        self.calls += 1
        self.names.append(name)
        fault, done = self.at.get(self.calls, (None, False))
        if fault is not None and not done:
            raise fault(f"call {self.calls}: {name}")
        yield
        if fault is not None:
            raise fault(f"call {self.calls}: {name}")


class FailingSink:
    """Forwards calls to a sink, except those that a fault is planned for. Leaving `collecting` counts as a call."""

    def __init__(self, sink: Sink, faults: Faults) -> None:
        self._sink = sink
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._sink, name)
        if name in _ALWAYS:
            return found

        @functools.wraps(found)
        def call(*arguments: Any, **named: Any) -> Any:
            with self._faults.around(name):
                return found(*arguments, **named)

        return call

    def answers(self) -> bool:
        try:
            with self._faults.around("answers"):
                return self._sink.answers()
        except Unavailable:
            return False

    def create_runs(self, runs: list[NewRun], created: Callable[[NewRun], None]) -> None:
        """Each run is a call, and is noted after it."""
        for run in runs:
            made: list[NewRun] = []
            with self._faults.around("create_runs"):
                self._sink.create_runs([run], made.append)  # type: ignore[attr-defined]
            for each in made:
                created(each)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        collecting = self._sink.collecting()
        collecting.__enter__()
        try:
            yield
            ending = self._faults.around("the end of collecting")
            ending.__enter__()
        except BaseException as error:
            collecting.__exit__(type(error), error, error.__traceback__)
            raise
        collecting.__exit__(None, None, None)
        ending.__exit__(None, None, None)


def worker_of(spool: Path, uri: str, faults: Faults) -> Worker:
    """The worker of a delivery process, whose calls to the store may fail."""

    def open_it(_uri: str, cwd: str) -> Sink:
        sink: Any = FailingSink(open_store(uri, cwd, own=True), faults)
        return sink

    return Worker(spool, open_it, environments=Environments({}))


def deliver_with_faults(spool: Path, uri: str, faults: Faults) -> None:
    """Deliver everything; after a crash, a new worker continues."""
    worker = worker_of(spool, uri, faults)

    def is_over() -> bool:
        nonlocal worker
        try:
            return not worker.round() and worker.idle()
        except Crash:
            worker.close()
            worker = worker_of(spool, uri, faults)
            return False

    wait_until(is_over, "everything to be delivered")
    worker.close()
