"""Requests of commands about a journal: to remove it, or to deliver it to another store.

A request is a file in the journal's folder. The process that holds the delivery lock of the spool carries it out: the
command itself if no process delivers, else the delivery process, which has the journal's files open. That process looks
for requests when it starts and when it is woken. So neither changes a journal behind the other's back, and a request is
carried out even if the command is killed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection
from pathlib import Path

import msgspec

from trackdsl.journal._files import open_regular
from trackdsl.journal._lock import is_held
from trackdsl.journal._origin import Origin, read_origin, write_origin
from trackdsl.journal._spool import remove_journal, take_lock, wake
from trackdsl.store_format.known_runs import read_runs

_DROP = "drop-requested"
#: The journal's next `origin` file.
_MOVE = "origin-requested"
_PAUSE = 0.05
_WAKE_EVERY = 0.5
#: Programs test the lock by taking it for an instant, so try for a moment.
_LOCK_PATIENCE = 0.2


def ask_to_drop(directory: Path) -> None:
    """Request the removal of a journal.

    Raises:
        OSError: the request cannot be written.
    """
    os.close(open_regular(directory / _DROP, os.O_WRONLY | os.O_CREAT))


def ask_to_move(directory: Path, origin: Origin, uri: str) -> None:
    """Request the delivery of a journal to another store.

    Raises:
        OSError: the request cannot be written.
    """
    write_origin(directory, msgspec.structs.replace(origin, uri=uri), _MOVE)


def is_pending(directory: Path) -> bool:
    """Whether a request about a journal is not carried out yet."""
    return os.path.lexists(directory / _DROP) or os.path.lexists(directory / _MOVE)


def withdraw(directory: Path) -> None:
    """Withdraw the requests about a journal."""
    for name in (_DROP, _MOVE):
        with contextlib.suppress(OSError):
            os.unlink(directory / name)


def has_runs(directory: Path) -> bool:
    """Whether runs of a journal exist at its store."""
    return any(True for _ in read_runs(directory))


def carry_out(directory: Path) -> None:
    """Carry out the request about a journal. The caller holds the delivery lock, and has closed the journal's files.

    A running program, or runs that exist already, make a request void.

    Raises:
        OSError: the `origin` file cannot be replaced.
    """
    alive = is_held(directory / "lock")
    if os.path.lexists(directory / _DROP) and not alive:
        remove_journal(directory)
    elif read_origin(directory, _MOVE) is not None and not alive and not has_runs(directory):
        os.replace(directory / _MOVE, directory / "origin")
    withdraw(directory)


def carry_out_all(spool: Path, directories: Collection[Path], patience: float) -> list[Path]:
    """Have the requests about a spool's journals carried out, by this process or by the one that delivers.

    Args:
        spool: the spool.
        directories: the journals.
        patience: how long to wait for a busy process, in seconds.

    Returns:
        the journals whose requests are not carried out yet; the busy process will do it.

    Raises:
        OSError: the lock cannot be taken, or a request not be carried out.
    """
    give_up = time.monotonic() + patience
    next_wake = 0.0
    while left := [directory for directory in directories if is_pending(directory)]:
        lock = take_lock(spool, _LOCK_PATIENCE)
        if lock is not None:
            try:
                for directory in left:
                    carry_out(directory)
            finally:
                lock.release()
        elif time.monotonic() >= give_up:
            return left
        elif time.monotonic() >= next_wake:
            wake(spool)
            next_wake = time.monotonic() + _WAKE_EVERY
        else:
            time.sleep(_PAUSE)
    return []
