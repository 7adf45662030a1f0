"""Handlers: how a returned value becomes a file of the run.

A handler is found by the value's type, newest registration first, and the answer is cached. Types are registered by
name, so that no library is imported because trackdsl was. The last handler takes everything: cloudpickle.
"""

from __future__ import annotations

from trackdsl.handlers._registry import Handler, handler_for, handler_of, register_handler

__all__ = ["Handler", "handler_for", "handler_of", "register_handler"]
