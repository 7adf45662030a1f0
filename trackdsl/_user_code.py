"""Where the user's program called into trackdsl, for messages."""

from __future__ import annotations

import os
import sys

_PACKAGE = os.path.dirname(__file__) + os.sep


def place_of_call() -> str:
    """The file and line in user code that called into trackdsl, such as `train.py:12` with the whole path."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
