"""Python 3.11 only: lets the garbage collector end runs without crashing the interpreter.

There the collector may start in the middle of `ContextVar.set`. A generator that it closes, or a `__del__`, that sets a
context variable itself, as every end of a run does, frees what the interrupted call goes on to read
(python/cpython#148891). So for as long as that may be, somebody else holds it too.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from contextvars import Context, copy_context
from typing import Any

#: Contexts as they were when collections began in which one was changed; the call that was interrupted is short.
_held: deque[Context] = deque(maxlen=8)


def _hold(phase: str, _info: dict[str, Any]) -> None:
    if phase == "start":
        _held.append(copy_context())
    elif _held and _content(_held[-1]) is _content(copy_context()):
        _held.pop()


def _content(context: Context) -> Any:
    return next(iter(gc.get_referents(context)), None)


def install() -> None:
    """Begin; the last thing that `import trackdsl` does, as the collector swallows a Ctrl-C that comes in here."""
    if sys.version_info < (3, 12) and _hold not in gc.callbacks:
        gc.callbacks.append(_hold)
