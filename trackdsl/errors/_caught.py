"""What trackdsl does with an exception that it has caught."""

from __future__ import annotations

import signal
import threading

from trackdsl.errors._packages import install_command


def is_fault(error: BaseException) -> bool:
    """Whether an exception reports a fault of the code that raised it, rather than the end of the program.

    Every `Exception` does. So does the panic of a library that is written in Rust, which is not an `Exception`.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def format_error(error: BaseException) -> str:
    """An exception in one line: its type and message, and for a missing package the command that installs it.

    The line has the type alone where the exception's `__str__` raises.

    >>> format_error(ValueError("no such column"))
    'ValueError: no such column'
    """
    try:
        command = install_command(error) if isinstance(error, ImportError) else None
        return f"{type(error).__name__}: {error}" + ("" if command is None else f"; `{command}` installs it")
    except Exception:
        return type(error).__name__


def reraise_from_signal(error: BaseException) -> None:
    """Raise an exception again if a signal handler of the program raised it, such as that of a time limit.

    The exception is for the program: trackdsl caught it only because the signal came while its own code was running.

    Raises:
        BaseException: `error` itself.
    """
    if _comes_from_signal(error):
        raise error


def _comes_from_signal(error: BaseException) -> bool:
    if threading.current_thread() is not threading.main_thread():  # Python runs handlers in the main thread only.
        return False
    frames = set()
    trace = error.__traceback__
    while trace is not None:
        frames.add(trace.tb_frame.f_code)
        trace = trace.tb_next
    handlers = map(signal.getsignal, signal.valid_signals())
    return any(getattr(handler, "__code__", None) in frames for handler in handlers)
