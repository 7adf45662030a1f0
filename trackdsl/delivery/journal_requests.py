"""What commands ask of a journal: to be removed, or to be delivered to another store.

A request is a file in the journal's folder. Whoever holds the delivery lock of the spool carries it out: the command
itself where nobody delivers, else the process at work, which has the files of the journal open. That one looks for
requests when it starts and when it is woken. So neither is ever surprised by the other, and what was asked for is done
even if the command is killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Collection
from pathlib import Path

from trackdsl.journal._files import open_regular
from trackdsl.journal._lock import is_held
from trackdsl.journal._origin import Origin, read_origin, write_origin
from trackdsl.journal._spool import remove_journal, take_lock, wake
from trackdsl.store_format.known_runs import read_runs

_DROP = "drop-requested"
#: The `origin` file that a journal is to get.
_MOVE = "origin-requested"
_PAUSE = 0.05
_WAKE_EVERY = 0.5
#: Programs only look whether the lock is held, which takes it for an instant: hence the patience.
_LOCK_PATIENCE = 0.2


def ask_to_drop(directory: Path) -> None:
    """Ask for the removal of a journal.

    Raises:
        OSError: the request cannot be written.
    """
    os.close(open_regular(directory / _DROP, os.O_WRONLY | os.O_CREAT))


def ask_to_move(directory: Path, origin: Origin, uri: str) -> None:
    """Ask for the delivery of a journal to another store.

    Raises:
        OSError: the request cannot be written.
    """
    write_origin(directory, dataclasses.replace(origin, uri=uri), _MOVE)


def is_pending(directory: Path) -> bool:
    """Whether something was asked of a journal that is not done yet."""
    return os.path.lexists(directory / _DROP) or os.path.lexists(directory / _MOVE)


def withdraw(directory: Path) -> None:
    """Take back what was asked of a journal."""
    for name in (_DROP, _MOVE):
        with contextlib.suppress(OSError):
            os.unlink(directory / name)


def has_runs(directory: Path) -> bool:
    """Whether runs of a journal exist at its store."""
    return any(True for _ in read_runs(directory))


def carry_out(directory: Path) -> None:
    """Do what was asked of a journal. The caller holds the delivery lock, and has the files of the journal closed.

    A program that lives, or runs that exist, make a request void.

    Raises:
        OSError: the `origin` file cannot be replaced.
    """
    alive = is_held(directory / "lock")
    if os.path.lexists(directory / _DROP) and not alive:
        remove_journal(directory)
    elif read_origin(directory, _MOVE) is not None and not alive and not has_runs(directory):
        os.replace(directory / _MOVE, directory / "origin")
    withdraw(directory)


def settle(spool: Path, directories: Collection[Path], patience: float) -> list[Path]:
    """Have done what was asked of journals of a spool: by this process, or by the one that delivers from it.

    Args:
        spool: the spool.
        directories: the journals.
        patience: how long to wait for a process that is busy, in seconds.

    Returns:
        the journals of which it is not done; it will be, as soon as that process can.

    Raises:
        OSError: the lock cannot be taken, or what was asked not be done.
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
