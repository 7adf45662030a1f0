"""Work that no signal handler may interrupt: an exception there would crash the interpreter, or be lost."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def without_signals(work: Callable[[], T]) -> T:
    """Call `work` in a thread of its own, because Python runs signal handlers only in the main thread.

    Args:
        work: a short function.

    Returns:
        the result of `work`.

    Raises:
        BaseException: what a signal handler of the program raised meanwhile, once the work is done; else what `work`
            raised.

    Example:
        >>> without_signals(lambda: 1 + 1)
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
        # Not `threading.Thread`: programs replace it, and we patch it to propagate the current run.
        _thread.start_new_thread(run, ())
    except RuntimeError:  # No thread can be started, for example at the very end of the program.
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
