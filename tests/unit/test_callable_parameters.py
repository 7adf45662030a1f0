"""Functions and other callables as parameters: two that differ are recorded as different texts."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from sklearn.metrics import fbeta_score, get_scorer, make_scorer, mean_squared_error

from tests.unit.test_secrets import recorded
from trackdsl import stage


def sgd(params: Any = None, lr: float = 0.1, **options: Any) -> None: ...


def login(password: str, user: str = "me") -> None: ...


@functools.lru_cache
def cached(x: int) -> int:
    return x


def doubled(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@doubled
def decorated() -> None: ...


@stage
def tracked() -> None: ...


def scaled(k: Any, api_key: str = "hunter22") -> Callable[..., Any]:
    def inner(x: float, m: Any = k) -> Any:
        return x * k * m, api_key

    return inner


def cycle() -> Callable[..., Any]:
    def one() -> Any:
        return other

    def other() -> Any:
        return one

    return one


def traced(x: torch.Tensor) -> torch.Tensor:
    return x + 1


class Net:
    def fit(self) -> None: ...

    @classmethod
    def build(cls) -> None: ...

    @staticmethod
    def load() -> None: ...

    later = functools.partialmethod(fit)

    def __call__(self) -> None: ...


class Deep(Net): ...


@dataclasses.dataclass
class Adam:
    lr: float = 0.1
    password: str = "hunter22"

    def step(self) -> None: ...


class Wrapper:
    """Like the wrappers of just-in-time compilers: an object that can be called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)

    def __call__(self) -> None: ...

    def __repr__(self) -> str:
        raise AssertionError("repr")


class Scaled:
    """A callable object with attributes."""

    __slots__ = ("_factor", "function", "token", "whole")

    def __init__(self, factor: float, function: Any = np.exp) -> None:
        self._factor, self.function, self.token, self.whole = factor, function, "hunter22", {"data": [1]}

    def __call__(self) -> None: ...

    def fit(self) -> None: ...


#: Values, and what they read as; `~` stands for the name of this module.
CALLABLES: list[tuple[Any, str]] = [
    (sgd, "~.sgd"), (cached, "~.cached"), (decorated, "~.decorated"), (tracked, "~.tracked"), (Net, "~.Net"),
    (json.dumps, "json.dumps"), (len, "builtins.len"), (math.sqrt, "math.sqrt"), (str.upper, "str.upper"),
    (dict.fromkeys, "builtins.dict.fromkeys"), ("x".upper, 'str.upper [self="x"]'),
    (np.mean, "numpy.mean"), (np.exp, "numpy.exp"), (np.linalg.norm, "numpy.linalg.norm"),
    (scipy.special.expit, "scipy.special.expit"), (np.vectorize(sgd), "numpy.vectorize(~.sgd)"),
    (torch.relu, "torch.relu"), (torch.nn.functional.relu, "torch.nn.functional.relu"),
    # Partial functions
    (functools.partial(sgd, lr=0.1), "partial(~.sgd, lr=0.1)"), (functools.partial(np.add, 1), "partial(numpy.add, 1)"),
    (functools.partial(sgd, [1, "a"], lr="0.1", f=np.exp), 'partial(~.sgd, [1, "a"], lr="0.1", f=numpy.exp)'),
    (functools.partial(functools.partial(sgd, 1), f=functools.partial(sgd)), "partial(~.sgd, 1, f=partial(~.sgd))"),
    (functools.partial(sgd, opt=Adam()), 'partial(~.sgd, opt=Adam {"lr": 0.1, "password": "***"})'),
    (functools.partial(sgd, Net(), {"a": {1, 2}}), 'partial(~.sgd, ~.Net, {"a": [1, 2]})'),
    ([functools.partial(sgd, lr=1), np.exp], "[partial(~.sgd, lr=1), numpy.exp]"),
    (vars(Net)["later"], "partialmethod(~.Net.fit)"), (Deep().later, "partial(~.Deep.fit)"),
    (functools.partial(login, "hunter22"), 'partial(~.login, "***")'),
    (functools.partial(login, password="hunter22", url="https://me:hunter22@h"),
     'partial(~.login, password="***", url="https://***@h")'),
    (functools.partial(sgd, ["--token", "hunter22"]), 'partial(~.sgd, ["--token", "***"])'),
    (operator.itemgetter(1, "a"), 'operator.itemgetter(1, "a")'),
    (operator.attrgetter("a.b"), 'operator.attrgetter("a.b")'),
    (operator.methodcaller("x", 1, a=2), 'operator.methodcaller("x", 1, a=2)'),
    # Methods and objects
    (Net().fit, "~.Net.fit"), (Deep().fit, "~.Deep.fit"), (Net.build, "~.Net.build"), (Deep.build, "~.Deep.build"),
    (Net.load, "~.Net.load"), (Net(), "~.Net"), (Wrapper(sgd), "~.Wrapper(~.sgd)"),
    (Scaled(2), '~.Scaled [_factor=2, function=numpy.exp, token="***"]'),
    (Scaled(3, sgd).fit, '~.Scaled.fit [_factor=3, function=~.sgd, token="***"]'),
    (functools.partial(Scaled(3), [1]), 'partial(~.Scaled [_factor=3, function=numpy.exp, token="***"], [1])'),
    (Adam(0.2).step, '~.Adam.step [self=Adam {"lr": 0.2, "password": "***"}]'),
    (scaled(2), '~.scaled.<locals>.inner [m=2, api_key="***", k=2]'),
    # Scorers and distributions
    (make_scorer(fbeta_score, beta=2), "make_scorer(sklearn.metrics._classification.fbeta_score, beta=2)"),
    (make_scorer(mean_squared_error, greater_is_better=False),
     "make_scorer(sklearn.metrics._regression.mean_squared_error, greater_is_better=false)"),
    (get_scorer("accuracy"), "make_scorer(sklearn.metrics._classification.accuracy_score)"),
    (scipy.stats.uniform(0, 2), "scipy.stats.uniform(0, 2)"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), CALLABLES, ids=[text for _, text in CALLABLES])
def test_callables_are_named(value: Any, text: str) -> None:
    """A callable is recorded by module and name, with its bound arguments and captured values, secrets masked."""
    assert recorded(value).params == {"x": text.replace("~", __name__)}


def test_compiled_functions_are_named() -> None:
    """Compiled functions of numba and JAX, where these are installed, are recorded by name."""
    numba = pytest.importorskip("numba")
    jax = pytest.importorskip("jax")
    name = f"{__name__}.sgd"
    assert [recorded(value).params["x"] for value in (numba.njit(sgd), jax.vmap(sgd))] == [name, name]
    assert name in recorded(jax.jit(sgd)).params["x"]


def test_lambdas_are_described_by_their_source() -> None:
    """A lambda is recorded by its source, with captured values and defaults, also if several are on one line."""

    def power(k: int) -> Any:
        return lambda x: x**k

    many: list[Any] = [lambda x: x + 1, lambda x: x - 1, power(2), power(3), lambda x, k=2: x * k]
    texts = [recorded(value).params["x"] for value in many]
    assert len(set(texts)) == len(many)
    assert all(text.startswith(f"{__name__}.test_lambdas_are_described_by_their_source.<locals>.") for text in texts)
    assert [text.partition("<lambda> ")[2] for text in texts] == [
        "(lambda x: x + 1)", "(lambda x: x - 1)", "(lambda x: x**k) [k=2]", "(lambda x: x**k) [k=3]",
        "(lambda x, k=2: x * k) [k=2]",
        ]  # fmt: skip


def test_lambdas_without_source() -> None:
    """The line and a digest of the code distinguish lambdas of a deleted notebook, or of a prompt."""
    made = [eval(source) for source in ("lambda x: x + 1", "lambda x: x + 2", "lambda x: x.a", "lambda x: x.b")]  # noqa: S307 - our own
    texts = [recorded(value).params["x"] for value in made]
    assert len(set(texts)) == len(made)
    assert "(line 1, digest " in texts[0]


@pytest.mark.parametrize(
    "values",
    [
        [functools.partial(sgd, lr=lr) for lr in (0.1, "0.1", [0.1], None, (0.1, 0.2), {0.5})],
        [scaled(k) for k in (1, "1", [1], 2.5)],
        [functools.partial(sgd, list(range(n))) for n in (500, 501)],
        [functools.partial(sgd, "x" * n) for n in (5000, 5001)],
        [functools.partial(sgd, **{f"k{i}": 0 for i in range(n)}, last=n) for n in (400, 401)],
        [functools.partial(sgd, np.full(50, n)) for n in (1, 2)],
        [Adam(lr).step for lr in (0.1, 0.2)],
        [np.exp, np.exp2, np.mean, np.median, torch.relu, torch.tanh],
        [cycle(), scaled(1)],
    ],
)
def test_callables_that_differ_read_differently(values: list[Any]) -> None:
    """Callables that differ have different texts of bounded length; functions that hold each other end."""
    texts = [recorded(value).params["x"] for value in values]
    assert len(set(texts)) == len(values)
    assert all(len(text) < 3000 for text in texts)


def test_keys_that_can_be_called() -> None:
    """Callables as keys are named as values are; no memory address is part of a parameter's name."""
    params = recorded({np.mean: 1, sgd: 2, Net: 3, object(): 4}).params
    assert params == {"x.numpy.mean": 1, f"x.{__name__}.sgd": 2, f"x.{__name__}.Net": 3, "x.object": 4}
