"""The state of the process: how a forked child renews it, and how `reset` restores it.

A module that keeps such state registers it here, right below the state:

    runtime.register("journals", Phase.JOURNALS, after_fork=_after_fork, reset=close_all)

The package has one fork hook, the one below. It calls the registered functions in the order of their phases,
independently of the order of imports. Nothing runs in the parent: a hook that waited there for a lock could block the
program's `fork`.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

from trackdsl.errors import forget_reported, logger

K = TypeVar("K")
V = TypeVar("V")


class Phase(IntEnum):
    """When a registered function runs. Functions of the same phase do not depend on each other.

    After a fork the phases run from the first to the last. `reset` runs them from the last to the first.
    """

    #: Locks between threads. A thread that does not exist in the child may have held them.
    LOCKS = 1
    #: What the process is: the first bytes of its ids, its rank in a launch.
    IDENTITY = 2
    #: Which processes it comes from. This needs the new ids.
    ANCESTRY = 3
    #: Caches, and which warnings were logged.
    MEMORY = 4
    #: What `configure` set.
    SETTINGS = 5
    #: Locked files and database connections, which stay the parent's.
    FILES = 6
    #: The journals. They need released files, and a new journal has the new ids.
    JOURNALS = 7
    #: What is known about runs. It refers to the journals of those runs.
    RUNS = 8
    #: The patches and the current scope.
    SCOPES = 9
    #: The sessions of `start_logging`, which own scopes and runs.
    SESSIONS = 10


class _Registered(NamedTuple):
    phase: Phase
    name: str
    after_fork: Callable[[], object] | None
    reset: Callable[[], object] | None


_registered: dict[str, _Registered] = {}


def register(
    name: str,
    phase: Phase,
    *,
    after_fork: Callable[[], object] | None = None,
    reset: Callable[[], object] | None = None,
) -> None:
    """Register the state of a module. A second registration with the same name replaces the first.

    Args:
        name: of the state, in error messages.
        phase: when the functions run.
        after_fork: renews the state; it runs in a forked child.
        reset: restores the state that the module had after its import.
    """
    _registered[name] = _Registered(phase, name, after_fork, reset)


def forgets_at_exit(cache: dict[K, V]) -> dict[K, V]:
    """A cache by type, which is emptied at the end of the program.

    Otherwise it would keep the classes of the program, and by their methods all of its objects, until it is too late
    for their `__del__` to print.

    Args:
        cache: the cache.
    """
    atexit.register(cache.clear)
    return cache


def reinit_after_fork() -> None:
    """Renew the state of the process in a forked child. The fork hook calls this.

    An error in one function is logged, and the other functions still run.
    """
    for state in _in_order():
        if state.after_fork is not None:
            try:
                state.after_fork()
            except BaseException as error:  # Python itself would print it and continue, whatever it is.
                logger.warning(
                    "trackdsl: after a fork, %s could not be renewed (%r); this process may record wrongly",
                    state.name,
                    error,
                )


def reset() -> None:
    """Restore the state that the process had after the import; for tests.

    This ends sessions, leaves scopes, removes patches, closes journals, and forgets settings of `configure`, secret
    values and which warnings were logged. Environment variables are read again. Ids of runs stay unique: their count
    continues.

    Raises:
        ExceptionGroup: part of the state could not be restored. All the rest was.
    """
    errors = []
    for state in reversed(_in_order()):
        if state.reset is not None:
            try:
                state.reset()
            except Exception as error:
                error.add_note(f"while trackdsl reset: {state.name}")
                errors.append(error)
    if errors:
        raise ExceptionGroup("trackdsl could not reset all of its state", errors)


def _in_order() -> list[_Registered]:
    return sorted(_registered.values(), key=lambda state: state.phase)


class ForkSafeLock:
    """A lock between threads that is free in a forked child, also where another thread of the parent held it.

    Args:
        make: `threading.Lock` or `threading.RLock`.

    Attributes:
        current: the lock of this process. Read it each time: `with lock.current:`. A fork inside of that block does
            no harm: the block releases the lock that it took.
    """

    __slots__ = ("__weakref__", "_make", "current")

    def __init__(self, make: Callable[[], Any] = threading.Lock) -> None:
        self._make = make
        self.current: Any = make()
        _locks.add(self)

    def renew(self) -> None:
        """Replace the lock by one that is free."""
        self.current = self._make()


_locks: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


def _renew_locks() -> None:
    for lock in list(_locks):
        lock.renew()


register("locks", Phase.LOCKS, after_fork=_renew_locks)
# Registered here, because `errors` imports nothing of this package.
register("causes that were logged", Phase.MEMORY, reset=forget_reported)

if hasattr(os, "register_at_fork"):  # Windows has no fork.
    os.register_at_fork(after_in_child=lambda: reinit_after_fork())
