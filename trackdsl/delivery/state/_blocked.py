"""Blocked runs: they cannot be created or written now, although the store works.

An experiment may be deleted, or this user may not write to it; or a request makes the server or our code fail every
time. If the whole store is unreachable, everything waits. Otherwise only the run is blocked: its events go to
`HeldEvents`, and delivery tries them again at intervals, in order, also after a restart. The journal's ledger lists
these runs with the reasons for `trackdsl status`; nothing else depends on that.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator

from trackdsl._core.redaction import mask_text
from trackdsl.delivery._timing import timing
from trackdsl.delivery.state._ledger import Ledger
from trackdsl.delivery.store._errors import Denied, Refused, RunBlocked, Unavailable, deleted_experiment
from trackdsl.delivery.store._sink import Sink
from trackdsl.errors import format_error, logger
from trackdsl.store_format.blocked_runs import BlockedRun
from trackdsl.store_format.ledger import BLOCKED

#: A run is blocked after this many equal failures, while the store answers other requests.
_ENOUGH_FAILURES = 3
_LONGEST_PAUSE = 60.0
#: The same if a run waits for a blocked run of another journal: checking that costs nothing.
_LONGEST_PAUSE_FOR_OTHERS = 5.0
_LONGEST_REASON = 1000
#: Errors that concern the machine, not a run.
_OF_THE_MACHINE = (errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EROFS)


class BlockedRuns:
    """The blocked runs of one journal.

    Args:
        ledger: the journal's ledger.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        noted = ledger.load(BLOCKED, self._values)
        self._runs = {id_: BlockedRun(id_.hex(), *value) for id_, value in noted.items()}
        self._failures: dict[bytes, tuple[str, int]] = {}
        self._reported = {run.reason for run in self._runs.values()}
        self._waiting_for_others: set[bytes] = set()
        #: Runs whose notes are not written yet.
        self._changed: dict[bytes, None] = {}
        self._pause = timing().first_retry
        self._next_try = 0.0

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._runs

    def ids(self) -> list[bytes]:
        """Our ids of the blocked runs."""
        return list(self._runs)

    def why(self, id_: bytes) -> str:
        """Why a run is blocked; empty if it is not."""
        run = self._runs.get(id_)
        return "" if run is None else run.reason

    @property
    def reason(self) -> str:
        """A short text that says which runs are blocked, and why; empty if there are none."""
        if not self._runs:
            return ""
        first = next(iter(self._runs.values()))
        more = f" and {len(self) - 1} more" if len(self) > 1 else ""
        return f"run {first.run}{_called(first.name)}{more} blocked: {first.reason}"

    def judge(self, sink: Sink, id_: bytes, error: Exception) -> str | None:
        """Why to block a run after an error, or None if its store or the machine is the cause.

        Args:
            sink: the store.
            id_: our id of the run that could not be created or written.
            error: the error.
        """
        if isinstance(error, RunBlocked):
            if error.waits:
                self._waiting_for_others.add(id_)
            return str(error)
        if isinstance(error, Denied):
            return str(error) if sink.answers() else None
        if isinstance(error, Unavailable) and not error.answered:
            return None
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            return None
        kind, count = self._failures.get(id_, ("", 0))
        count = count + 1 if kind == type(error).__name__ else 1
        self._failures[id_] = type(error).__name__, count
        if count < _ENOUGH_FAILURES:
            return None
        if not sink.answers():
            del self._failures[id_]
            return None
        expected = isinstance(error, (Unavailable, Refused))
        return str(error) if expected else f"its delivery fails every time: {mask_text(format_error(error))}"

    def add(self, id_: bytes, name: str, reason: str) -> None:
        """Block a run, or update the reason."""
        reason = reason[:_LONGEST_REASON].encode("utf-8", "replace").decode()
        before = self._runs.get(id_)
        run = BlockedRun(id_.hex(), name or (before.name if before is not None else ""), reason)
        if run == before:
            return
        if before is None:
            self._postpone()
        if reason not in self._reported:
            self._reported.add(reason)
            logger.warning(
                "trackdsl: run %s%s is blocked until it can be delivered; other runs are delivered: %s",
                run.run,
                _called(run.name),
                reason,
            )
        self._runs[id_] = run
        self._changed[id_] = None

    def remove(self, id_: bytes) -> None:
        """Forget a run that is delivered, or dropped."""
        if self._runs.pop(id_, None) is not None:
            self._changed[id_] = None
        self._failures.pop(id_, None)
        self._waiting_for_others.discard(id_)

    def delivered(self) -> None:
        """Forget earlier failures of runs that are delivered now."""
        if self._failures:
            self._failures = {id_: failure for id_, failure in self._failures.items() if id_ in self._runs}

    def due(self) -> bool:
        """Whether it is time to try them again."""
        return bool(self._runs) and time.monotonic() >= self._next_try

    def next_try(self) -> float:
        """In how many seconds they are tried again."""
        return max(self._next_try - time.monotonic(), 0.0)

    def tried(self) -> None:
        """All were tried just now, and that some still cannot be delivered."""
        longest = _LONGEST_PAUSE_FOR_OTHERS if self._waiting_for_others else _LONGEST_PAUSE
        self._pause = min(2 * self._pause, longest)
        self._postpone()

    def retry_now(self) -> None:
        """Try the blocked runs again at once."""
        self._next_try = 0.0

    def save(self) -> None:
        """Write the blocked runs to the ledger, for `trackdsl status`."""
        if not self._changed:
            return
        changed, self._changed = self._changed, {}
        if not self._runs:
            self._pause = timing().first_retry
        try:
            self._ledger.write(BLOCKED.change(id_, self._value(id_)) for id_ in changed)
        except OSError as error:
            logger.warning("trackdsl cannot write the list of blocked runs: %s", error)

    def _value(self, id_: bytes) -> tuple[str, str] | None:
        run = self._runs.get(id_)
        return None if run is None else (run.name, run.reason)

    def _values(self) -> Iterator[tuple[bytes, tuple[str, str]]]:
        for id_, run in self._runs.items():
            yield id_, (run.name, run.reason)

    def _postpone(self) -> None:
        self._next_try = time.monotonic() + self._pause


def check_experiment(sink: Sink, experiment_id: str, error: Refused) -> None:
    """If a request was refused because the experiment is deleted, let the run wait: a user may restore the experiment.

    Raises:
        RunBlocked: it is deleted.
    """
    try:
        deleted = sink.experiment_is_deleted(experiment_id)
    except Refused:  # It is deleted for good.
        return
    if deleted:
        raise RunBlocked(f"{deleted_experiment(experiment_id, experiment_id)} ({error})", experiment=True) from None


def _called(name: str) -> str:
    return f" ({name!r})" if name else ""
