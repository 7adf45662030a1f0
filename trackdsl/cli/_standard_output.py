"""The standard output of commands: characters that its encoding does not have, a full disk, and a closed pipe."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
import time
import traceback

#: What Python does by default with characters that an encoding does not have. A user may choose something else.
_DEFAULTS = ("strict", "surrogateescape")
#: The modules with which commands print.
_PRINTING = ("click.utils", "rich.console")


def replace_unknown_characters() -> None:
    """Let the standard output have question marks for the characters that its encoding does not have."""
    if getattr(sys.stdout, "errors", None) in _DEFAULTS:
        getattr(sys.stdout, "reconfigure", lambda **_: None)(errors="replace")


def fault_of_output(error: OSError) -> str | None:
    """Why nothing can be printed; None if the error is of something else.

    Args:
        error: what a command has raised.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if frames[-1].f_globals.get("__name__") not in _PRINTING:
        return None
    with contextlib.suppress(OSError, AttributeError):
        sys.stdout.close()  # Python would report what is still in the buffer once more when the program ends.
    return os.strerror(error.errno) if error.errno else str(error)


def pause(seconds: float) -> None:
    """Wait, or until nobody reads the standard output any more: a command that prints nothing would run on.

    Args:
        seconds: how long.

    Raises:
        BrokenPipeError: nobody reads it; click ends the command as if it had printed something.
    """
    try:
        number = sys.stdout.fileno()
    except (OSError, AttributeError):  # It is none of a process, or closed.
        time.sleep(seconds)
        return
    output = select.poll()
    output.register(number, 0)  # The end of a pipe is always reported.
    if output.poll(1000 * seconds):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
