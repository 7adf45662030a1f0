"""Decorated callables that are not functions: a `functools.partial`, an instance of a class with `__call__`, a builtin.

Such an object has attributes that may change. It is an instance of its class, is pickled by value, and does not bind to
an instance as a method does. A wrapper function would lose all of this. So a proxy stands in for the object, and only
calls of the proxy use the wrapper.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import wrapt

if TYPE_CHECKING:
    from trackdsl._decorate.call import Call

Wrap = Callable[[Any, "Call"], Any]


class _Decorated(wrapt.ObjectProxy):  # type: ignore[misc, type-arg, unused-ignore]
    """The base class of all proxies. Each proxy has its own class, so that its call needs no extra frame."""

    wrap: ClassVar[Wrap]
    __trackdsl__: ClassVar[Call]

    @property
    def last_run(self) -> Any:
        """The run of the newest call."""
        return type(self).__trackdsl__.wrapper.last_run

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __copy__(self) -> Any:
        return type(self).wrap(copy.copy(self.__wrapped__), type(self).__trackdsl__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return type(self).wrap(copy.deepcopy(self.__wrapped__, memo), type(self).__trackdsl__)

    def __reduce__(self) -> Any:
        return type(self).wrap, (self.__wrapped__, type(self).__trackdsl__)

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return self.__reduce__()


def decorated_object(fn: Any, call: Call, wrapper: Callable[..., Any], wrap: Wrap) -> Any:
    """A proxy for `fn` that calls `wrapper`.

    Args:
        fn: the object.
        call: what happens when it is called.
        wrapper: a function that records a call of `fn`.
        wrap: makes the proxy of another object with the same call, for copies in this and other processes.
    """
    own = {"__call__": staticmethod(wrapper), "__trackdsl__": call, "wrap": staticmethod(wrap)}
    return type("Decorated", (_Decorated,), own)(fn)
