"""How a run ends: one event, with a truthful status."""

from __future__ import annotations

import time
from collections.abc import Callable

from trackdsl._core import runtime
from trackdsl._core.events import Close, Failure, encode_safely
from trackdsl._core.handle import RunHandle
from trackdsl._core.ids import begins_with, prefix
from trackdsl._core.runtime import Phase
from trackdsl._runs import exceptions
from trackdsl.errors import format_error, logger, reraise_from_signal

_now = time.time_ns
#: `last` and `fn.last_run` keep an ended run. Its counters of children are dropped if they are more than this.
_MOST_NAMES_KEPT = 1000
#: The event that began a run is kept in memory after the end of the run, unless it has more bytes than this.
_REPEATED = 1 << 14

#: The functions that are called before a run ends, by the run's id. A `watch` writes its last values so, for example.
before_end: dict[bytes, list[Callable[[], object]]] = {}
#: Ends that could not be written because the stack was full, with status and time.
_unwritten: list[tuple[RunHandle, str, int]] = []
#: The statuses that were set for open runs, by their ids: a run ends with it unless an exception ends it. None for
#: runs that have ended early.
_chosen: dict[bytes, str | None] = {}


def call_before_end(run: RunHandle, call: Callable[[], object]) -> None:
    """Register a function that is called before a run ends."""
    before_end.setdefault(run.key, []).append(call)


def choose_status(run: RunHandle, status: str) -> None:
    """Set the status that a run ends with if no exception ends it."""
    if status in exceptions.STATUSES and run.is_open and _chosen.get(run.key, "") is not None:
        _chosen[run.key] = status


def end_early(run: RunHandle, status: str) -> None:
    """End a run before the block, call or session that it belongs to; see `Run.end`."""
    if run.is_open:
        _chosen[run.key] = None
    _call_before_end(run)
    _append_end(run, status, _now(), None)


def close_run(run: RunHandle, error: BaseException | None) -> None:
    """End a run, truthfully. A forked child leaves an inherited run open: the parent process ends it."""
    if not begins_with(run.key, prefix()):
        return
    if before_end:
        _call_before_end(run)
    status, failure = exceptions.FINISHED, None
    if _chosen:
        chosen = _chosen.pop(run.key, status)
        if chosen is None:
            return
        status = chosen
    try:
        if error is not None:
            status = exceptions.FAILED
            status, failure = exceptions.status_of(error), exceptions.describe(error)
        _append_end(run, status, _now(), failure)
    except RecursionError:
        # The stack is full. The end of an outer run, with a shorter stack, writes this one too.
        _unwritten.append((run, status, _now()))
    else:
        while _unwritten:
            _append_end(*_unwritten.pop(), None)


def end_run(run: RunHandle, status: str, ended: int) -> None:
    """End a run at an earlier time, in nanoseconds since 1970."""
    _append_end(run, status, ended, None)


def _call_before_end(run: RunHandle) -> None:
    for call in before_end.pop(run.key, ()):
        try:
            call()
        except Exception as error:
            reraise_from_signal(error)
            logger.warning("trackdsl: a callback at the end of %r failed: %s", run.path, format_error(error))


def _append_end(run: RunHandle, status: str, now: int, failure: Failure | None) -> None:
    # A run never ends before it began, even if the clock was set back.
    event = Close(run.key, status, max(now, run.began), failure, run.lost)
    if len(run.children) > _MOST_NAMES_KEPT:
        run.children = {}
    payload = encode_safely(event)
    target = run.target
    begun = target.open_runs.pop(run.key, None)
    if begun is not None and len(begun) < _REPEATED:
        target.ended.append((run.key, begun, payload))
    target.append(payload, run, True)


def _reset() -> None:
    for known in (before_end, _chosen, _unwritten):
        known.clear()


runtime.register("ends of runs", Phase.MEMORY, after_fork=_chosen.clear, reset=_reset)
