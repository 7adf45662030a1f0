"""Tools treat decorated functions as undecorated: doctest, pickle, cloudpickle, warnings, logging, mocks, pytest."""

from __future__ import annotations

import asyncio
import doctest
import functools
import logging
import os
import pickle
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartProgram
from tests.transparency.decorators import Decorator, give
from trackdsl import experiment, stage
from trackdsl.testing import capture_runs


@stage
def by_name(x: int, *, y: int = 2) -> int:
    return x + y


by_value = stage(functools.partial(give, 1))


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
