"""Summaries of objects such as scikit-learn estimators: the class and the arguments of its constructor."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from trackdsl._core import runtime
from trackdsl._core.redaction import is_secret, mask_text
from trackdsl.handlers._handler import Scalar
from trackdsl.handlers._line import line_of
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._value_digest import digest_of

_PLAIN = (bool, int, float, str, type(None))
#: In characters.
_MAX_SUMMARY = 500
_MAX_ARGUMENT = 200
#: Replaces the default of a parameter that has none.
_REQUIRED = object()
#: Type → the parameters of its constructor with their defaults, and whether it accepts other keywords.
_defaults: dict[type, tuple[dict[str, Any], bool]] = runtime.forgets_at_exit({})


def constructor_summary(value: Any) -> Scalar:
    """An object in one line: its class, with the arguments of its constructor that differ from their defaults.

    An argument that is itself an estimator is described in the same way.
    """
    kind = type(value)
    try:
        shown = [f"{name}={text}" for name, text in _arguments(value) if text is not None]
    except Exception:  # The attributes of a user's estimator may raise anything.
        shown = []
    text = mask_text(f"{kind.__name__}({', '.join(shown)})")
    return text if len(text) <= _MAX_SUMMARY else f"{text[:_MAX_SUMMARY]}…, digest {digest_of(text)}"


def _arguments(value: Any) -> Iterator[tuple[str, str | None]]:
    known, others = _defaults_of(type(value))
    for name, default in known.items():
        yield name, _shown(name, getattr(value, name, default), default)
    if others and hasattr(value, "get_params"):  # XGBoost and LightGBM accept any parameter of their libraries.
        for name, argument in value.get_params(deep=False).items():
            if name not in known:
                yield name, _shown(name, argument, None)


def _defaults_of(kind: type) -> tuple[dict[str, Any], bool]:
    """The parameters of a constructor with their defaults, and whether it also accepts other keywords."""
    known = _defaults.get(kind)
    if known is None:
        if len(_defaults) >= 1000:  # A program that creates classes all the time must not fill the memory.
            _defaults.clear()
        known = _defaults[kind] = _signature(kind)
    return known


def _signature(kind: type) -> tuple[dict[str, Any], bool]:
    defaults: dict[str, Any] = {}
    others = True
    for base in kind.__mro__[:-1]:
        if base is not kind and "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base).parameters.values())
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                defaults.setdefault(
                    parameter.name, _REQUIRED if parameter.default is parameter.empty else parameter.default
                )
        others = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        if not others:  # It does not pass keywords on to its base classes.
            break
    return defaults, others


def _shown(name: str, argument: Any, default: Any) -> str | None:
    """The text of an argument; None if it has its default value or is a secret."""
    if argument is default or is_secret(name, argument):
        return None
    if type(argument) in _PLAIN:
        return None if type(default) in _PLAIN and _same(argument, default) else repr(argument)[:100]
    handler = handler_for(type(argument))
    if hasattr(argument, "get_params") and not isinstance(argument, type):
        return str(handler.summary(argument)).removesuffix("()")
    if type(argument) is list and argument and all(type(item) is tuple and len(item) >= 2 for item in argument[:20]):
        return f"[{', '.join(map(_step, argument[:20]))}]"
    if handler is handler_for(object):
        return type(argument).__name__
    text = line_of(argument, _MAX_ARGUMENT)[0]
    return None if type(argument) is type(default) and text == line_of(default, _MAX_ARGUMENT)[0] else text


def _step(item: tuple[Any, ...]) -> str:
    """A step of a `Pipeline`, or a part of a `ColumnTransformer` with the names of its columns."""
    text = _shown("", item[1], None) or str(item[1])
    return f"{text} {line_of(item[2], _MAX_ARGUMENT)[0]}" if len(item) > 2 else text


def _same(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))
