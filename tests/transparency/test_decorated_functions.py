"""Decorated code behaves as undecorated: each test asks both the same, and expects the same.

`python tests/transparency` asks other people's libraries, by their own tests.
"""

from __future__ import annotations

import abc
import asyncio
import copy
import doctest
import functools
import gc
import inspect
import logging
import os
import pickle
import sys
import threading
import traceback
import types
import typing
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import StartProgram
from trackdsl import experiment, stage, track_returns
from trackdsl.testing import capture_runs

DEEP = 900
DECORATORS: dict[str, Callable[[Any], Any]] = {
    "undecorated": lambda fn: fn,
    "stage": stage,
    "section": stage(nested=False),
    "experiment": experiment,
    "track_returns": track_returns,
    "stage and track_returns": lambda fn: stage(track_returns(fn)),
}
DECORATED = {name: decorator for name, decorator in DECORATORS.items() if name != "undecorated"}

Decorator = Callable[[Any], Any]


@pytest.fixture(params=DECORATORS.values(), ids=DECORATORS)
def decorator(request: pytest.FixtureRequest) -> Iterator[Decorator]:
    """A decorator, or none; its runs are captured."""
    with capture_runs(), stage("around"):
        yield request.param


class Weights:
    """Has an attribute that changes, and is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        """Give back what is given."""
        self.calls += 1
        return values

    def reset(self) -> None:
        """Start again."""
        self.calls = 0


def give(*values: Any) -> tuple[Any, ...]:
    return values


@stage
def by_name(x: int, *, y: int = 2) -> int:
    return x + y


by_value = stage(functools.partial(give, 1))


def test_what_goes_in_and_comes_out_is_the_very_object(decorator: Decorator) -> None:
    """Arguments, the returned object, and a raised exception with its cause and its context are the same objects."""
    given, returned, cause = object(), object(), KeyError("cause")
    error = ValueError("mine")
    seen = []

    @decorator
    def calculate(value: object, fail: bool) -> object:
        seen.append(value)
        if fail:
            raise error from cause
        return returned

    assert calculate(given, fail=False) is returned
    with pytest.raises(ValueError, match="mine") as raised:
        calculate(given, fail=True)
    assert raised.value is error
    assert (error.__cause__, error.__context__, getattr(error, "__notes__", [])) == (cause, None, [])
    assert all(value is given for value in seen)


def test_tracebacks_of_all_shapes_have_two_more_frames_at_most(decorator: Decorator) -> None:
    """A traceback of every kind of function has at most two more frames; the last one is where it was raised."""

    @decorator
    def plain() -> None:
        raise ValueError

    @decorator
    async def coroutine() -> None:
        raise ValueError

    @decorator
    def generator() -> Iterator[int]:
        yield 1
        raise ValueError

    @decorator
    async def asynchronous() -> AsyncIterator[int]:
        yield 1
        raise ValueError

    class Model:
        @decorator
        @classmethod
        def method(cls) -> None:
            raise ValueError

    def frames(call: Callable[[], Any]) -> list[str]:
        try:
            call()
        except ValueError as error:
            return [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        raise AssertionError

    async def drain() -> list[int]:
        return [value async for value in asynchronous()]

    for name, call in {
        "plain": plain,
        "method": Model.method,
        "coroutine": lambda: run_to_end(coroutine()),
        "generator": lambda: list(generator()),
        "asynchronous": lambda: run_to_end(drain()),
    }.items():
        found = frames(call)
        assert found[-1] == name
        assert len([frame for frame in found if frame == "wrapper"]) <= 2
        assert len([frame for frame in found if frame not in ("frames", "<lambda>", "run_to_end", "drain")]) <= 4


def run_to_end(coroutine: Any) -> Any:
    """As `await` does in a coroutine that waits for nothing; without the frames of an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError


def test_inspect_answers_as_for_the_function() -> None:
    """Signatures, kinds, sources and names of every shape are those of what is decorated."""

    def plain(x: int, /, y: float = 1.0, *rest: str, key: bytes, **more: int) -> list[int]:
        """Plain."""
        return []

    async def coroutine(x: int) -> int:
        return x

    def generator(x: int) -> Iterator[int]:
        yield x

    async def asynchronous(x: int) -> AsyncIterator[int]:
        yield x

    questions: list[Callable[[Any], Any]] = [
        inspect.signature,
        inspect.getdoc,
        inspect.getsource,
        inspect.getsourcelines,
        inspect.isfunction,
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        inspect.isroutine,
        inspect.ismethod,
        inspect.getmodule,
        callable,
        typing.get_type_hints,
        lambda fn: (fn.__name__, fn.__qualname__, fn.__module__, fn.__doc__),
        lambda fn: fn.__annotations__,
    ]
    for fn in (plain, coroutine, generator, asynchronous):
        for name, decorate in DECORATED.items():
            for number, question in enumerate(questions):
                assert question(decorate(fn)) == question(fn), (fn, name, number)


def test_hints_that_are_text_are_evaluated_where_the_function_is_defined(decorator: Decorator) -> None:
    """`typing.get_type_hints` and `inspect.signature(eval_str=True)` know the names of the function's module."""

    @decorator
    def load(path: Path, limit: int | None = None) -> types.SimpleNamespace:
        return types.SimpleNamespace(path=path, limit=limit)

    hints = {"path": Path, "limit": int | None, "return": types.SimpleNamespace}
    assert typing.get_type_hints(load) == hints
    evaluated = inspect.signature(load, eval_str=True)
    assert {name: parameter.annotation for name, parameter in evaluated.parameters.items()} == {
        "path": Path,
        "limit": int | None,
    }


@pytest.mark.parametrize("above", [True, False])
def test_singledispatch_above_and_below(decorator: Decorator, above: bool) -> None:
    """Implementations are registered and chosen by type, whichever decorator is above; each may be decorated."""

    def describe(value: object) -> str:
        return "object"

    made: Any = (
        functools.singledispatch(decorator(describe)) if above else decorator(functools.singledispatch(describe))
    )

    @made.register
    @decorator
    def _(value: int) -> str:
        return "int"

    @made.register(str)
    def _(value: str) -> str:
        return "str"

    assert (made(1), made("a"), made(1.0)) == ("int", "str", "object")
    assert set(made.registry) == {object, int, str}
    assert made.dispatch(bool)(True) == "int"


@pytest.mark.parametrize("above", [True, False])
def test_lru_cache_above_and_below(decorator: Decorator, above: bool) -> None:
    """A cached call is not made again, and the cache can be asked and cleared; also as a method."""
    made = []

    def double(value: int) -> int:
        made.append(value)
        return value * 2

    cache = functools.lru_cache(maxsize=2)
    fn: Any = cache(decorator(double)) if above else decorator(cache(double))
    assert [fn(1), fn(1), fn(2)] == [2, 2, 4]
    assert made == [1, 2]
    assert fn.cache_info() == (1, 2, 2, 2)
    assert fn.cache_parameters() == {"maxsize": 2, "typed": False}
    fn.cache_clear()
    assert fn.cache_info().currsize == 0

    class Model:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def scaled(self, value: int) -> int:
            return self.factor * value

        scaled_ = cache(decorator(scaled)) if above else decorator(cache(scaled))

    assert (Model(2).scaled_(3), Model(3).scaled_(3)) == (6, 9)


def classes_of(decorator: Decorator) -> tuple[Any, Any, Any]:  # noqa: C901 - methods of every kind
    """An abstract class, a class below it with decorated methods of every kind, and one below that."""

    class Base(abc.ABC):
        @abc.abstractmethod
        @decorator
        def predict(self, x: int) -> int:
            return x

        @property
        @abc.abstractmethod
        @decorator
        def name(self) -> str:
            return "base"

        @decorator
        def __enter__(self) -> Any:
            return self

        @decorator
        def __exit__(self, *_: object) -> None:
            self.left = True

    class Model(Base):
        kind = "model"

        @decorator
        def __init__(self, factor: int) -> None:
            super().__init__()
            self.factor = factor

        @decorator
        def predict(self, x: int) -> int:
            return super().predict(x) * self.factor

        @property
        @decorator
        def name(self) -> str:
            return f"{super().name}/{__class__.kind}"  # type: ignore[name-defined]

        @name.setter
        @decorator
        def name(self, value: str) -> None:
            self.renamed = value

        @functools.cached_property
        @decorator
        def size(self) -> object:
            return object()

        @classmethod
        @decorator
        def build(cls, factor: int = 2) -> Model:
            return cls(factor)

        @decorator
        @classmethod
        def built(cls) -> Model:
            return cls(3)

        @decorator
        @staticmethod
        def fixed(x: int) -> int:
            return x

        @decorator
        def __getitem__(self, key: Any) -> Any:
            return key

        @decorator
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Model) and other.factor == self.factor

        __hash__ = None  # type: ignore[assignment]

        twice = functools.partialmethod(predict, 2)

    class Smaller(Model):
        @decorator
        def predict(self, x: int) -> int:
            return super().predict(x) - 1

    return Base, Model, Smaller


def test_abstract_methods(decorator: Decorator) -> None:
    """A class with abstract methods cannot be instantiated, and says which ones they are."""
    base, model, _ = classes_of(decorator)
    for abstract in (base, type("Partly", (base,), {"predict": lambda self, x: x})):
        with pytest.raises(TypeError, match="abstract"):
            abstract()
    assert base.__abstractmethods__ == {"predict", "name"}
    assert not model.__abstractmethods__


def test_methods(decorator: Decorator) -> None:
    """Class and static methods, partial methods, `super()` and methods with special names work in every class."""
    _, model_class, smaller = classes_of(decorator)
    model = model_class.build()
    assert (model.predict(4), model.twice(), model.fixed(1), model_class.fixed(1)) == (8, 4, 1, 1)
    assert (model_class.built().factor, model[1:2], model == model_class(2)) == (3, slice(1, 2), True)
    with model as entered:
        assert entered is model
    assert model.left
    assert smaller(2).predict(4) == 7
    assert isinstance(smaller.build(), smaller)


def test_properties(decorator: Decorator) -> None:
    """Properties with setters and cached properties work, with `super()` and `__class__` inside."""
    model = classes_of(decorator)[1].build()
    assert model.name == "base/model"
    assert model.size is model.size
    model.name = "other"
    assert model.renamed == "other"


def test_bound_methods(decorator: Decorator) -> None:
    """A bound method has its object and its signature."""
    model = classes_of(decorator)[1].build()
    assert model.predict.__self__ is model
    assert inspect.ismethod(model.predict)
    assert inspect.signature(model.predict) == inspect.Signature(
        [inspect.Parameter("x", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="int")], return_annotation="int"
    )


def test_objects_that_are_called(decorator: Decorator) -> None:
    """Callable objects keep attributes, class, `repr`, equality, binding, copies and pickling."""
    weights = Weights()
    made = decorator(weights)
    assert made(1, 2) == (1, 2)
    assert (made.calls, isinstance(made, Weights), repr(made), made == weights) == (1, True, repr(weights), True)
    made.calls = 5
    assert weights.calls == 5
    made.reset()
    assert made.calls == 0
    partial: Any = decorator(functools.partial(give, 1))
    assert (partial.func, partial.args, partial(2), isinstance(partial, functools.partial)) == (
        give,
        (1,),
        (1, 2),
        True,
    )
    assert not hasattr(made, "__name__")

    class Model:
        scale = decorator(Weights())
        add = decorator(functools.partial(give, 1))
        size = decorator(len)

    assert (Model().scale(), Model().add(), Model().size([1])) == ((), (1,), 1)
    for fn in (made, partial):
        for same in (pickle.loads(pickle.dumps(fn)), copy.copy(fn), copy.deepcopy(fn)):
            assert same is not fn
            assert same(3)[-1] == 3
    assert inspect.signature(made) == inspect.signature(weights)


@pytest.mark.slow
def test_copies_and_weak_references(decorator: Decorator) -> None:
    """A function is its own copy; after it is dropped, nothing of it stays in memory."""

    @decorator
    def fn() -> int:
        return 1

    assert copy.copy(fn) is copy.deepcopy(fn) is fn
    reference = weakref.ref(fn)
    assert fn() == 1
    method = weakref.WeakMethod(Holder(decorator).method)
    gc.collect()
    assert method() is None
    del fn
    gc.collect()
    assert reference() is None


class Holder:
    """Has a decorated method of its own."""

    def __init__(self, decorator: Decorator) -> None:
        self.method = types.MethodType(decorator(give), self)


def test_doctests_of_decorated_functions_are_found(decorator: Decorator, monkeypatch: pytest.MonkeyPatch) -> None:
    """`doctest` finds and runs the examples of functions and methods."""
    module = types.ModuleType("examples")
    source = '''
@decorator
def add(x):
    """Add.

    >>> add(1)
    2
    """
    return x + 1

class Model:
    @decorator
    def double(self, x):
        """
        >>> Model().double(2)
        4
        """
        return x * 2
'''
    monkeypatch.setitem(sys.modules, "examples", module)
    vars(module)["decorator"] = decorator
    exec(source, vars(module))  # noqa: S102 - the source above
    results = doctest.testmod(module)
    assert (results.attempted, results.failed) == (2, 0)


def test_pickling_by_name() -> None:
    """A decorated function of a module is pickled as its name, as undecorated; an object as its value."""
    data = pickle.dumps(by_name)
    assert pickle.loads(data) is by_name
    assert len(data) < 100
    arrived = pickle.loads(pickle.dumps(by_value))
    with capture_runs() as captured:
        assert arrived(2) == (1, 2)
    assert [run.status for run in captured.runs] == ["FINISHED"]


MAIN = """
import asyncio, functools, pickle, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cloudpickle
from trackdsl import experiment, stage, track_returns

OFFSET = 10

@stage
def plain(x): return x + OFFSET
@experiment
def root(x): return plain(x)
@stage
@track_returns
def offset(x): return x + OFFSET
@stage(nested=False)
def section(x): return x + OFFSET
@stage
async def coroutine(x): return x + OFFSET
@stage
def generator(x): yield x + OFFSET
@stage
async def asynchronous(x): yield x + OFFSET
@stage
def deep(n): return OFFSET if not n else deep(n - 1)
class Model:
    @stage
    def method(self, x): return x + OFFSET
    @stage
    @classmethod
    def build(cls, x): return x + OFFSET
def closing(offset):
    @stage
    def inner(x): return x + offset
    return inner
partial = stage(functools.partial(plain))

READ = '''
import asyncio, pickle, sys
async def all_of(values): return [value async for value in values]
for kind, fn in pickle.loads(sys.stdin.buffer.read()):
    got = fn(900 if kind == "deep" else 1)
    got = asyncio.run(got) if kind == "coroutine" else asyncio.run(all_of(got)) if kind == "asynchronous" else got
    print(kind, list(got) if kind == "generator" else got)
'''

if __name__ == "__main__":
    named = {"plain": plain, "root": root, "offset": offset, "section": section, "method": Model().method,
             "build": Model.build, "partial": partial, "deep": deep}
    later = {"coroutine": coroutine, "generator": generator, "asynchronous": asynchronous}
    for fn in (plain, root, offset, section, coroutine, generator, asynchronous, deep, Model, Model.build):
        assert pickle.loads(pickle.dumps(fn)) == fn, fn
    with experiment("around"):
        for _ in range(2):  # The second time each has been called.
            for method in ("fork", "spawn"):
                with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
                    assert {name: pool.submit(fn, 1).result() for name, fn in named.items()} == {
                        **dict.fromkeys(named, 11), "deep": 10}
            data = cloudpickle.dumps([*named.items(), *later.items(), ("closing", closing(10))])
            done = subprocess.run([sys.executable, "-c", READ], input=data, capture_output=True, check=False)
            assert not done.returncode and not done.stderr, done.stderr.decode()
            kinds = [*named, *later, "closing"]
            values = {"deep": 10, "generator": [11], "asynchronous": [11]}
            expected = [f"{kind} {values.get(kind, 11)}" for kind in kinds]
            assert done.stdout.decode().splitlines() == expected, done.stdout
            assert [list(generator(1)), asyncio.run(coroutine(1)), deep(900), closing(10)(1)] == [[11], 11, 10, 11]
"""


@pytest.mark.slow
def test_functions_of_main_travel_by_pickle_and_by_cloudpickle(start: StartProgram) -> None:
    """Functions of `__main__` are pickled to workers by name, and to a process without the program by value."""
    code, _, err = start(MAIN, TRACKDSL_MODE="offline").finish()
    assert (code, err) == (0, "")


def test_warnings_and_logs_point_at_the_caller(decorator: Decorator) -> None:
    """`warnings.warn(stacklevel=2)` of a decorated function has the file and line of its caller."""

    @decorator
    def plain() -> None:
        warnings.warn("old", DeprecationWarning, stacklevel=2)

    @decorator
    def generator() -> Iterator[int]:
        warnings.warn("old", DeprecationWarning, stacklevel=2)
        yield 1

    @decorator
    async def coroutine() -> None:
        warnings.warn("old", DeprecationWarning, stacklevel=2)

    async def waiting() -> None:
        await coroutine()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plain()
        list(generator())
        asyncio.run(waiting())
    assert [warning.filename for warning in caught] == [__file__] * 3
    source = Path(__file__).read_text().splitlines()
    assert [source[warning.lineno - 1].strip() for warning in caught] == [
        "plain()",
        "list(generator())",
        "await coroutine()",
    ]


def test_logs_point_at_the_caller(decorator: Decorator, caplog: pytest.LogCaptureFixture) -> None:
    """`logging` with `stacklevel=2` in a decorated function has the file and function of its caller."""

    @decorator
    def warn() -> None:
        logging.getLogger("mine").warning("logged", stacklevel=2)

    warn()
    record = caplog.records[-1]
    assert (record.pathname, record.funcName) == (__file__, "test_logs_point_at_the_caller")


def test_fakes_of_a_test_see_no_calls_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that replaces functions of the system by fakes finds only the calls of its own code there."""
    with capture_runs():
        by_name(1)
        calls = []
        for module, name in ((os, "getcwd"), (os, "urandom"), (os.path, "abspath"), (Path, "cwd")):
            monkeypatch.setattr(module, name, lambda *_, name=name: calls.append(name))
        by_name(1)
        with experiment("outermost"):
            by_name(1)
        monkeypatch.undo()
    assert not calls


def _recursions(decorator: Decorator) -> dict[str, Callable[[int], Any]]:
    @decorator
    def plain(n: int) -> int:
        return n if not n else plain(n - 1)

    @decorator
    def generator(n: int) -> Generator[int, None, None]:
        if n:
            yield from generator(n - 1)
        else:
            yield 0

    @decorator
    async def coroutine(n: int) -> int:
        return n if not n else await coroutine(n - 1)

    class Model:
        @decorator
        def method(self, n: int) -> int:
            return n if not n else self.method(n - 1)

    return {
        "plain": plain,
        "generator": lambda n: sum(generator(n)),
        "coroutine": lambda n: asyncio.run(coroutine(n)),
        "method": Model().method,
    }


@pytest.mark.parametrize("kind", ["plain", "generator", "coroutine", "method"])
def test_a_recursion_of_900_calls(decorator: Decorator, kind: str) -> None:
    """A recursion goes as deep as undecorated, in a thread with the usual limit; the limit is restored afterwards."""
    if kind == "generator" and sys.version_info[:2] == (3, 12):
        pytest.skip("Python 3.12 limits calls through C, such as `next`, and lets nobody raise that: some 700")
    limit = sys.getrecursionlimit()
    recurse = _recursions(decorator)[kind]
    found: list[Any] = []

    def in_thread() -> None:
        try:
            found.append(recurse(DEEP))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert found == [0]
    assert sys.getrecursionlimit() == limit


@pytest.mark.slow
@pytest.mark.usefixtures("no_collection")
def test_a_recursion_without_end_still_ends(decorator: Decorator) -> None:
    """A recursion without end raises RecursionError at about the usual depth, and does not crash."""
    recurse = _recursions(decorator)["plain"]
    with pytest.raises(RecursionError):
        recurse(10**9)


PYTEST = '''
import pytest
from trackdsl import experiment, stage, track_returns

@pytest.fixture
@stage
def data():
    """A fixture."""
    return [1, 2]

@pytest.fixture
@stage
def opened(data):
    data.append(3)
    yield data
    data.clear()

@stage
@pytest.mark.parametrize("x", [1, 2])
def test_fixtures_and_parameters(opened, x):
    assert x in opened

@experiment
def test_root(tmp_path, monkeypatch):
    assert tmp_path.exists()

@stage
def deep(n):
    return n and deep(n - 1)

def test_deep():
    assert deep(900) == 0

class TestModel:
    @pytest.fixture(autouse=True)
    @stage
    def ready(self):
        self.ready = True

    @track_returns
    @stage
    def test_method(self, data):
        assert self.ready and data == [1, 2]

    @stage
    def test_fails(self):
        assert [1] == [2]
'''


@pytest.mark.slow
def test_fixtures_and_tests_of_pytest(tmp_path: Path, start: StartProgram) -> None:
    """Decorated fixtures, yielding fixtures, parametrized tests and methods run; failures show the user's own lines."""
    (tmp_path / "test_mine.py").write_text(PYTEST)
    program = start(
        """
        import sys, pytest
        sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly",
                              "--rootdir", sys.argv[1], sys.argv[1] + "/test_mine.py"]))
        """,
        str(tmp_path),
        TRACKDSL_MODE="offline",
    )
    _, out, err = program.finish()
    assert "1 failed, 5 passed" in out, out + err
    assert "assert [1] == [2]" in out


def test_nothing_recorded_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With recording disabled, decorated functions return what they returned."""
    monkeypatch.setenv("TRACKDSL_MODE", "disabled")
    trackdsl.configure(mode="disabled")
    for decorate in DECORATED.values():
        assert [decorate(give)(1), decorate(Weights())(1)] == [(1,), (1,)]
        assert list(decorate(lambda: (yield 1))()) == [1]
