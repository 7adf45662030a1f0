"""A program of its own: runs a command, and ends it with all of its processes when its parent has ended for any reason.

The parent gives it a pipe as standard input and a session of its own. A parent that is killed cannot end its children,
but its end of the pipe closes. Python runs this file by its path, so it imports nothing of trackdsl and starts at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import FrameType

#: How long the processes may take to end, in seconds; then they are killed.
_PATIENCE = 10.0


def main(command: list[str]) -> int:
    """Run a command to its end.

    Args:
        command: a program and its arguments.

    Returns:
        its exit code; 128 and the signal's number if a signal ended it.
    """
    # The parent asks all processes of the session to end. This one ends after the command.
    signal.signal(signal.SIGTERM, _stay)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = process.wait()
    return code if code >= 0 else 128 - code


def _stay(_number: int, _frame: FrameType | None) -> None:
    pass


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGTERM)
    threading.Event().wait(_PATIENCE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
