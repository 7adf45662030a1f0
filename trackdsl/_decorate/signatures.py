"""The signature of a function: which one binds calls, and whether its first parameter is `self` or `cls`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

#: The kinds of parameters that take positional arguments.
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_RECEIVERS = ("self", "cls", "mcs")


class Receiver:
    """The first parameter of a function that is defined in a class: `self`, `cls`, or a static method's own parameter.

    Args:
        name: the parameter's name.
        owner: the qualified name of the class.
        fn: the function.
    """

    def __init__(self, name: str, owner: str, fn: Callable[..., Any]) -> None:
        self.name = name
        self._owner = owner
        self._function: str = fn.__name__
        self._module: str | None = getattr(fn, "__module__", None)

    @classmethod
    def of(cls, fn: Callable[..., Any], positional: tuple[str, ...]) -> Receiver | None:
        """The receiver of a function; None if it is in no class, or already bound."""
        qualname = getattr(fn, "__qualname__", None)
        if not positional or not isinstance(qualname, str) or inspect.ismethod(inspect.unwrap(fn)):
            return None
        owner = qualname.rpartition(".")[0]
        return None if not owner or owner.endswith("<locals>") else cls(positional[0], owner, fn)

    def usual(self) -> bool:
        """Whether it has the usual name, `self` or `cls`."""
        return self.name in _RECEIVERS

    def leads(self, args: tuple[Any, ...]) -> bool:
        """Whether it receives the object that the function is called on. The class decides, at the call."""
        kind = self._class(args)
        if kind is None:
            return self.usual()
        # `__new__` is a static method, but gets the class.
        return self._function == "__new__" or not isinstance(vars(kind).get(self._function), staticmethod)

    def _class(self, args: tuple[Any, ...]) -> type | None:
        first = args[0] if args else None
        own: tuple[type, ...] = type.__getattribute__(first, "__mro__") if issubclass(type(first), type) else ()
        for base in (*own, *type(first).__mro__):
            if base.__qualname__ == self._owner and base.__module__ == self._module:
                return base
        value: Any = sys.modules.get(self._module or "")
        for part in self._owner.split("."):
            value = vars(value).get(part) if hasattr(value, "__dict__") else None
        return value if isinstance(value, type) else None


def signature_of(fn: Callable[..., Any]) -> tuple[inspect.Signature, bool]:
    """The signature that binds calls, and whether it belongs to a wrapped function.

    A wrapper of `functools.wraps` shows the signature of the function that it wraps, but may take other arguments.
    """
    try:
        shown = inspect.signature(fn)
    except (TypeError, ValueError):  # Some functions written in C have no signature.
        return inspect.Signature([inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)]), False
    if not hasattr(fn, "__wrapped__"):
        return shown, False
    try:
        own = inspect.signature(fn, follow_wrapped=False)
    except (TypeError, ValueError):
        return shown, True
    kinds = [parameter.kind for parameter in own.parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds and inspect.Parameter.VAR_KEYWORD not in kinds:
        return own, False
    named = [parameter.name for parameter in own.parameters.values() if parameter.kind in POSITIONAL]
    known = [parameter.name for parameter in shown.parameters.values() if parameter.kind in POSITIONAL]
    return (shown, True) if named == known[: len(named)] else (own, False)
