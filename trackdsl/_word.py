"""`stage` and `experiment` at run time: functions, and an error that names the fix for `with stage:`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

from trackdsl.errors import OptionError


class Word:
    """A function whose use in a `with` statement without a call is explained.

    Args:
        fn: the function.
    """

    __name__: str
    __wrapped__: Callable[..., Any]

    def __init__(self, fn: Callable[..., Any]) -> None:
        functools.update_wrapper(self, fn)

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
