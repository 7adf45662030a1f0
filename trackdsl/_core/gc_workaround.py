"""Python 3.11 only: the garbage collector may end runs without crashing the interpreter.

In Python 3.11 the collector may start in the middle of `ContextVar.set`. It may close a generator, or call a `__del__`,
that sets a context variable itself, as every end of a run does. This frees the context's mapping, which the interrupted
call then reads (python/cpython#148891). So this module keeps a reference to the mapping until that call has returned.
"""

from __future__ import annotations

import gc
import sys
from contextvars import Context, copy_context
from typing import Any

#: Copies of contexts that changed during a collection.
_kept: list[Context] = []
#: A few suffice, as the interrupted call is short.
_MOST = 8


def _keep_context(phase: str, _info: dict[str, Any]) -> None:
    if phase == "start":
        _kept.append(copy_context())
        del _kept[:-_MOST]
    elif _kept and _content(_kept[-1]) is _content(copy_context()):
        _kept.pop()


def _content(context: Context) -> Any:
    return next(iter(gc.get_referents(context)), None)


def install() -> None:
    """Register the callback, unless it is. Not during an import: inside the callback, a Ctrl-C would be lost."""
    if sys.version_info < (3, 12) and _keep_context not in gc.callbacks:
        gc.callbacks.append(_keep_context)
