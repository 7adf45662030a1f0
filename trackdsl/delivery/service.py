"""The delivery process: one for each machine and spool. It ends a moment after everything is delivered."""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TextIO

from trackdsl._core.redaction import mask_prose
from trackdsl.delivery.environment import ENVIRONMENT, ProgramEnvironment, current, prepare_environment
from trackdsl.delivery.environment_pipe import Pipe, hand_over
from trackdsl.delivery.process._children import GAVE_UP, Children, follow_parent
from trackdsl.delivery.process._environments import Environments
from trackdsl.delivery.process._heartbeat_writer import HeartbeatWriter
from trackdsl.delivery.process._priority import Priority
from trackdsl.delivery.process._stores import open_store
from trackdsl.delivery.process._throttle import Throttle
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.store._sink import Sink
from trackdsl.errors import logger
from trackdsl.journal._lock import FileLock
from trackdsl.journal._spool import LOG, check_spool, take_lock
from trackdsl.journal._waiters import is_awaited
from trackdsl.store_format.heartbeat import IMPORTING, TABLES
from trackdsl.store_format.servers import LOCAL, lock_of
from trackdsl.store_format.sinks import write_sink

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"

_LINGER = 3.0
#: How long to keep trying a store that does not answer, in seconds, if no program is running.
_PATIENCE = 900.0


def open_sink(uri: str, cwd: str) -> Sink:
    """The sink of a tracking URI, in a process that belongs to delivery."""
    return open_store(uri, cwd, own=True)


def import_mlflow() -> None:
    """Import MLflow, if it is not imported yet."""
    importlib.import_module("mlflow")


class _Opening:
    """Opens sinks, and says what takes seconds."""

    def __init__(self, spool: Path, heartbeat: HeartbeatWriter) -> None:
        self._spool = spool
        self._heartbeat = heartbeat

    def __call__(self, uri: str, cwd: str) -> Sink:
        noted = partial(write_sink, self._spool, uri, cwd)
        tables = partial(self._heartbeat.during, TABLES)
        return open_store(uri, cwd, own=True, before_import=self._import, making_tables=tables, note=noted)

    def _import(self) -> None:
        with self._heartbeat.during(IMPORTING):
            import_mlflow()


def main(spool: Path, started_by: str = "") -> None:
    """Deliver until nothing is left; exits with 1 if the spool is not safe from other users.

    Args:
        spool: the spool's folder.
        started_by: the prefix of the ids of the program that started this process, in hexadecimal.
    """
    prepare_environment()
    starter = ProgramEnvironment(started_by, current())
    log_to(sys.stderr)
    try:
        check_spool(spool)
    except OSError as error:
        logger.error("trackdsl: nothing is delivered from the spool %s: %s", spool, error)
        sys.exit(1)
    stop = Stop()
    while not stop:
        # Programs test the lock by taking it for an instant, so try for a moment.
        lock = take_lock(spool, 0.5)
        if lock is None:
            hand_over(spool, starter)
            return
        service = Service(spool, starter)
        try:
            _serve(service, service.round, service.priority, stop, lock)
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
    environments = Environments(ENVIRONMENT)
    follow_parent(environments.take, stop.ask)
    lock: FileLock | None = None
    while lock is None and not stop:
        # A child of an earlier process may still be in a request; it ends in a moment.
        lock = take_lock(spool, 0.5, lock_of(spool, server).name)
    if lock is None:
        return
    from trackdsl._server.http import bound_requests  # It imports `requests`, which databases do not need.

    heartbeat = HeartbeatWriter(spool, server)
    bound_requests(on_answer=heartbeat.step)
    worker = Worker(
        spool, _Opening(spool, heartbeat), server=server, environments=environments, only=only, heartbeat=heartbeat
    )
    priority = _priority(spool, heartbeat, foreground=foreground)
    gave_up = False
    try:
        gave_up = not _serve(worker, partial(priority.call, worker.round), priority, stop, lock)
    finally:
        worker.close()
        heartbeat.close()
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
        priority: of the rounds.
    """

    def __init__(
        self,
        spool: Path,
        starter: ProgramEnvironment,
        only: Collection[Path] | None = None,
        *,
        foreground: bool = False,
    ) -> None:
        self._spool = spool
        self._pipe = Pipe(spool)
        self._heartbeat = HeartbeatWriter(spool)
        self.priority = _priority(spool, self._heartbeat, foreground=foreground)
        opening, environments = _Opening(spool, self._heartbeat), Environments(ENVIRONMENT)
        self.worker = Worker(
            spool, opening, server=LOCAL, environments=environments, only=only, heartbeat=self._heartbeat
        )
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

    def awaited(self) -> bool:
        """See `Worker`."""
        return self.worker.awaited()

    def round(self) -> bool:
        """Deliver a stretch to local stores, and supervise the children; False if nothing was delivered here."""
        for handed in self._pipe.read():
            self._take(handed)
        woken = self.worker.woken()
        busy = self.priority.call(self.worker.round)
        # By this thread, whose priority the children inherit.
        self._children.supervise(self.worker.others(), woken=woken)
        return busy

    def _take(self, handed: ProgramEnvironment) -> None:
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
        self._heartbeat.close()


class Stop:
    """Set by SIGTERM: the current stretch is finished first."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def ask(self) -> None:
        """Request the end of the delivery process."""
        self._asked = True

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.ask()

    def __bool__(self) -> bool:
        return self._asked


def _priority(spool: Path, heartbeat: HeartbeatWriter, *, foreground: bool) -> Priority:
    return Priority(None if foreground else partial(is_awaited, spool), heartbeat.watch)


def _serve(
    service: Service | Worker, round_: Callable[[], bool], priority: Priority, stop: Stop, lock: FileLock
) -> bool:
    """Deliver until nothing is left (True) or nothing more can be delivered (False)."""
    throttle = Throttle(service, lambda: bool(stop))
    last_work = time.monotonic()
    # After the spool was removed, another one may exist at its path, with its own delivery process.
    while not stop and lock.is_current():
        busy = round_()
        if busy or service.at_work():
            last_work = time.monotonic()
        if busy:
            priority.lower()
        quiet = time.monotonic() - last_work
        if quiet > _LINGER and service.idle():
            return True
        if quiet > _PATIENCE and not service.living():
            logger.warning("trackdsl: delivery stops for now; the next program or `trackdsl sync` continues")
            return False
        throttle.wait(busy)
    return True


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
