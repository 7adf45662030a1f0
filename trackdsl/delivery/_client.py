"""The program's side: starting the delivery process, and waiting for what it has delivered."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackdsl import settings
from trackdsl.errors import RunNotReady, report
from trackdsl.journal._lock import is_held
from trackdsl.journal._writer import Writer

if TYPE_CHECKING:
    from trackdsl._target import Target
    from trackdsl.delivery._progress import Progress

_POLL = 0.02
#: How long exit waits for a delivery that shows no progress, in seconds: a server answers within milliseconds, but
#: MLflow takes seconds to import and to set up a new database.
_EXIT_PATIENCE = 20.0
_EXIT_PATIENCE_SERVER = 4.0
_SHOW_AFTER = 1.0
_RESTART_AFTER = 2.0
_MAX_LOG = 1 << 20

Position = tuple[int, int]


def ensure_running(spool: Path) -> None:
    """Start the delivery process (or thread) of a spool, unless one is at work."""
    if settings.delivery() == "process" and _process_runs(spool):
        return
    try:
        _start_thread(spool)
    except (OSError, RuntimeError) as error:  # No more files or threads, or none this late.
        report("delivery-thread", f"trackdsl cannot deliver from a thread ({error}): `trackdsl sync` does it later.")


def _process_runs(spool: Path) -> bool:
    """Start the delivery process unless one is at work; False where none can be started."""
    try:
        if not is_held(spool / "delivery.lock"):
            _start_process(spool)
        return True
    except OSError as error:
        report(
            "delivery",
            f"trackdsl cannot start its delivery process ({error}): it delivers from a thread of this program instead. "
            "Set TRACKDSL_DELIVERY=thread to choose that.",
        )
        return False


def flush(timeout: float | None = None) -> bool:
    """Wait until everything recorded so far is at MLflow.

    Args:
        timeout: seconds to wait at most; None to wait as long as delivery comes forward.

    Returns:
        whether all of it is there. False also offline, where nothing is delivered before `trackdsl sync`.

    Example:
        >>> flush(timeout=10)
        True
    """
    from trackdsl._target import targets

    writers = [target.writer for target in targets() if target.writer is not None]
    if not writers or settings.mode() == "disabled":
        return True
    if settings.mode() == "offline":
        return all(_is_delivered(writer, writer.position()) for writer in writers)
    return _Wait(writers).until_done(timeout)


def wait_at_exit(writers: list[Writer]) -> None:
    """At the end of the program: wait for delivery while it comes forward, and leave the rest to it."""
    if settings.mode() != "online":
        return
    with contextlib.suppress(KeyboardInterrupt):
        wait = _Wait(writers, show=True)
        if not wait.until_done(None):
            for writer in writers:
                wait.tell(writer)


def find_run(target: Target, id_: bytes, timeout: float) -> Any:
    """MLflow's ids of a run, waiting for it to be created.

    Raises:
        RunNotReady: it was not created in time.
    """
    from trackdsl.delivery._progress import read_progress
    from trackdsl.delivery._runs import read_runs
    from trackdsl.journal._spool import journals

    give_up = time.monotonic() + (timeout if settings.mode() == "online" else 0)
    assert target.writer is not None
    spool = target.writer.directory.parent.parent
    wake(spool)
    while True:
        for directory in [target.writer.directory, *journals(spool)]:
            for known, run in read_runs(directory):
                if known == id_:
                    return run
        if time.monotonic() >= give_up:
            progress = read_progress(target.writer.directory)
            reason = progress.error if progress is not None else None
            raise RunNotReady(
                f"run {id_.hex()} does not exist at MLflow yet: {reason or 'it was not delivered in time'}. "
                "`trackdsl status` shows what is waiting.",
                run=id_.hex(),
                reason=reason,
            )
        target.watch(time.time_ns())
        time.sleep(_POLL)


class _Wait:
    """Waiting for the delivery of some journals up to where they are now."""

    def __init__(self, writers: list[Writer], *, show: bool = False) -> None:
        self._goals = [(writer, writer.position()) for writer in writers]
        # A failure that was noted before may be over: only one that is noted from now on counts.
        self._counts = {writer: state.count for writer in writers if (state := _progress_of(writer)) is not None}
        self._show = show
        self._bar: Any = None
        self._next_start = 0.0

    def until_done(self, timeout: float | None) -> bool:
        """Wait; returns whether everything has arrived."""
        started = changed = time.monotonic()
        seen: object = None
        self._wake()
        try:
            while True:
                left = [(writer, goal) for writer, goal in self._goals if not _is_delivered(writer, goal)]
                if not left:
                    return True
                now = time.monotonic()
                states = [_progress_of(writer) for writer, _ in left]
                # Runs are made one by one before a stretch of events counts as delivered.
                state = [
                    s and (s.segment, s.offset, s.intent, s.deferred, _runs_size(writer))
                    for s, (writer, _) in zip(states, left, strict=True)
                ]
                if state != seen:
                    seen, changed = state, now
                if timeout is not None and now - started >= timeout:
                    return False
                if timeout is None and self._hopeless(left, states, now - changed):
                    return False
                self._restart(now)
                if self._show and now - started > _SHOW_AFTER:
                    self._draw(left, states)
                time.sleep(_POLL)
        finally:
            if self._bar is not None:
                self._bar.close()

    def tell(self, writer: Writer) -> None:
        """One line on what is left behind, and why."""
        if not _is_delivered(writer, writer.position()):
            state = _progress_of(writer)
            blocked = state is not None and state.blocked_since
            why = state.error.partition("\n")[0] if state and blocked else "delivery goes on in the background"
            report(
                "left", f"trackdsl: not everything is at MLflow yet ({why}). It is kept; `trackdsl sync` delivers it."
            )

    def _hopeless(self, left: list[tuple[Writer, Position]], states: list[Progress | None], quiet: float) -> bool:
        if all(
            state is None or state.deferred or (state.blocked_since and state.count > self._counts.get(writer, 0))
            for (writer, _), state in zip(left, states, strict=True)
        ):
            return True
        from trackdsl._process import read_origin

        origins = [read_origin(writer.directory) for writer, _ in left]
        server = all(origin is not None and origin.uri.startswith("http") for origin in origins)
        started = any(state is not None and (state.events or state.intent_offset) for state in states)
        return quiet > (_EXIT_PATIENCE_SERVER if server and started else _EXIT_PATIENCE)

    def _restart(self, now: float) -> None:
        if now >= self._next_start:
            self._next_start = now + _RESTART_AFTER
            for spool in {writer.directory.parent.parent for writer, _ in self._goals}:
                ensure_running(spool)

    def _wake(self) -> None:
        for writer, _ in self._goals:
            wake(writer.directory.parent.parent)

    def _draw(self, left: list[tuple[Writer, Position]], states: list[Progress | None]) -> None:
        from trackdsl.delivery._backlog import bytes_between

        open_ = sum(
            bytes_between(w.directory, s.position, goal)
            for (w, goal), s in zip(left, states, strict=True)
            if s is not None
        )
        if self._bar is None:
            from tqdm import tqdm

            if not sys.stderr.isatty():
                sys.stderr.write("trackdsl: waiting for the delivery to MLflow (Ctrl-C leaves it to the background)\n")
            self._bar = tqdm(
                total=open_, desc="trackdsl: delivering to MLflow", unit="B", unit_scale=True, leave=False, disable=None
            )
        self._bar.update(self._bar.total - open_ - self._bar.n)


def wake(spool: Path) -> None:
    """Ask the worker of a spool to try again now what it has put off."""
    with contextlib.suppress(OSError):
        (spool / "wake").touch()


def _progress_of(writer: Writer) -> Progress | None:
    from trackdsl.delivery._progress import read_progress

    return read_progress(writer.directory)


def _is_delivered(writer: Writer, goal: Position) -> bool:
    progress = _progress_of(writer)
    # Delivery removes no journal whose program lives, so one that cannot be read is not known to be delivered.
    return progress is not None and progress.position >= goal and not progress.deferred


def _runs_size(writer: Writer) -> int:
    try:
        return (writer.directory / "runs").stat().st_size
    except OSError:
        return 0


def _start_process(spool: Path) -> None:
    # A frozen program's executable is the program itself: it would start itself again and again.
    if getattr(sys, "frozen", False) or not sys.executable or not os.path.exists(sys.executable):
        raise OSError(2, "this Python has no interpreter of its own to start")
    from trackdsl._process import run_detached

    log = spool / "delivery.log"
    with contextlib.suppress(OSError):
        if log.stat().st_size > _MAX_LOG:
            log.unlink()
    package = str(Path(__file__).resolve().parents[2])
    environment = dict(os.environ)
    path = [package, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    run_detached(
        [sys.executable, "-W", "ignore", "-m", "trackdsl.delivery", str(spool)],
        log=str(log),
        cwd=str(spool),
        env=environment,
    )


_threads: dict[Path, threading.Thread] = {}
_starting = threading.Lock()


def _start_thread(spool: Path) -> None:
    with _starting:
        thread = _threads.get(spool)
        if thread is not None and thread.is_alive():
            return
        from trackdsl.delivery._thread import serve

        _wait_before_shutdown()
        thread = threading.Thread(target=serve, args=(spool,), name="trackdsl-delivery", daemon=True)
        _threads[spool] = thread
        thread.start()


def _wait_before_shutdown() -> None:
    """Let the thread finish while Python can still start threads: `atexit` is too late for MLflow's own."""
    register = getattr(threading, "_register_atexit", None)
    if register is None or _threads:
        return

    # Registered before ours, so it ends thread pools after us; MLflow would import it too late.
    importlib.import_module("concurrent.futures.thread")

    def wait() -> None:
        from trackdsl._target import targets

        wait_at_exit([target.writer for target in targets() if target.writer is not None])

    register(wait)


def _after_fork() -> None:
    global _starting
    _starting = threading.Lock()
    _threads.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
