"""Wrap a function or method as its decorators say, once for each function. Stacked decorators share one wrapper."""

from __future__ import annotations

from typing import Any

from trackdsl._decorate.call import Call
from trackdsl._decorate.descriptors import METHODS, rebuilt
from trackdsl._decorate.misuse import check_target
from trackdsl._decorate.options import Options
from trackdsl._decorate.returns import ReturnPlan
from trackdsl._decorate.wrappers_importlib_bootstrap import call_behind, call_of, wrap


def decorate(fn: Any, options: Options) -> Any:
    """Decorate a function or method with `experiment` or `stage`.

    Raises:
        OptionError, TemplateError: the options do not fit the function.
    """
    if isinstance(fn, METHODS):
        return rebuilt(fn, lambda inner: decorate(inner, options))
    check_target(fn, options.decorator)
    inner = call_of(fn)
    if inner is not None and inner.options is None:
        # `track_returns` is below: one wrapper does both, and the values land on the run of this decorator.
        return wrap(inner.fn, Call(inner.fn, options, inner.returns))
    returns = ReturnPlan(fn) if options.returns else None
    return wrap(fn, Call(fn, options, returns))


def track(fn: Any, names: tuple[str, ...], options: dict[str, Any]) -> Any:
    """Decorate a function or method with `track_returns`.

    Raises:
        OptionError, ReturnsError: the names and options do not fit the function.
    """
    if isinstance(fn, METHODS):
        return rebuilt(fn, lambda inner: track(inner, names, options))
    check_target(fn, "track_returns")
    inner = call_of(fn)
    target = fn if inner is None else inner.fn
    returns = ReturnPlan(target, names, **options)
    if inner is not None:
        # `experiment` or `stage` is below: the same in the other order.
        return wrap(target, Call(target, inner.options, returns))
    return wrap(fn, Call(fn, None, returns, behind=call_behind(fn)))
