"""Waits for what delivery writes to a root run a moment after its end: what changed, and the program's content."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Collection
from pathlib import Path

from trackdsl._core.terminal import at_terminal
from trackdsl.errors import logger
from trackdsl.journal import _spool_choice
from trackdsl.store_format.heartbeat_monitor import HeartbeatMonitor
from trackdsl.store_format.root_runs import awaiting_changes
from trackdsl.store_format.servers import folder_of, server_of

_POLL = 0.05
#: When a wait is shown, in seconds.
_SHOW_AFTER = 0.5
#: How long to wait: in all, as the delivery of other programs comes first; without a process; and while the process
#: does nothing for these runs, as after a fault of the store. In seconds.
_LONGEST, _WITHOUT_PROCESS, _WITHOUT_WORK = 30.0, 0.3, 5.0


class AwaitedChanges:
    """The root runs of a store whose changes are still to be written.

    Args:
        uri: the store, absolute.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._spool: Path | None = None
        with contextlib.suppress(OSError, RuntimeError):  # Without a spool, nothing waits.
            self._spool = _spool_choice.named_path()

    def ids(self) -> set[str]:
        """MLflow's ids of these runs."""
        return set() if self._spool is None else awaiting_changes(folder_of(self._spool, server_of(self._uri)))

    def wait(self, runs: Collection[str]) -> None:
        """Wait until the changes of some runs are written, as long as a delivery process is at work.

        Args:
            runs: MLflow's ids of root runs that have ended.
        """
        left = self.ids().intersection(runs)
        if not left or self._spool is None:
            return
        monitor = HeartbeatMonitor([(self._spool, self._uri)])
        begun = lived = time.monotonic()
        shown = False
        while left:
            now = time.monotonic()
            monitor.update(progressed=False)
            if monitor.runs or monitor.prepares:
                lived = now
            quiet = now - lived > _WITHOUT_PROCESS or now - monitor.worked > _WITHOUT_WORK
            if quiet or now - begun > _LONGEST:
                logger.info("trackdsl: what changed in %s is not written yet", ", ".join(sorted(left)))
                return
            if not shown and now - begun > _SHOW_AFTER:
                shown = True
                _show()
            time.sleep(_POLL)
            left = self.ids().intersection(runs)


def _show() -> None:
    if at_terminal():
        sys.stderr.write("trackdsl: waiting until delivery has written what changed in the program …\n")
        sys.stderr.flush()
