"""Handlers: how trackdsl records values, one module per library.

A handler turns values of a type into parameters (`summary`, `children`), files (`write`, `read`), dataset inputs
(`dataset`) and MLflow models (`save_model`). trackdsl finds the handler by the type of the value and caches the answer.
Types are registered by name, so that no library is imported just because trackdsl is. A value without a handler of its
own is pickled with cloudpickle.
"""

from __future__ import annotations

from trackdsl.handlers._handler import Handler
from trackdsl.handlers._registry import handler_for, handler_of, register_handler

__all__ = ["Handler", "handler_for", "handler_of", "register_handler"]

# Tracebacks, help and pickles name public objects by where users import them from.
for _public in (Handler, handler_for, handler_of, register_handler):
    _public.__module__ = __name__
