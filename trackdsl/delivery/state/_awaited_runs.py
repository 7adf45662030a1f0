"""Runs that the store was asked for and does not have yet: when it is asked again, and how long they are waited for.

The notes outlive the process, so that a wait goes on where it was after a restart.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from trackdsl._core.ids import prefix_of
from trackdsl.delivery._timing import timing
from trackdsl.delivery.state._ledger import Ledger
from trackdsl.delivery.store._errors import NotYet
from trackdsl.errors import logger
from trackdsl.store_format.ledger import AWAITED

#: How long an awaited run that does not come is remembered, in seconds.
_FORGET_AFTER = 7 * 86_400.0
#: The number of runs that are written down in the ledger at most.
_MOST = 10_000


@dataclass
class _LookUp:
    """When the store was asked for a run that it does not have, on the wall clock; `next` is on the monotonic clock."""

    first: float
    last: float = 0.0
    next: float = 0.0
    pause: float = 0.0


class AwaitedRuns:
    """The runs that journals of one store wait for.

    Args:
        ledger: where they are written down.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        now = time.time()
        noted = ledger.load(AWAITED, self._values)
        # Longer than the wait itself: a run that was given up must not be awaited again.
        known = {id_: min(first, now) for id_, first in noted.items() if now - first < 2 * _FORGET_AFTER}
        self._look_ups = {id_: _LookUp(first) for id_, first in known.items()}
        # Processes whose delivery made no progress for `Timing.other_process`.
        self._behind = {
            prefix_of(id_) for id_, asked in self._look_ups.items() if now - asked.first >= timing().other_process
        }

    def retry_now(self) -> None:
        """Ask the store again at once."""
        for asked in self._look_ups.values():
            asked.next = 0.0

    def is_due(self, id_: bytes) -> bool:
        """Whether it is time to ask the store for a run."""
        asked = self._look_ups.get(id_)
        return asked is None or time.monotonic() >= asked.next

    def mark_missing(self, id_: bytes, now: float) -> None:
        """Remember that the store was asked for a run and did not have it.

        Args:
            id_: our id of the run.
            now: when the store was asked, in seconds since 1970.
        """
        asked = self._look_ups.get(id_)
        if asked is None:
            asked = self._look_ups[id_] = _LookUp(now)
            self._write(id_, now)
        asked.last = now
        asked.first = min(asked.first, now)  # The clock may have been set back.
        # A run that has been missing for hours need not be asked for every few seconds.
        longest = max(timing().longest_search, (now - asked.first) / 10)
        asked.pause = min(max(asked.pause * 2, timing().first_retry), longest)
        asked.next = time.monotonic() + asked.pause

    def mark_present(self, id_: bytes) -> None:
        """Forget a run that the store has: the delivery of its process makes progress."""
        self._behind.discard(prefix_of(id_))
        self.forget(id_)

    def forget(self, id_: bytes) -> None:
        """A run is not awaited any more."""
        if self._look_ups and self._look_ups.pop(id_, None) is not None:
            self._write(id_, None)

    def is_outdated(self, id_: bytes) -> bool:
        """Whether a run has been awaited for so long that it is not remembered any more."""
        return time.time() - self._look_ups[id_].first >= _FORGET_AFTER

    def wait_for(self, id_: bytes, at: int) -> None:
        """Return if a run was awaited for long enough.

        Args:
            id_: our id of the run.
            at: when the event that refers to it was recorded, in nanoseconds since 1970.

        Raises:
            NotYet: it was not.
        """
        asked = self._look_ups[id_]
        waited = asked.last - asked.first
        # As of the last answer: a run that came later is not missing.
        if waited >= timing().other_process:
            self._behind.add(prefix_of(id_))
        recorded = at / 1e9 if at / 1e9 <= time.time() else asked.first
        if prefix_of(id_) in self._behind and asked.last - recorded >= timing().missing_run:
            return
        raise NotYet(
            f"run {id_.hex()} is not at MLflow yet; another machine delivers it, and events that refer to it wait "
            f"for up to {timing().other_process:.0f} s",
            pause=max(asked.next - time.monotonic(), 0.0),
            blocks=waited >= timing().missing_run,
        )

    def _write(self, id_: bytes, first: float | None) -> None:
        try:
            self._ledger.write([AWAITED.change(id_, first)])
        except OSError as error:
            # Without the entry, the next process waits again from the beginning.
            logger.warning("trackdsl cannot write the list of runs that it waits for: %s", error)

    def _values(self) -> Iterator[tuple[bytes, float]]:
        for id_, asked in list(self._look_ups.items())[-_MOST:]:
            yield id_, asked.first
