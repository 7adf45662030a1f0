"""The run as recorders see it: its id, where its events go, its names, and how an event is emitted.

The class `Run`, which users get, is in a higher layer than the recorders, and derives from `RunHandle`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from trackdsl._core.events import AnyEvent, encode_safely


class RunTarget(Protocol):
    """The destination of a run's events. The class `Target` of `journal` implements it, and documents each part."""

    uri: str
    cwd: str
    writer: Any
    unrecorded: int
    watch_at: int
    append: Callable[..., None]
    open_runs: dict[bytes, bytes]
    ended: deque[tuple[bytes, bytes, bytes]]

    @property
    def delivers(self) -> bool:
        """Whether what is recorded is delivered to MLflow."""

    @property
    def discards(self) -> bool:
        """Whether what is recorded is not kept."""

    def watch(self, now: int) -> None:
        """Check the journal and its delivery."""

    def new_file(self, name: str) -> tuple[Path, str]:
        """A path for the snapshot of an artifact, absolute and relative to the journal's folder of files."""


#: What only trackdsl's own modules use of a run. Completion offers none of it.
_INTERNAL = {
    "children",
    "detached",
    "emit",
    "is_open",
    "key",
    "lost",
    "next_index",
    "not_ended_here",
    "request_lookup",
    "target",
    "wait_for_mlflow",
}


class _RunType(type):
    """The type of the class `Run`, for completion: completers read the names of an object's classes too."""

    def __dir__(cls) -> list[str]:
        return [name for name in super().__dir__() if name not in _INTERNAL]


class RunHandle(metaclass=_RunType):
    """A run that is being recorded, without the methods for users.

    Args:
        key: the id of the run in the journal, 16 bytes.
        name: the run's name in MLflow.
        parent: the run around this one, or None.
        path: the names from the root down to this run, joined by `/`.
        experiment: the MLflow experiment it is in.
        target: where its events go.

    Attributes:
        lost: how many of its events could not be written.
        began: when it began, in nanoseconds since 1970; 0 where another process began it.
        children: how many children of each name it has had.
    """

    __slots__ = (
        "__weakref__",
        "began",
        "children",
        "experiment",
        "key",
        "lost",
        "name",
        "parent",
        "path",
        "target",
    )

    def __init__(
        self,
        key: bytes,
        name: str,
        parent: RunHandle | None,
        path: str,
        experiment: str | None,
        target: RunTarget,
    ) -> None:
        self.key = key
        self.lost = 0
        self.began = 0
        self.children: dict[str, itertools.count[int]] = {}
        self.target = target
        self.name = name
        self.parent = parent
        self.path = path
        self.experiment = experiment

    @property
    def id(self) -> str:
        """trackdsl's own id of this run, known at once; MLflow has it as tag `trackdsl.id`."""
        return self.key.hex()

    @property
    def run_id(self) -> str:
        """MLflow's id of this run."""
        raise NotImplementedError

    @property
    def is_open(self) -> bool:
        """Whether this process has begun the run, or continues it, and has not ended it."""
        return self.key in self.target.open_runs

    def emit(self, event: AnyEvent, *, vital: bool = False) -> None:
        """Append an event of the run to the journal. The hottest paths do the same without this call.

        Args:
            event: the event.
            vital: the event is written to the reserve where the disk is full.
        """
        self.target.append(encode_safely(event), self, vital)

    def next_index(self, name: str) -> int:
        """The number of earlier children or sections of this run that are called `name`."""
        counter = self.children.get(name)
        if counter is None:
            counter = self.children.setdefault(name, itertools.count())
        return next(counter)

    def wait_for_mlflow(self, timeout: float | None = None) -> Any:
        """Wait until the run exists at MLflow; `Run` says more."""
        raise NotImplementedError

    def detached(self, name: str, target: RunTarget) -> RunHandle:
        """A new run of the same kind outside the tree, whose events go to another target."""
        raise NotImplementedError
