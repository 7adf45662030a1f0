"""Reads of a store by the program: they wait, within limits, until the program's own records are delivered."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from trackdsl._config import resolve as settings
from trackdsl._core import runtime
from trackdsl._core.runtime import Phase
from trackdsl.delivery._timing import timing
from trackdsl.delivery.program._client import RESTART_AFTER, ensure_running
from trackdsl.delivery.program._waiting import Wait, is_descendant
from trackdsl.journal._origin import Origin, read_origin
from trackdsl.journal._spool import JOURNALS, wake
from trackdsl.journal._writer import Writer
from trackdsl.store_format.progress import read_progress

#: The same if the store did not answer delivery at its last attempt.
_PATIENCE_BLOCKED = 2.0
#: After a read timed out, no other read waits for this time unless delivery makes progress.
_SKIP_FOR = 60.0

#: The position up to which each journal of this process was delivered at the last check.
_delivered: dict[Path, tuple[int, int]] = {}
#: The origins of the other journals of a spool, by their folders; None for those of unrelated programs.
_others: dict[str, Origin | None] = {}
#: By store, after a read timed out: until when no other read waits, and the progress of delivery at that time.
_timed_out: dict[str, tuple[float, object]] = {}


def wait_for_delivery(store: str, writers: list[Writer], counts: Callable[[Origin], bool]) -> bool:
    """Wait until a store has what this process, and those that it started, recorded for it; returns whether it has.

    Args:
        store: a name of the store.
        writers: of this process's journals for the store.
        counts: whether a process records to the store, by its origin.
    """
    if not (_waits(writers) or _others_wait(writers, counts)):
        return True
    if settings.mode() != "online":
        return False
    wait = Wait(writers, ensure_running, wake, counts=counts)
    if wait.is_over():
        return True
    until, state = _timed_out.get(store, (0.0, None))
    if time.monotonic() < until and wait.state() == state:
        return False
    if wait.until_done(
        _PATIENCE_BLOCKED if wait.is_blocked() else timing().read, RESTART_AFTER, while_progressing=True
    ):
        _timed_out.pop(store, None)
        return True
    if not wait.has_only_deferred():
        _timed_out[store] = (time.monotonic() + _SKIP_FOR, wait.state())
    return False


def _waits(writers: list[Writer]) -> bool:
    """Whether part of this process's own journals is not delivered."""
    for writer in writers:
        end = writer.position()
        if _delivered.get(writer.directory) == end:
            continue
        progress = read_progress(writer.directory)
        if progress is None or progress.position < end or progress.deferred:
            return True
        for gone in [directory for directory in list(_delivered) if not directory.is_dir()]:
            _delivered.pop(gone, None)
        _delivered[writer.directory] = end
    return False


def _others_wait(writers: list[Writer], counts: Callable[[Origin], bool]) -> bool:
    """Whether journals of processes exist that this one started; delivery removes them when they are delivered."""
    own = {str(writer.directory) for writer in writers}
    present: set[str] = set()
    for folder in {os.path.dirname(directory) for directory in own}:
        assert os.path.basename(folder) == JOURNALS
        try:
            present.update(os.path.join(folder, name) for name in os.listdir(folder))
        except OSError:
            continue
    for gone in _others.keys() - present:
        _others.pop(gone, None)
    for directory in present - own - _others.keys():
        origin = read_origin(Path(directory))
        _others[directory] = origin if origin is not None and is_descendant(origin) else None
    return any(origin is not None and counts(origin) for origin in list(_others.values()))


def _after_fork() -> None:
    _others.clear()
    _timed_out.clear()


def _reset() -> None:
    _delivered.clear()
    _after_fork()


runtime.register("what earlier reads knew about delivery", Phase.MEMORY, after_fork=_after_fork, reset=_reset)
