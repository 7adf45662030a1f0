"""The priority of a delivery process: below that of programs while they compute, the normal one while one waits.

An ordinary user can never raise a priority again, but on Linux each thread has its own. So there are two threads for
the rounds of delivery, of which only one has the low priority; they never run at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

#: Of 19. While MLflow is imported and makes its tables, which takes seconds, delivery gets a third of a program's share
#: of the CPUs. Later it gets a fifteenth; on machines with few and busy cores, a tenth.
_NICENESS_OF_THE_START = 5
_NICENESS = 12
_AUTOGROUP = Path("/proc/self/autogroup")


class Priority:
    """Calls functions at the priority that suits the moment.

    Args:
        is_awaited: whether a program waits for delivery; None for the normal priority at all times.
        watch: called in the thread with the low priority, once.
    """

    def __init__(self, is_awaited: Callable[[], bool] | None, watch: Callable[[], object]) -> None:
        self._is_awaited = is_awaited
        self._watch = watch
        self._niceness = _NICENESS_OF_THE_START
        self._autogroup: int | None = None
        self._work: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self._results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, work: Callable[[], T]) -> T:
        """Call a function, and return its result."""
        if self._is_awaited is None:
            return work()
        if sys.platform != "linux":  # The whole process has one priority.
            self._lower()
            return work()
        if self._is_awaited():
            self._set_autogroup(0)
            return work()
        self._set_autogroup(self._niceness)
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="trackdsl-rounds", daemon=True)
            self._thread.start()
        self._work.put(work)
        result, error = self._results.get()
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def lower(self) -> None:
        """Lower the priority after the start."""
        self._niceness = _NICENESS

    def _serve(self) -> None:
        self._watch()
        while True:
            work = self._work.get()
            self._lower()
            try:
                result: tuple[Any, BaseException | None] = work(), None
            except BaseException as error:
                result = None, error
            self._results.put(result)

    def _lower(self) -> None:
        """Lower the priority of the calling thread."""
        with contextlib.suppress(OSError):
            niceness = os.nice(0)
            if niceness < self._niceness:
                os.nice(self._niceness - niceness)

    def _set_autogroup(self, niceness: int) -> None:
        # A session of its own may be a scheduling group of its own, and niceness has an effect only within a group.
        # That of a group can be reduced again.
        if niceness != self._autogroup:
            self._autogroup = niceness
            with contextlib.suppress(OSError):
                _AUTOGROUP.write_text(str(niceness))
