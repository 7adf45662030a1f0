"""Functions of the public interface: their signatures, and errors that say how to call them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, ParamSpec, TypeVar, get_overloads

from trackdsl._core.suggest import suggestion_for
from trackdsl.errors import OptionError

P = ParamSpec("P")
R = TypeVar("R")


def explained(fn: Callable[P, R]) -> Callable[P, R]:
    """Make a function explain wrong arguments: its error suggests the right option, and says how to call it.

    The error is an `OptionError`, which is a `TypeError` too.
    """
    return _explained(fn, fn.__name__)


def explained_with_config(keys: Iterable[str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Like `explained`, for a function that also takes options as keys of its argument `config`."""
    return lambda fn: _explained(fn, fn.__name__, tuple(keys))


def explained_class(kind: type[R]) -> type[R]:
    """Make the constructor of a class explain wrong arguments, as `explained` does."""
    kind.__init__ = _explained(kind.__init__, kind.__name__)  # type: ignore[method-assign] # of the same signature
    return kind


def _explained(fn: Callable[P, R], name: str, config: tuple[str, ...] = ()) -> Callable[P, R]:
    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return fn(*args, **kwargs)
        except TypeError as error:
            trace = error.__traceback__
            if (
                trace is None or trace.tb_next is not None
            ):  # The error comes from inside `fn`, so the arguments were right.
                raise
            raise _wrong_call(fn, name, kwargs, config, str(error)) from None

    return call


def _wrong_call(
    fn: Callable[..., Any], name: str, given: Iterable[str], config: tuple[str, ...], reason: str
) -> OptionError:
    parameters = [each for each in inspect.signature(fn).parameters.values() if each.name != "self"]
    known = [each.name for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
    unknown = next((option for option in given if option not in known), "")
    hint = suggestion_for(unknown, [*known, *config])
    aside = f" `{hint.name}` is a key of config: config={{{hint.name!r}: ...}}." if hint.name in config else ""
    shown = ", ".join(str(each.replace(annotation=inspect.Parameter.empty)) for each in parameters)
    reason = reason.partition(". Did you mean")[0].partition("() ")[2] or reason  # Python 3.13 suggests one too.
    meant = "." if aside and hint.name == unknown else hint.text
    message = f"{name}() {reason}{meant}{aside} Call it as {name}({shown})."
    return OptionError(message, option=unknown, suggestion=hint.name)


def full_signature(fn: Callable[..., Any], *, evaluated: bool = True) -> inspect.Signature:
    """The signature of the last overload of a function, which has all of its options."""
    return inspect.signature(get_overloads(fn)[-1], eval_str=evaluated)


def option_names(fn: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's options, by its last overload."""
    parameters = full_signature(fn, evaluated=False).parameters.values()
    return tuple(each.name for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD)


class Decorator:
    """A public decorator, with the signature of its last overload. `with stage:`, without a call, is an error.

    Args:
        fn: the decorator, as a function.
        block: the message of that error: what to write instead.
        options: the options that take a keyword, if only a name is positional.
    """

    __name__: str
    __wrapped__: Callable[..., Any]

    def __init__(self, fn: Callable[..., Any], block: str, options: tuple[str, ...] = ()) -> None:
        functools.update_wrapper(self, fn)
        self._block = block
        self._options = options

    @functools.cached_property
    def __signature__(self) -> inspect.Signature:
        return full_signature(self.__wrapped__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) > 1 and self._options:
            raise OptionError(
                f"{self.__name__}() takes only the name without a keyword, not {args[1]!r} too: its options are "
                f"{', '.join(self._options)}.",
                option="name",
            )
        return self.__wrapped__(*args, **kwargs)

    def __get__(self, _instance: object, _owner: type | None = None) -> Decorator:
        # It makes this a routine for `inspect`, so that `help` shows the function and not this class.
        return self

    def __enter__(self) -> NoReturn:
        raise OptionError(self._block, option="name")

    __aenter__ = __enter__

    def __exit__(self, *_: object) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __reduce__(self) -> str:
        return self.__name__
