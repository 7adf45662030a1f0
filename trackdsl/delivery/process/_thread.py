"""Delivery in a thread of the program: where no process can be started, and for tests."""

from __future__ import annotations

from pathlib import Path

from trackdsl._core import context as _context
from trackdsl.delivery.process._heartbeat_writer import HeartbeatWriter
from trackdsl.delivery.process._stores import open_store
from trackdsl.delivery.process._throttle import Throttle
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.store._sink import Sink
from trackdsl.errors import logger
from trackdsl.journal._spool import check_spool, take_lock


def serve(spool: Path) -> None:
    """Deliver as long as the program runs; the thread is a daemon."""
    _context.enter(None)  # It may be started inside a run, but belongs to none.
    try:
        check_spool(spool)
        lock = take_lock(spool, 0.5)
        if lock is None:
            return  # A delivery process already serves this spool.
        heartbeat = HeartbeatWriter(spool)
        worker = Worker(spool, _open_sink, heartbeat=heartbeat)
        throttle = Throttle(worker)
        try:
            while True:
                busy = worker.round()
                if not busy and worker.idle():
                    return
                throttle.wait(busy)
        finally:
            worker.close()
            heartbeat.close()
            lock.release()
    except OSError as error:
        logger.warning("trackdsl: nothing is delivered from the spool %s: %s", spool, error)
    except Exception:
        logger.exception("trackdsl: the delivery thread has ended; `trackdsl sync` delivers the rest")


def _open_sink(uri: str, cwd: str) -> Sink:
    return open_store(uri, cwd, own=False)
