"""The delivery process: one per machine and spool, gone a moment after nothing is left."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TextIO

from trackdsl._secrets import mask_prose
from trackdsl.delivery._pace import Pace
from trackdsl.delivery._sink import UPLOAD_TIMEOUT, Sink
from trackdsl.delivery._worker import Worker
from trackdsl.errors import logger
from trackdsl.journal._lock import FileLock
from trackdsl.journal._spool import LOCK, check_spool

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"

_LINGER = 3.0
#: Of 19. A third of the share of a program while MLflow is imported and makes its tables, which is seconds of work
#: that runs are waited for; then a fifteenth, and on machines with few cores, all of them busy, still a tenth of one.
_NICENESS_OF_THE_START = 5
_NICENESS = 12
_NAP = 0.02
#: How long to go on trying a store that does not answer, when no program is alive that could have more to say.
_PATIENCE = 900.0

#: MLflow's own retries would hang for minutes, and repeat requests that may already have been carried out.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
}


def open_sink(uri: str, cwd: str) -> Sink:
    """The sink of a tracking URI, in a process that belongs to delivery."""
    from trackdsl.delivery._mlflow import MlflowSink

    return MlflowSink(uri, cwd, own=True)


def take_lock(spool: Path, patience: float) -> FileLock | None:
    """The lock of the spool's one deliverer, or None where somebody else keeps it for `patience` seconds."""
    lock = FileLock(spool / LOCK)
    give_up = time.monotonic() + patience
    while True:
        # Whoever has removed the file, and with it the spool, has not removed the lock: it would be held by two.
        if lock.acquire():
            if lock.stands():
                return lock
            lock.release()
        if time.monotonic() >= give_up:
            return None
        time.sleep(_NAP)


def main(spool: Path) -> None:
    """Deliver until nothing is left; ends the process with 1 where the spool is not safe from other users."""
    prepare_environment()
    log_to(sys.stderr)
    try:
        check_spool(spool)
    except OSError as error:
        logger.error("trackdsl: nothing is delivered from the spool %s: %s", spool, error)
        sys.exit(1)
    _give_way(_NICENESS_OF_THE_START)
    stop = _Stop()
    while not stop:
        # Programs only look whether the lock is held, which takes it for an instant: hence the patience.
        lock = take_lock(spool, 0.5)
        if lock is None:
            return
        worker = Worker(spool, open_sink)
        try:
            _serve(worker, stop, lock)
            stands = lock.stands()
        finally:
            lock.release()
            worker.close()
        # A program that looked while the lock was still held relies on this last glance.
        if not stands or worker.idle() or not worker.living():
            return


class _Stop:
    """Set by SIGTERM: the stretch in hand is finished first."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def __bool__(self) -> bool:
        return self._asked


def _serve(worker: Worker, stop: _Stop, lock: FileLock) -> None:
    pace = Pace(worker, lambda: bool(stop))
    last_work = time.monotonic()
    starting = True
    # Where the spool has been removed, another one may be there by now, with a deliverer of its own.
    while not stop and lock.stands():
        busy = worker.round()
        if busy:
            last_work = time.monotonic()
        if busy and starting:
            starting = False
            _give_way(_NICENESS)
        quiet = time.monotonic() - last_work
        if quiet > _LINGER and worker.idle():
            return
        if quiet > _PATIENCE and not worker.living():
            logger.warning("trackdsl: delivery gives up for now; the next program or `trackdsl sync` goes on")
            return
        pace.rest(busy)


def _give_way(niceness: int) -> None:
    """Let programs go first.

    Args:
        niceness: of this process; it is never lowered, which only root may do.
    """
    with contextlib.suppress(OSError):
        os.nice(max(0, niceness - os.nice(0)))
    # On Linux a session of its own is a group of its own, and niceness counts within a group alone.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(niceness))


def prepare_environment() -> None:
    """Make this process one that delivers: before MLflow is imported, and never in a user's program."""
    os.environ.setdefault(UPLOAD_TIMEOUT, os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "0"))
    os.environ.update(ENVIRONMENT)
    # What the program handed over to those that it starts is not meant for this one.
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "TRACKDSL_CONTEXT"):
        os.environ.pop(name, None)


class MaskingFormatter(logging.Formatter):
    """Takes secrets out of whatever is logged, by us or by MLflow."""

    def format(self, record: logging.LogRecord) -> str:
        return mask_prose(super().format(record))


def log_to(stream: TextIO) -> None:
    """Send the warnings of this process to a stream, with secrets masked."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(MaskingFormatter(LOG_FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
