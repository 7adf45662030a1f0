"""Work that no signal handler may break in on, as what it raises would crash the interpreter or be forgotten."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def away_from_signals(work: Callable[[], T]) -> T:
    """What `work` returns, called in a thread of its own: Python runs signal handlers in the main thread alone.

    Args:
        work: something short.

    Raises:
        BaseException: what a signal handler of the program has raised meanwhile, once the work is done; else whatever
            the work raises.

    Example:
        >>> away_from_signals(lambda: 1 + 1)
        2
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    results: list[T] = []
    errors: list[BaseException] = []
    done = _thread.allocate_lock()
    done.acquire()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            done.release()

    try:
        # Not `threading.Thread`, which programs replace and which hands our context over.
        _thread.start_new_thread(run, ())
    except RuntimeError:  # No thread can be started: so late in the end of the program, for example.
        return work()
    raised: BaseException | None = None
    while not results and not errors:
        try:
            done.acquire()
        except BaseException as error:
            raised = error
    if raised is not None or errors:
        raise raised or errors[0]
    return results[0]
