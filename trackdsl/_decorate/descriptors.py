"""Descriptors that wrap a function in a class: class methods, static methods, and those of `functools`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partialmethod, singledispatchmethod
from typing import Any

METHODS = (classmethod, staticmethod, partialmethod, singledispatchmethod)


def rebuilt(method: Any, decorate: Callable[[Any], Any]) -> Any:
    """A method of the same kind as `method`, around the decorated function. `method` itself is not changed."""
    if isinstance(method, partialmethod):
        return type(method)(decorate(method.func), *method.args, **method.keywords)
    if isinstance(method, singledispatchmethod):
        return _dispatching(method, decorate)
    return type(method)(decorate(method.__func__))


def _dispatching(method: singledispatchmethod[Any], decorate: Callable[[Any], Any]) -> Any:
    """A method that dispatches inside the recorded call. Implementations can still be registered with it."""
    function: Any = method.func
    kind = type(function) if isinstance(function, (classmethod, staticmethod)) else None

    def dispatch(*args: Any, **kwargs: Any) -> Any:
        if kind is staticmethod:
            return method.__get__(None, object)(*args, **kwargs)
        receiver, *rest = args
        bound = method.__get__(receiver) if kind is None else method.__get__(None, receiver)
        return bound(*rest, **kwargs)

    made: Any = decorate(functools.update_wrapper(dispatch, function if kind is None else function.__func__))
    made.register, made.dispatcher = method.register, method.dispatcher
    if kind is not None:
        made = kind(made)
        made.register, made.dispatcher = method.register, method.dispatcher
    return made
