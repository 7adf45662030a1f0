"""Arguments and their names: names that clash, receivers of methods, wrappers with signatures of their own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from tests.unit.one_run import PLANT, metrics_of, params_of, returned
from trackdsl import Param, Secret, stage
from trackdsl.errors import OptionError
from trackdsl.testing import capture_runs

if TYPE_CHECKING:
    import a_library_for_type_checkers as lib


def test_two_parameters_of_one_name_are_refused() -> None:
    """`Param` must not let one parameter replace another: decoration names the two."""
    with pytest.raises(OptionError, match=r"'a' and 'b' of f\(\)"):

        @stage
        def f(a: Annotated[int, Param("x")], b: Annotated[int, Param("x")]) -> None: ...

    with pytest.raises(OptionError, match=r"'a' and 'b' of g\(\)"):

        @stage
        def g(a: Annotated[int, Param("b")], b: int) -> None: ...

    @stage
    def swapped(a: Annotated[int, Param("b")], b: Annotated[int, Param("a")]) -> None: ...

    @stage(params=["a"])
    def chosen(a: Annotated[int, Param("b")], b: int) -> None: ...

    assert params_of(swapped, 1, 2) == {"b": 1, "a": 2}
    assert params_of(chosen, 1, 2) == {"b": 1}


def test_keywords_that_read_like_positions() -> None:
    """`**{"args.0": …}` beside `*args` records both, and hides them where either is to be hidden."""

    @stage
    def f(*args: Any, **options: Any) -> None: ...

    @stage
    def hidden(*args: Any, **options: Annotated[Any, Secret]) -> None: ...

    assert params_of(f, 1, 2, **{"args.0": 9}) == {"args.0": 9, "args.0#2": 1, "args.1": 2}
    assert PLANT not in str(params_of(hidden, **{"args.0": PLANT}))


def test_flat_names_that_meet() -> None:
    """A name that was recorded already, as the leaf of another value, is not written over."""

    @stage
    def f(a: Any, **options: Any) -> None: ...

    assert params_of(f, {"b": 1}, **{"a.b": 2}) == {"a.b": 1, "a.b#2": 2}
    assert metrics_of(returned({"a/b": 1.0, "a": {"b": 2.0}, "c/d": 3})) == {"a/b": 1.0, "a/b#2": 2.0, "c/d": 3.0}


class Methods:
    @stage
    def odd(this, x: int) -> None: ...  # noqa: N805

    @classmethod
    @stage
    def inside(klass, x: int) -> None: ...  # noqa: N804

    @stage
    @classmethod
    def outside(klass, x: int) -> None: ...  # noqa: N804

    @staticmethod
    @stage
    def static_inside(a: Any, x: int) -> None: ...

    @stage
    @staticmethod
    def static_outside(self: Any, x: int) -> None: ...

    @stage
    def __new__(klass, *args: Any) -> Methods:
        return super().__new__(klass)

    @stage
    def usual(self, x: int) -> None: ...


def test_receivers_are_left_out_whatever_they_are_called() -> None:
    """The receiver of a method is left out; a static method and a plain function have none."""
    with capture_runs():
        methods = Methods()
    for call in (methods.odd, Methods.inside, Methods.outside, methods.usual):
        assert params_of(call, 1) == {"x": 1}
        assert params_of(call, 2) == {"x": 2}
    assert params_of(functools.partial(Methods.odd, methods), 1) == {"x": 1}
    assert params_of(Methods, 5) == {"args.0": 5}
    for static in (Methods.static_inside, Methods.static_outside):
        first = "a" if static is Methods.static_inside else "self"
        assert params_of(static, 3, 1) == {first: 3, "x": 1}
        assert params_of(static, methods, 1) == {first: f"{__name__}.Methods", "x": 1}


def test_a_plain_function_keeps_its_first_parameter() -> None:
    """In a function of no class, `cls` may be an ordinary argument."""

    @stage
    def train(cls: str, x: int) -> None: ...

    class Local:
        @stage
        def method(this, x: int) -> None: ...  # noqa: N805

        @staticmethod
        @stage
        def static(a: int, x: int) -> None: ...

        def bound(self, x: int) -> None: ...

    assert params_of(train, "LogReg", 1) == {"cls": "LogReg", "x": 1}
    assert params_of(Local().method, 1) == {"x": 1}
    assert params_of(Local.static, 2, 1) == {"a": 2, "x": 1}
    assert params_of(stage(Local().bound), 7) == {"x": 7}


def injecting(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return fn("session", *args, **kwargs)

    return inner


def test_arguments_that_a_wrapper_adds() -> None:
    """Arguments that do not match the wrapped function are recorded without names, and likely secrets are masked."""

    @stage
    @injecting
    def f(session: str, x: int, lr: float = 0.1) -> None: ...

    @stage
    @injecting
    def secret(session: str, key: Annotated[str, Secret]) -> None: ...

    @stage(params=["x"])
    @injecting
    def chosen(session: str, x: int) -> None: ...

    assert params_of(f, 5) == {"args.0": 5}
    assert params_of(f, x=5) == {"x": 5}
    assert params_of(secret, PLANT) == {"args.0": "***"}
    assert params_of(secret, key=PLANT) == {"key": "***"}
    assert params_of(chosen, 5) == {}


def test_a_wrapper_is_called_by_its_own_signature() -> None:
    """A wrapper with parameters of its own is bound by those; one that passes all on, by the function's."""

    def named(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def inner(x: int, lr: float = 0.5) -> Any:
            return fn("session", x, lr)

        return inner

    def leading(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def inner(session: str, *args: Any, **kwargs: Any) -> Any:
            return fn(session, *args, **kwargs)

        return inner

    def fn(session: str, x: int, lr: float = 0.1) -> None: ...

    def passing(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs)

        return inner

    assert params_of(stage(named(fn)), 5) == {"x": 5, "lr": 0.5}
    assert params_of(stage(leading(fn)), "s", 5) == {"session": "s", "x": 5, "lr": 0.1}
    assert params_of(stage(passing(fn)), "s", x=5) == {"session": "s", "x": 5, "lr": 0.1}
    assert params_of(stage(functools.lru_cache(fn)), "s", 5) == {"session": "s", "x": 5, "lr": 0.1}


def test_coroutines_are_bound_alike() -> None:
    """A wrapper around a coroutine function is bound in the same way."""

    @stage
    async def f(df: lib.Frame, key: Annotated[str, Secret]) -> None: ...

    def call(*args: Any) -> None:
        asyncio.run(f(*args))

    assert params_of(call, 1, PLANT) == {"df": 1, "key": "***"}
