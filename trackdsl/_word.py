"""`stage` and `experiment` at run time: their signatures, and an error that names the fix for `with stage:`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NoReturn, get_overloads

from trackdsl.errors import OptionError


def full_signature(fn: Callable[..., Any], *, evaluated: bool = True) -> inspect.Signature:
    """The signature of the last overload of a function, which has all of its options."""
    return inspect.signature(get_overloads(fn)[-1], eval_str=evaluated)


def option_names(fn: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's options, by its last overload."""
    parameters = full_signature(fn, evaluated=False).parameters.values()
    return tuple(each.name for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD)


class Word:
    """A function with the signature of its overload, whose use in a `with` statement without a call is an error.

    Args:
        fn: the function.
    """

    __name__: str
    __wrapped__: Callable[..., Any]

    def __init__(self, fn: Callable[..., Any]) -> None:
        functools.update_wrapper(self, fn)

    @functools.cached_property
    def __signature__(self) -> inspect.Signature:
        return full_signature(self.__wrapped__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)

    def __get__(self, _instance: object, _owner: type | None = None) -> Word:
        # It makes this a routine for `inspect`, so that `help` shows the function and not this class.
        return self

    def __enter__(self) -> NoReturn:
        name = self.__name__
        raise OptionError(f'`with {name}:` has to call it: `with {name}("a-name") as run:`.', option="name")

    __aenter__ = __enter__

    def __exit__(self, *_: object) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __reduce__(self) -> str:
        return self.__name__
