"""Handlers: what trackdsl knows of values, one file per library.

A handler turns values of a type into parameters (`summary`, `children`), files (`write`, `read`), dataset inputs
(`dataset`) and MLflow models (`save_model`). It is found by the value's type, and the answer is cached. Types are
registered by name, so that no library is imported because trackdsl was. The last handler takes everything: cloudpickle.
"""

from __future__ import annotations

from trackdsl.handlers._registry import Handler, handler_for, handler_of, register_handler

__all__ = ["Handler", "handler_for", "handler_of", "register_handler"]
