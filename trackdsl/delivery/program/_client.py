"""The program's side of delivery: starting the delivery process, and waiting for it."""

from __future__ import annotations

import contextlib
import contextvars
import errno
import importlib
import os
import sys
import threading
import time
from collections.abc import Container
from pathlib import Path
from typing import Any

from trackdsl._config import resolve as settings
from trackdsl._core import runtime
from trackdsl._core.ids import prefix
from trackdsl._core.runtime import ForkSafeLock, Phase
from trackdsl.delivery.environment import of_child
from trackdsl.delivery.environment_pipe import hand_over
from trackdsl.errors import RunNotReady, report
from trackdsl.journal._allocation import advice
from trackdsl.journal._delivery_hooks import deliver_with
from trackdsl.journal._files import is_regular
from trackdsl.journal._lock import is_held
from trackdsl.journal._spool import LOCK, LOG, check_spool, wake
from trackdsl.journal._store_target import Target
from trackdsl.journal._target import check_all, known_targets, targets
from trackdsl.journal._waiters import Waiter
from trackdsl.journal._writer import Writer

_POLL = 0.02
#: The first pause while waiting for a single run, which usually exists within milliseconds.
_SHORT_POLL = 0.002
RESTART_AFTER = 2.0
_WAKE_AFTER = 5.0
_MAX_LOG = 1 << 20


def ensure_running(spool: Path) -> None:
    """Start the delivery process (or thread) of a spool, unless one is running."""
    if settings.delivery() == "process" and _process_runs(spool):
        return
    try:
        _start_thread(spool)
    except (OSError, RuntimeError) as error:  # Files or threads ran out, or Python is shutting down.
        report("delivery-thread", f"trackdsl cannot deliver from a thread ({error}): `trackdsl sync` does it later.")


def _process_runs(spool: Path) -> bool:
    """Start the delivery process unless one is running; False if none can be started."""
    from trackdsl.store_format.heartbeat import is_starting

    try:
        if is_held(spool / LOCK):
            hand_over(spool)
        elif not is_starting(spool):
            _start_process(spool)
        return True
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            # A process may be running already, and a thread would need descriptors too.
            report(
                "delivery-descriptors",
                f"trackdsl cannot reach its delivery process ({error}) and tries again; what is recorded is kept. "
                f"{advice(error)}",
            )
            return True
        report(
            "delivery",
            f"trackdsl cannot start its delivery process ({error}): it delivers from a thread of this program instead. "
            "Set TRACKDSL_DELIVERY=thread to choose that.",
        )
        return False


def flush(timeout: float | None = None) -> bool:
    """Wait until MLflow has everything that this process, and those started inside its runs, have recorded so far.

    If something recorded since the last `flush` is known to be lost, this returns False, and one warning says what:
    events that could not be written, a journal that was deleted or damaged, or what MLflow refused, such as everything
    for a run that was deleted there. A later `flush` returns True again, unless more is lost.

    Args:
        timeout: seconds to wait at most; None to wait as long as delivery is at work and the store answers.

    Returns:
        whether MLflow has all of it, and nothing was lost. False also offline, where nothing is delivered before
        `trackdsl sync`.

    Example:
        >>> flush(timeout=10)
        True
    """
    try:
        return _flush(timeout)
    except OSError as error:  # No descriptor is free, for example.
        report("flush", f"trackdsl cannot wait for delivery ({error}); what is recorded is kept. {advice(error)}")
        return False


def _flush(timeout: float | None) -> bool:
    check_all()
    used = [target for target in known_targets() if target.writer or target.unrecorded or target.deleted]
    if not used or settings.mode() == "disabled":
        return True
    from trackdsl.delivery.program._waiting import Wait

    writers = [target.writer for target in used if target.writer is not None]
    wait = Wait(writers, ensure_running, wake)
    arrived = wait.is_over() if settings.mode() == "offline" else wait.until_done(timeout, RESTART_AFTER)
    check_all()
    lost = _report_losses([writer.directory.parent.parent for writer in writers])
    return arrived and not lost


def _report_losses(spools: list[Path], *, unrecorded: bool = True) -> bool:
    """Report what is lost, once; returns whether anything was reported."""
    from trackdsl.delivery.program._new_losses import new_losses

    losses = new_losses(spools, unrecorded=unrecorded)
    if losses:
        # A key of its own each time: the same text may be about a new loss.
        more = f" See {spools[0] / LOG}." if spools else ""
        report("lost", f"trackdsl: part of what was recorded is lost: {losses}.{more}", key=str(time.monotonic_ns()))
    return bool(losses)


def wait_at_exit(writers: list[Writer]) -> None:
    """At the end of the program: wait as long as delivery is at work, then leave the rest to it."""
    if settings.mode() != "online":
        return
    try:
        _wait_at_exit(writers)
    except OSError as error:
        report(
            "left",
            f"trackdsl cannot wait for delivery ({error}). What is recorded is kept; `trackdsl sync` delivers it. "
            f"{advice(error)}",
        )


def _wait_at_exit(writers: list[Writer]) -> None:
    from trackdsl.delivery.program._waiting import Wait

    with contextlib.suppress(KeyboardInterrupt):
        wait = Wait(writers, ensure_running, wake, show=True)
        if not wait.until_done(None, RESTART_AFTER):
            wait.report()
        _report_losses([writer.directory.parent.parent for writer in writers], unrecorded=False)


def known_run_id(target: Target, id_: bytes) -> str | None:
    """MLflow's id of a new run, if it is known without waiting: where delivery writes change sets, it is ours.

    Args:
        target: the run's target.
        id_: our id of the run.
    """
    from trackdsl.store_format.known_runs import find_delivered
    from trackdsl.store_format.sinks import WITH_OWN_IDS, read_sink

    assert target.writer is not None
    directory = target.writer.directory
    delivered = find_delivered(directory, id_)
    if delivered is not None:
        return delivered.run_id
    sink = read_sink(directory.parent.parent, target.uri, target.cwd)
    return id_.hex() if sink is not None and sink.way in WITH_OWN_IDS else None


def find_run(target: Target, id_: bytes, timeout: float | None) -> Any:
    """MLflow's ids of a run; waits until the run is created.

    Args:
        target: the run's target.
        id_: our id of the run.
        timeout: seconds to wait at most; None to wait as long as its delivery runs and does not fail.

    Raises:
        RunNotReady: it was not created in time.
    """
    assert target.writer is not None
    with contextlib.closing(Waiter([target.writer.directory.parent.parent])) as waiter:
        return _awaited_run(target, id_, timeout, waiter)


def _awaited_run(target: Target, id_: bytes, timeout: float | None, waiter: Waiter) -> Any:
    from trackdsl.delivery.program._waiting import RunWatch
    from trackdsl.journal._spool import journals
    from trackdsl.store_format.known_runs import find_delivered

    assert target.writer is not None
    spool = target.writer.directory.parent.parent
    online = settings.mode() == "online"
    watch = RunWatch(target.writer, id_)
    give_up = time.monotonic() + (timeout or 0.0)
    next_wake, pause = 0.0, _SHORT_POLL
    while True:
        over = not online or (timeout is not None and time.monotonic() >= give_up)
        lost = watch.why_lost() if timeout is None else None
        # After `why_lost`: delivery writes down a run before it ends.
        for directory in [target.writer.directory, *journals(spool)]:
            run = find_delivered(directory, id_)
            if run is not None:
                return run
        if over or lost is not None:
            raise _not_ready(target.writer, id_, lost)
        if time.monotonic() >= next_wake:  # On a busy machine, delivery pauses unless a program wakes it.
            next_wake = time.monotonic() + _WAKE_AFTER
            wake(spool)
        now = time.time_ns()
        if now > target.watch_at:  # A delivery process takes its lock only after its start.
            target.watch(now)
        waiter.show()
        time.sleep(pause)
        pause = min(pause * 1.5, _POLL)


def _not_ready(writer: Writer, id_: bytes, reason: str | None) -> RunNotReady:
    from trackdsl.store_format.progress import read_progress

    if not reason:
        progress = read_progress(writer.directory)
        reason = progress.error if progress is not None else None
    if settings.mode() == "offline":
        reason = "the mode is offline, and `trackdsl sync` delivers what was recorded"
    why = (reason or "it was not delivered within the timeout").rstrip(".")
    return RunNotReady(
        f"run {id_.hex()} is not at MLflow yet: {why}. `trackdsl status` shows what is waiting.",
        run=id_.hex(),
        reason=reason,
    )


def ids_at_mlflow(target: Target, names: Container[str]) -> list[bytes]:
    """Our ids of this program's runs with these ids at MLflow, as far as delivery has created them."""
    from trackdsl.store_format.known_runs import read_runs

    assert target.writer is not None
    return [id_ for id_, run in read_runs(target.writer.directory) if run.run_id in names]


def _start_process(spool: Path) -> None:
    # The executable of a frozen program is the program itself, which would start itself again and again.
    if getattr(sys, "frozen", False) or not sys.executable or not os.path.exists(sys.executable):
        raise OSError(2, "this program has no Python executable to start a process with")
    from trackdsl.journal._origin import run_detached
    from trackdsl.store_format.heartbeat import mark_starting

    check_spool(spool)
    log = spool / LOG
    with contextlib.suppress(OSError):
        if log.lstat().st_size > _MAX_LOG:
            log.unlink()
    # The shell would wait for the reader of a FIFO, and would follow a link.
    log = log if is_regular(log) or not os.path.lexists(log) else Path(os.devnull)
    pid = run_detached(
        [sys.executable, "-W", "ignore", "-m", "trackdsl.delivery", str(spool), "--started-by", prefix().hex()],
        log=str(log),
        cwd=str(spool),
        env=of_child(),
    )
    mark_starting(spool, pid)


_threads: dict[Path, threading.Thread] = {}
_starting = ForkSafeLock()


def _start_thread(spool: Path) -> None:
    with _starting.current:
        thread = _threads.get(spool)
        if thread is not None and thread.is_alive():
            return
        from trackdsl.delivery.process._thread import serve

        _wait_before_shutdown()
        thread = threading.Thread(target=serve, args=(spool,), name="trackdsl-delivery", daemon=True)
        _threads[spool] = thread
        # Without a current run: the thread outlives the run that is current here.
        contextvars.Context().run(thread.start)


def _wait_before_shutdown() -> None:
    """Let the thread finish while Python can still start threads: at `atexit`, MLflow can no longer start its own."""
    register = getattr(threading, "_register_atexit", None)
    if register is None or _threads:
        return

    # Functions registered earlier run later. MLflow would import this module too late.
    importlib.import_module("concurrent.futures.thread")

    def wait() -> None:
        wait_at_exit([target.writer for target in targets() if target.writer is not None])

    register(wait)


# A thread does not exist in a forked child.
runtime.register("delivery threads", Phase.MEMORY, after_fork=_threads.clear)
# Here and not in the package: whatever records imports this module, and the delivery process and most commands do not.
deliver_with(start=ensure_running, wait=wait_at_exit)
