"""The context of work that is submitted to a cluster."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from trackdsl._core import context as _context
from trackdsl.distributed._contexts import Context
from trackdsl.distributed._engines import current_task
from trackdsl.errors import format_error, logger, reraise_from_signal


def text_here(engine: str) -> str:
    """The current context as text; empty without a run, and if the text cannot be made. It never raises."""
    try:
        scope = _context.current()
        if scope is not None:
            return Context(scope).to_text()
        task = current_task()
        return "" if task is None else task.context.to_text()
    except Exception as error:
        reraise_from_signal(error)
        logger.warning(
            "trackdsl cannot send its context to %s, so runs there begin as roots: %s", engine, format_error(error)
        )
        return ""


def by_value(fn: Callable[[], Any]) -> Callable[[], Any]:
    """A function that is pickled with its code, for processes that may not have trackdsl.

    Args:
        fn: a function that imports everything it needs.
    """
    made = types.FunctionType(fn.__code__, {"__builtins__": __builtins__}, fn.__name__)
    made.__module__ = "__main__"
    return made
