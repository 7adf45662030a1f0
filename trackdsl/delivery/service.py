"""The delivery process: one for each machine and spool. It ends a moment after everything is delivered."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TextIO

from trackdsl._core.redaction import mask_prose
from trackdsl._server.http import bound_requests
from trackdsl.delivery._children import GAVE_UP, Children, follow_parent
from trackdsl.delivery._sink import UPLOAD_TIMEOUT, Sink
from trackdsl.delivery._throttle import Throttle
from trackdsl.delivery._worker import Worker
from trackdsl.delivery.environment import Environments, Handed, Pipe, current, hand_over
from trackdsl.errors import logger
from trackdsl.journal._lock import FileLock
from trackdsl.journal._spool import LOG, check_spool, take_lock
from trackdsl.store_format.servers import LOCAL, lock_of, note_answer

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"

_LINGER = 3.0
#: Of 19. While MLflow is imported and makes its tables, which takes seconds that programs wait for, delivery gets a
#: third of a program's share of the processors. Later it gets a fifteenth; on machines with few and busy cores, a
#: tenth.
_NICENESS_OF_THE_START = 5
_NICENESS = 12
#: How long to keep trying a store that does not answer, in seconds, if no program is running.
_PATIENCE = 900.0

#: MLflow's own retries could hang for minutes, and repeat requests that were carried out. PostgreSQL's client would
#: wait forever for a server that accepts the connection and does not answer.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "PGCONNECT_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
}


def open_sink(uri: str, cwd: str) -> Sink:
    """The sink of a tracking URI, in a process that belongs to delivery."""
    from trackdsl.delivery._mlflow import MlflowSink

    return MlflowSink(uri, cwd, own=True)


def import_mlflow() -> None:
    """Import MLflow, if it is not imported yet."""
    importlib.import_module("mlflow")


class _Opening:
    """Opens sinks, and reports when MLflow has been imported, which takes seconds."""

    def __init__(self, note: Callable[[], None]) -> None:
        self._note = note

    def __call__(self, uri: str, cwd: str) -> Sink:
        import_mlflow()
        self._note()
        return open_sink(uri, cwd)


def main(spool: Path, started_by: str = "") -> None:
    """Deliver until nothing is left; exits with 1 if the spool is not safe from other users.

    Args:
        spool: the spool's folder.
        started_by: the prefix of the ids of the program that started this process, in hexadecimal.
    """
    prepare_environment()
    starter = Handed(started_by, current())
    log_to(sys.stderr)
    try:
        check_spool(spool)
    except OSError as error:
        logger.error("trackdsl: nothing is delivered from the spool %s: %s", spool, error)
        sys.exit(1)
    _lower_priority(_NICENESS_OF_THE_START)
    stop = Stop()
    while not stop:
        # Programs test the lock by taking it for an instant, so try for a moment.
        lock = take_lock(spool, 0.5)
        if lock is None:
            hand_over(spool, starter)
            return
        service = Service(spool, starter)
        try:
            _serve(service, stop, lock, gives_way=True)
            is_valid = lock.is_current()
        finally:
            # In this order: the children must end before the next process can start its own.
            service.close()
            lock.release()
        # A program that saw the lock held a moment ago relies on this last check.
        if not is_valid or service.idle() or not service.living():
            return


def serve_server(spool: Path, server: str, only: Collection[Path] | None, *, foreground: bool) -> None:
    """Deliver to one remote server, as a child of the delivery process, until nothing is left for it.

    Args:
        spool: the spool's folder.
        server: see `server_of`.
        only: see `Service`.
        foreground: see `Service`.
    """
    prepare_environment()
    log_to(sys.stderr)
    stop = Stop()
    noted = partial(note_answer, spool, server)
    opened = _Opening(noted)
    worker = Worker(spool, opened, server=server, environments=Environments(ENVIRONMENT), only=only)
    follow_parent(worker.environments.take, stop.ask)
    lock: FileLock | None = None
    while lock is None and not stop:
        # A child of an earlier process may still be in a request; it ends in a moment.
        lock = take_lock(spool, 0.5, lock_of(spool, server).name)
    if lock is None:
        return
    bound_requests(on_answer=noted)
    gave_up = False
    try:
        gave_up = not _serve(worker, stop, lock, gives_way=not foreground)
    finally:
        worker.close()
        lock.release()
    sys.exit(GAVE_UP if gave_up else 0)


class Service:
    """Delivery from a spool: to local stores by this process, and to each remote server by a child process.

    Args:
        spool: the spool's folder.
        starter: the program that started this process, with its environment.
        only: the journals to deliver; None for all, including those of later programs.
        foreground: whether a user is waiting, so that delivery does not give way to programs.

    Attributes:
        worker: delivers to local stores.
    """

    def __init__(
        self, spool: Path, starter: Handed, only: Collection[Path] | None = None, *, foreground: bool = False
    ) -> None:
        self._pipe = Pipe(spool)
        opening = _Opening(partial(note_answer, spool, LOCAL))
        self.worker = Worker(spool, opening, server=LOCAL, environments=Environments(ENVIRONMENT), only=only)
        self._children = Children(spool, spool / LOG, only, foreground=foreground)
        self._take(starter)

    @property
    def woken_at(self) -> float:
        """See `Worker`."""
        return self.worker.woken_at

    @property
    def expects_more(self) -> bool:
        """See `Worker`."""
        return self.worker.expects_more

    def woken(self) -> bool:
        """See `Worker`."""
        return self.worker.woken()

    def round(self) -> bool:
        """Deliver a stretch to local stores, and supervise the children; False if nothing was delivered here."""
        for handed in self._pipe.read():
            self._take(handed)
        woken = self.worker.woken()
        busy = self.worker.round()
        self._children.supervise(self.worker.others(), woken=woken)
        return busy

    def _take(self, handed: Handed) -> None:
        self.worker.environments.take(handed)
        self._children.hand_over(handed)

    def idle(self) -> bool:
        """Whether nothing is left that can be delivered now."""
        if not self.worker.idle() or self._children.alive():
            return False
        return set(self.worker.others()) <= self._children.given_up()

    def at_work(self) -> bool:
        """Whether a child delivers; it ends by itself."""
        return self._children.alive()

    def living(self) -> bool:
        """Whether a program writes to one of the journals."""
        return self.worker.living()

    def close(self) -> None:
        """End the children, and close all files."""
        self._pipe.close()
        self._children.stop()
        self.worker.close()


class Stop:
    """Set by SIGTERM: the current stretch is finished first."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def ask(self) -> None:
        """Request the end."""
        self._asked = True

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.ask()

    def __bool__(self) -> bool:
        return self._asked


def _serve(service: Service | Worker, stop: Stop, lock: FileLock, *, gives_way: bool) -> bool:
    """Deliver until nothing is left (True) or nothing more can be delivered (False)."""
    throttle = Throttle(service, lambda: bool(stop))
    last_work = time.monotonic()
    starting = gives_way
    # After the spool was removed, another one may exist at its path, with its own delivery process.
    while not stop and lock.is_current():
        busy = service.round()
        if busy or service.at_work():
            last_work = time.monotonic()
        if busy and starting:
            starting = False
            _lower_priority(_NICENESS)
        quiet = time.monotonic() - last_work
        if quiet > _LINGER and service.idle():
            return True
        if quiet > _PATIENCE and not service.living():
            logger.warning("trackdsl: delivery stops for now; the next program or `trackdsl sync` continues")
            return False
        throttle.wait(busy)
    return True


def _lower_priority(niceness: int) -> None:
    """Lower the priority of this process below that of programs.

    Args:
        niceness: of this process; only root may reduce it later.
    """
    with contextlib.suppress(OSError):
        os.nice(max(0, niceness - os.nice(0)))
    # On Linux, a session of its own is a scheduling group of its own, and niceness has an effect only within a group.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(niceness))


def prepare_environment() -> None:
    """Prepare this process for delivery, before MLflow is imported; never call it in a user's program."""
    os.environ.setdefault(UPLOAD_TIMEOUT, os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "0"))
    os.environ.update(ENVIRONMENT)
    # These variables are for processes that the program starts, not for this one.
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "TRACKDSL_CONTEXT"):
        os.environ.pop(name, None)


class MaskingFormatter(logging.Formatter):
    """Masks secrets in everything that trackdsl or MLflow logs."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, with secrets masked."""
        return mask_prose(super().format(record))


def log_to(stream: TextIO) -> None:
    """Write the warnings of this process to a stream, with secrets masked."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(MaskingFormatter(LOG_FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
