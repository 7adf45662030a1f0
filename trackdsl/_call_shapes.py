"""How a function is wrapped: the one place that tells plain functions, coroutines and generators apart.

A wrapper adds one frame to a traceback and nothing else: `inspect` answers, names and annotations are the function's.
Wrappers hold only what pickles by reference or by value, so a function of `__main__` travels with cloudpickle.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trackdsl._state import state
from trackdsl.errors import OptionError

if TYPE_CHECKING:
    from trackdsl._call import Call


def wrap(fn: Callable[..., Any], call: Call) -> Callable[..., Any]:
    """Wrap `fn` so that each call is recorded as `call` says.

    Raises:
        OptionError: a shape that cannot be wrapped yet.
    """
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise OptionError(
            f"{call.plan.name}() is a generator: its body runs in pieces, at its caller's pace. Open `with stage(...)` "
            "inside it, or decorate the function that consumes it.",
            option="fn",
        )
    shape = _coroutine if inspect.iscoroutinefunction(fn) else _plain
    wrapper = functools.wraps(fn)(shape(fn, call))
    wrapper.__trackdsl__ = call  # type: ignore[attr-defined]
    return wrapper


def _plain(fn: Callable[..., Any], call: Call) -> Callable[..., Any]:
    enter, leave = call.enter, call.leave

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if state.disabled:
            return fn(*args, **kwargs)
        scope = enter(args, kwargs)
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            leave(scope, None, error, args, kwargs)
            raise
        leave(scope, result, None, args, kwargs)
        return result

    return wrapper


def _coroutine(fn: Callable[..., Any], call: Call) -> Callable[..., Any]:
    enter, leave = call.enter, call.leave

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        if state.disabled:
            return await fn(*args, **kwargs)
        scope = enter(args, kwargs)
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            leave(scope, None, error, args, kwargs)
            raise
        leave(scope, result, None, args, kwargs)
        return result

    return wrapper


_WRAPPERS = {const for shape in (_plain, _coroutine) for const in shape.__code__.co_consts if inspect.iscode(const)}


def call_of(fn: Any) -> Call | None:
    """The call behind one of our own wrappers; None for any other function, also one that wraps ours."""
    found: Call | None = getattr(fn, "__trackdsl__", None)
    return found if found is not None and getattr(fn, "__code__", None) in _WRAPPERS else None


def call_behind(fn: Any) -> Call | None:
    """The call of the nearest run-making wrapper that `fn`, a decorator of somebody else's, wraps."""
    while fn is not None:
        found = call_of(fn)
        if found is not None and found.options is not None:
            return found
        fn = getattr(fn, "__wrapped__", None)
    return None
