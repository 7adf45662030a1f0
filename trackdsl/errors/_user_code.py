"""Where the user's program called into trackdsl."""

from __future__ import annotations

import os
import sys
from types import FrameType

#: The folder of this package, with a separator at its end.
PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


def calling_frame() -> FrameType:
    """The innermost frame on the stack that is not of this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return frame


def call_site() -> str:
    """The file and line in user code that called into trackdsl, such as `train.py:12` with the whole path."""
    frame = calling_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
