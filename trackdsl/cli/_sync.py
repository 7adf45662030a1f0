"""`trackdsl sync`: delivers in the foreground, or waits for the delivery process that delivers already.

The progress is read from files of the journals, so it makes no difference which process delivers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Collection, Iterator
from io import TextIOWrapper
from pathlib import Path

import click

from trackdsl.cli._delivery_targets import DeliveryTargets
from trackdsl.cli._hosts import other_hosts, summary
from trackdsl.cli._journals import WAY_OUT, spool_for
from trackdsl.cli._status import is_delivering, size, unmade, why_not_delivered
from trackdsl.cli._wrapping import wrapped
from trackdsl.delivery.environment import ProgramEnvironment, current, prepare_environment
from trackdsl.delivery.environment_pipe import hand_over, is_taken
from trackdsl.delivery.service import LOG_FORMAT, MaskingFormatter, Service
from trackdsl.journal._files import open_regular
from trackdsl.journal._lock import FileLock
from trackdsl.journal._spool import LOG, take_lock, wake
from trackdsl.journal._waiters import Waiter
from trackdsl.store_format import losses as _losses
from trackdsl.store_format.journals import Journal, read_journals
from trackdsl.store_format.losses import Losses
from trackdsl.store_format.root_runs import left

#: How long to wait for the note of what changed in a run, for its report and for its trace, in seconds.
_PAGES_PATIENCE = 10.0
#: The same while another process does it: of a large tree, one report may take so long on a busy machine.
_PAGES_ELSEWHERE = 60.0
_NAP = 0.05
#: Programs take the lock for an instant to see whether another process holds it.
_LOCK_PATIENCE = 0.5
_WAKE_EVERY = 1.0
#: How many seconds the delivery process may take to read an environment, and to pass it on to its children.
_TAKEN_WITHIN = 5.0
_PASSED_ON_WITHIN = 0.5
_INTERRUPTED = 130


def run(named: Path | None, timeout: float) -> None:
    """Deliver everything in a spool, and exit with 1 if something is left or lost.

    Args:
        named: the spool; the one in use by default.
        timeout: give up after this many seconds without progress.
    """
    spool = spool_for(named)
    done = deliver(spool, timeout)
    hosts = other_hosts(spool)
    if hosts:
        click.echo(f"{summary(hosts)}.")
    if not done:
        sys.exit(1)


def deliver(
    spool: Path, timeout: float, only: Collection[Path] | None = None, *, command: str = "trackdsl sync"
) -> bool:
    """Deliver what is in a spool, and print the result; returns whether nothing is left and nothing was lost.

    Args:
        spool: the spool.
        timeout: give up after this many seconds without progress.
        only: the journals to deliver; all by default.
        command: the command that the user can run again if something is left.
    """
    before = _losses.read(spool)
    found = [
        journal for journal in read_journals(spool) if journal.waits and (only is None or journal.directory in only)
    ]
    if not found:
        _deliver_pages(spool, only)
        return True
    targets = DeliveryTargets([journal for journal in found if journal.problem is None], timeout)
    try:
        with _own_log(spool) as log, targets.shown():
            _deliver(spool, targets, only)
    except KeyboardInterrupt:
        click.echo(f"\nStopped. Nothing is lost: what is left is delivered by the next `{command}`.", err=True)
        sys.exit(_INTERRUPTED)
    lost = _losses_since(_losses.read(spool), before)
    left = targets.left()
    if left or len(targets) < len(found):
        _print_left(spool, {journal.directory for journal in found if journal.problem} | set(left), command)
        _print_losses(lost)
        return False
    click.echo(f"Everything{' else' if lost else ''} is delivered: {targets.summary()}.")
    _print_pages_left(spool)
    _print_losses(lost)
    if log.warnings:
        click.echo(f"There were {log.warnings} warnings during delivery: see {spool / LOG}.", err=True)
    return not lost


def _deliver_pages(spool: Path, only: Collection[Path] | None) -> None:
    """Make what is left to be made of runs that were delivered, and print the result."""
    count = left(spool)
    if not count:
        click.echo(wrapped(f"Nothing is waiting in {spool}."))
        return
    try:
        with _own_log(spool):
            _make_pages_left(spool, only)
    except KeyboardInterrupt:
        click.echo("\nStopped. The next `trackdsl sync` continues.", err=True)
        sys.exit(_INTERRUPTED)
    made = count - left(spool)
    if made > 0:
        runs, their = ("1 run", "its report or trace") if made == 1 else (f"{made} runs", "their reports or traces")
        click.echo(f"All records were delivered already. What changed in {runs} is written now, or {their} made.")
    _print_pages_left(spool)


def _print_pages_left(spool: Path) -> None:
    if count := left(spool):
        click.echo(f"{unmade(count)}; see {spool / LOG}. `trackdsl sync` tries again.", err=True)


def _losses_since(now: dict[str, Losses], before: dict[str, Losses]) -> list[str]:
    """The new losses, a line for each journal."""
    found = [(losses.program, losses.since(before.get(name)).description()) for name, losses in now.items()]
    return [f"{program}: {text}" for program, text in found if text]


def _print_losses(lost: list[str]) -> None:
    if not lost:
        return
    click.echo("Some records are lost; tags of the runs say so too:", err=True)
    for line in lost:
        click.echo(f"  {line}", err=True)


def _deliver(spool: Path, targets: DeliveryTargets, only: Collection[Path] | None) -> None:
    announced = False
    while targets.moving():
        try:
            lock = take_lock(spool, _LOCK_PATIENCE)
        except OSError as error:
            raise click.ClickException(
                f"the lock of the spool {spool} cannot be taken ({error.strerror or error}): nothing is delivered, and "
                "nothing is lost. Free some space, or repair the file, then run `trackdsl sync` again."
            ) from None
        if lock is not None:
            _deliver_here(spool, targets, lock, only)
            continue
        if not announced:
            click.echo("A delivery process is running already: waiting for it.", err=True)
            announced = True
        with contextlib.closing(Waiter([spool])) as waiter:
            _follow(spool, targets, waiter)
    if not targets.left():
        _make_pages_left(spool, only)


def _deliver_here(spool: Path, targets: DeliveryTargets, lock: FileLock, only: Collection[Path] | None) -> None:
    service = Service(spool, _environment(), only, foreground=True)
    try:
        while targets.moving():
            if not service.round():
                time.sleep(_NAP)
        if not targets.left():
            _make_pages(spool, service)
    finally:
        service.close()
        lock.release()


def _make_pages(spool: Path, service: Service) -> None:
    """Write what changed in runs that were delivered, and make their reports and traces, while there is progress."""
    for _ in _while_made(spool, _PAGES_PATIENCE):
        if not service.round():
            time.sleep(_NAP)


def _make_pages_left(spool: Path, only: Collection[Path] | None) -> None:
    """Do the same if no process delivers, else wait for the one that does."""
    for _ in _while_made(spool, _PAGES_ELSEWHERE):
        lock = take_lock(spool, 0.0)
        if lock is None:
            time.sleep(_NAP)
            continue
        service = Service(spool, _environment(), only, foreground=True)
        try:
            return _make_pages(spool, service)
        finally:
            service.close()
            lock.release()
    return None


def _while_made(spool: Path, patience: float) -> Iterator[None]:
    """Continue as long as runs wait for what is made after their delivery, and their number changes."""
    before, give_up = -1, 0.0
    while count := left(spool):
        if count != before:
            before, give_up = count, time.monotonic() + patience
        elif time.monotonic() > give_up:
            return
        yield


def _environment() -> ProgramEnvironment:
    """The environment of this process, to be used for the records of all programs."""
    return ProgramEnvironment("", current(), for_all=True)


def _follow(spool: Path, targets: DeliveryTargets, waiter: Waiter) -> None:
    """Wait while another process delivers."""
    _wait_until_taken(spool, targets)
    next_wake = 0.0
    while targets.moving() and is_delivering(spool):
        if time.monotonic() >= next_wake:
            # Repeated, because delivery tries once for each call, and a single failure may be chance.
            # The user wants it to use the credentials of this environment.
            hand_over(spool, _environment())
            wake(spool)
            next_wake = time.monotonic() + _WAKE_EVERY
        waiter.show()
        time.sleep(_NAP)


def _wait_until_taken(spool: Path, targets: DeliveryTargets) -> None:
    """Hand over this environment, and ignore failures before delivery has read it: it may lack a token until then."""
    hand_over(spool, _environment())
    now = time.monotonic()
    give_up, passed_on = now + _TAKEN_WITHIN, now + _PASSED_ON_WITHIN
    while (now := time.monotonic()) < passed_on and targets.left() and is_delivering(spool):
        if now < give_up and not is_taken(spool):
            passed_on = now + _PASSED_ON_WITHIN
        targets.moving()
        time.sleep(_NAP)
    targets.forget_failures()


def _print_left(spool: Path, directories: set[Path], command: str) -> None:
    left = [journal for journal in read_journals(spool) if journal.directory in directories]
    click.echo(f"Not everything is delivered; this is left in {spool}:", err=True)
    for journal in left:
        click.echo(f"  {journal.program}: {_reason(journal)}", err=True)
    if any(journal.is_stuck for journal in left):
        click.echo(f"For records that the store will never accept: {WAY_OUT}.", err=True)
    if not any(journal.problem is None for journal in left):
        return
    if is_delivering(spool):
        click.echo(
            "Nothing is lost: the delivery process keeps trying; `trackdsl status` shows its progress.", err=True
        )
    else:
        click.echo(f"Nothing is lost. Fix the cause, then run `{command}` again.", err=True)


def _reason(journal: Journal) -> str:
    if journal.problem is not None:
        return why_not_delivered(journal)
    what = f"{size(journal.bytes_left())} of events for {journal.target}"
    progress = journal.progress
    if not journal.bytes_left():
        kept = "events" if progress.held or progress.blocked else "artifacts"
        what = f"{progress.deferred} {kept} for {journal.target}" if progress.deferred else "the ends of its runs"
    return f"{what}: {journal.brief_error or 'no progress, and no error is known; try a longer --timeout'}"


class _Log:
    """The log of delivery. It counts the warnings since this object was made, those of child processes too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = self._size()

    @property
    def warnings(self) -> int:
        """The number of warnings and errors."""
        with contextlib.suppress(OSError), open(open_regular(self.path, os.O_RDONLY), "rb") as file:
            file.seek(self._start)
            return sum(b" WARNING " in line or b" ERROR " in line for line in file)
        return 0

    def _size(self) -> int:
        try:
            return self.path.lstat().st_size
        except OSError:
            return 0


class _Writing(logging.FileHandler):
    """Writes to the log of delivery."""

    def _open(self) -> TextIOWrapper:
        return open(open_regular(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a", encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        # The disk is full, or the log's path is not a regular file. The message helps the user more than a traceback.
        click.echo(self.format(record), err=True)


@contextlib.contextmanager
def _own_log(spool: Path) -> Iterator[_Log]:
    """Prepare this process for delivery: MLflow's environment variables, and a log file next to the progress bar."""
    prepare_environment()
    log = _Log(spool / LOG)
    handler = _Writing(log.path, delay=True)
    handler.setFormatter(MaskingFormatter(LOG_FORMAT))
    handler.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield log
    finally:
        root.removeHandler(handler)
        handler.close()
