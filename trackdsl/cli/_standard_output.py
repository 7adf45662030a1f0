"""The standard output of commands: characters that its encoding does not have, and a full disk."""

from __future__ import annotations

import contextlib
import os
import sys
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
