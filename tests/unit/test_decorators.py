"""The three decorators: what they accept, where runs go, and that decorated code behaves as before."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import pickle
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from types import CodeType
from typing import Any

import cloudpickle
import pytest

import trackdsl
from trackdsl import experiment, log_metric, stage, track_returns
from trackdsl._core.recursion_limit import _BY_VALUE, _is_wrapper
from trackdsl.testing import Captured, capture_runs


@stage
def module_level(x: int, y: int = 2) -> int:
    """Add."""
    return x + y


def test_bare_and_called_decorators_record_the_same() -> None:
    """`@stage` and `@stage()` give the same run: name, parameters with defaults, status."""

    @stage()
    def called(x: int, y: int = 2) -> int:
        return x + y

    with capture_runs() as captured:
        assert module_level(1) == called(1) == 3
    first, second = captured.runs
    assert (first.name, first.params, first.status) == ("module_level", {"x": 1, "y": 2}, "FINISHED")
    assert (second.name, second.params, second.status) == ("called", {"x": 1, "y": 2}, "FINISHED")


def test_blocks_are_runs_with_parameters() -> None:
    """`with stage("split", seed=42)` opens a run whose parameters are the further keywords."""
    with capture_runs() as captured, experiment("churn", tags={"team": "a"}), stage("split", seed=42) as run:
        run.log_metric("rows", 10)
    root, split = captured.runs
    assert (root.name, root.experiment, root.tags, root.decorator) == ("churn", "churn", {"team": "a"}, "experiment")
    assert split.parent is not None
    assert (split.parent.id, split.params, split.metric("rows")) == (root.id, {"seed": 42}, 10)


def test_the_table_where_a_run_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is a root or a child, in the MLflow experiment that the table of the design names."""
    monkeypatch.setenv("TRACKDSL_EXPERIMENT_NAME", "configured")
    with capture_runs() as captured:
        with experiment("outer"):
            with experiment("inner"):
                pass
            with stage("child"):
                pass
            with stage("section", nested=False, a=1):
                pass
        with stage("lonely"):
            pass
        with stage("lonely section", nested=False):
            pass
    found = {run.name: run for run in captured.runs}
    outer = found["outer"]
    assert outer.parent is None
    assert outer.experiment == "outer"
    assert found["inner"].parent is outer
    assert (found["inner"].experiment, found["inner"].tags) == ("outer", {"trackdsl.experiment": "inner"})
    assert found["child"].parent is outer
    assert outer.params == {"section.a": 1}
    assert found["lonely"].parent is None
    assert found["lonely"].experiment == found["lonely section"].experiment == "configured"
    assert "section" not in found


def test_a_section_has_no_run_of_its_own() -> None:
    """`nested=False` writes parameters once, and metrics with the index of the call as step."""

    @stage(nested=False)
    @track_returns
    def score(n: int) -> dict[str, float]:
        return {"value": n * 2.0}

    with capture_runs() as captured, experiment("e"):
        for n in range(3):
            score(n)
    (run,) = captured.runs
    assert run.params == {"score.n": 0}
    assert [(p.step, p.value) for p in run.metrics["score/value"]] == [(0, 0.0), (1, 2.0), (2, 4.0)]
    assert [p.step for p in run.metrics["score/seconds"]] == [0, 1, 2]


def test_methods_leave_out_their_receiver_in_any_order() -> None:
    """Methods, class methods and static methods, above and below their own decorators."""

    class Model:
        @stage
        def method(self, a: int) -> int:
            return a

        @stage
        @classmethod
        def outside_class(cls, a: int) -> type:
            return cls

        @classmethod
        @stage
        def inside_class(cls, a: int) -> type:
            return cls

        @stage
        @staticmethod
        def outside_static(a: int) -> int:
            return a

        @staticmethod
        @stage
        def inside_static(a: int) -> int:
            return a

    with capture_runs() as captured:
        assert Model().method(1) == 1
        assert Model.outside_class(1) is Model().inside_class(1) is Model
        assert Model.outside_static(1) == Model().inside_static(1) == 1
    assert [run.params for run in captured.runs] == [{"a": 1}] * 5


def _passing(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def passing(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return passing


@pytest.mark.parametrize(
    "decorate",
    [
        lambda fn: stage(track_returns("score")(fn)),
        lambda fn: track_returns("score")(stage(fn)),
        lambda fn: stage(_passing(track_returns("score")(fn))),
        lambda fn: track_returns("score")(_passing(stage(fn))),
        lambda fn: _passing(track_returns("score")(_passing(stage(_passing(fn))))),
    ],
    ids=["stage-returns", "returns-stage", "stage-other-returns", "returns-other-stage", "others-everywhere"],
)
def test_any_stacking_order_puts_the_values_on_the_stage(decorate: Callable[[Any], Any]) -> None:
    """However the decorators are stacked, the returned values are on the run of the stage, once."""

    def fit(lr: float) -> float:
        return lr * 2

    with capture_runs() as captured, experiment("e"):
        assert decorate(fit)(0.5) == 1.0
    root, run = captured.runs
    assert not root.metrics
    assert (run.name, run.params, run.metric("score"), len(run.metrics["score"])) == ("fit", {"lr": 0.5}, 1.0, 1)


def test_two_decorators_on_one_function_are_two_runs() -> None:
    """`@experiment` above `@stage` opens a root and its child."""

    @experiment("e")
    @stage
    def both(a: int) -> None: ...

    with capture_runs() as captured:
        both(1)
    assert [run.path for run in captured.runs] == ["both", "both/both"]
    assert captured.runs[0].experiment == "e"


def test_templates_are_filled_with_arguments() -> None:
    """`{name}` in a name is the argument; an object of unknown type shows its class, a secret its mask."""

    class Frame:
        rows = 3

        def __repr__(self) -> str:
            raise AssertionError("the repr of an unknown object must not be taken")

    @stage("fit-{model}-{lr:.2f}-{frame}-{frame.rows}-{password}")
    def fit(model: str, frame: Frame, lr: float = 0.125, password: str = "x") -> None: ...

    @experiment("churn-{country}", run_name="of-{country}")
    def churn(country: str) -> None: ...

    with capture_runs() as captured:
        fit("rf", Frame())
        churn("ch")
        with stage("block-{n}", n=1), stage("literal {braces}"):
            pass
    names = [run.name for run in captured.runs]
    assert names[0].startswith("fit-rf-0.12-")
    assert names[0].endswith("Frame-3-***")
    assert names[1:] == ["of-ch", "block-1", "literal {braces}"]
    assert captured.runs[1].experiment == "churn-ch"


def _misuses() -> dict[str, tuple[Callable[[], Any], type[Exception], str]]:
    def two() -> tuple[int, int]:
        return 1, 2

    return {
        "unknown option": (lambda: stage(nestd=True)(two), trackdsl.OptionError, "did you mean `nested`"),
        "unknown option of experiment": (
            lambda: experiment("e", retuns=True),  # type: ignore[call-overload]
            trackdsl.OptionError,
            "did you mean `returns`",
        ),
        "unknown option of track_returns": (
            lambda: track_returns("a", prefx="x"),  # type: ignore[call-overload]
            trackdsl.OptionError,
            "did you mean `prefix`",
        ),
        "template over no parameter": (
            lambda: stage("fit-{modl}")(two),
            trackdsl.TemplateError,
            "not a parameter of two()",
        ),
        "template with a lone brace": (lambda: stage("fit-{")(two), trackdsl.TemplateError, "{{ and }}"),
        "params that are none": (lambda: stage(params=["z"])(two), trackdsl.OptionError, "not a parameter of two()"),
        "too many names for the annotation": (
            lambda: track_returns("a", "b", "c")(two),
            trackdsl.ReturnsError,
            "has 3 names, but two() returns 2 values. Remove 'c'",
        ),
        "not a function": (lambda: stage(3), trackdsl.OptionError, "takes a name"),
        "a class": (lambda: stage(int), trackdsl.OptionError, "functions and methods"),
        "a property": (lambda: stage(property(two)), trackdsl.OptionError, "below @property"),  # type: ignore[type-var]
        "a wrong type": (lambda: stage("x", nested="no"), trackdsl.OptionError, "takes a bool"),  # type: ignore[call-overload]
        "unknown setting": (lambda: trackdsl.configure(mod="x"), trackdsl.SettingsError, "did you mean `mode`"),
        "unknown mode": (lambda: trackdsl.configure(mode="ofline"), trackdsl.SettingsError, "did you mean `offline`"),
    }


@pytest.mark.parametrize("misuse", _misuses())
def test_misuse_is_an_error_that_names_the_fix(misuse: str) -> None:
    """Each misuse raises at once, and the message says what to write instead."""
    provoke, error, fix = _misuses()[misuse]
    with capture_runs(), pytest.raises(error) as raised:
        provoke()
    assert fix in str(raised.value)
    assert isinstance(raised.value, trackdsl.TrackdslError)


def test_decorated_functions_look_as_before() -> None:
    """Name, docstring, signature and pickling of a decorated function are those of the function."""
    assert module_level.__name__ == "module_level"
    assert module_level.__doc__ == "Add."
    assert str(inspect.signature(module_level)) == "(x: 'int', y: 'int' = 2) -> 'int'"
    assert inspect.isfunction(module_level)
    assert pickle.loads(pickle.dumps(module_level)) is module_level


def test_a_function_of_main_travels_by_cloudpickle_and_still_records() -> None:
    """A function of `__main__` that cloudpickle copies by value still records its calls."""

    @stage
    @track_returns
    def travelling(x: int) -> int:
        return x + 1

    copy = cloudpickle.loads(cloudpickle.dumps(travelling))
    with capture_runs() as captured:
        assert copy(1) == 2
    assert captured.one("travelling").metric("travelling") == 2


def test_a_missing_argument_is_no_secret_after_cloudpickle() -> None:
    """A copy by cloudpickle records no mask for a secret parameter that the call did not give."""

    @stage
    def login(user: str, password: str) -> None: ...

    copy = cloudpickle.loads(cloudpickle.dumps(login))
    with capture_runs() as captured:
        for function in (login, copy):
            with pytest.raises(TypeError, match="missing 1 required positional argument"):
                function("ada")
    assert [run.params for run in captured.runs] == [{"user": "ada"}, {"user": "ada"}]


def test_exceptions_pass_unchanged_with_one_more_frame() -> None:
    """The same exception object arrives, and its traceback has one frame of trackdsl."""
    error = ValueError("mine")

    @stage
    def fail() -> None:
        raise error

    with capture_runs() as captured, pytest.raises(ValueError, match="mine") as raised:
        fail()
    assert raised.value is error
    assert len(traceback.extract_tb(error.__traceback__)) == 3
    failure = captured.one("fail").failure
    assert failure is not None
    assert (failure.type, failure.message) == ("ValueError", "mine")
    assert "trackdsl/_call" not in failure.traceback


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError(), "FAILED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(None), "FINISHED"),
        (SystemExit(3), "FAILED"),
        (SystemExit("message"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (asyncio.CancelledError(), "KILLED"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("form", ["decorator", "block"])
def test_status_is_truthful(error: BaseException, status: str, form: str) -> None:
    """A run is FINISHED if the code returned, FAILED if it raised, KILLED if interrupted; `sys.exit(0)` is FINISHED."""

    def end() -> None:
        raise error

    with capture_runs() as captured, pytest.raises(type(error)):
        if form == "decorator":
            stage("it")(end)()
        else:
            with stage("it"):
                end()
    assert captured.one("it").status == status


def test_coroutines_keep_their_own_run_under_gather() -> None:
    """Gathered coroutines record on their own runs, all children of the one that gathered them."""

    @stage
    async def fit(n: int) -> int:
        log_metric("before", n)
        await asyncio.sleep(0)
        log_metric("after", n)
        return n

    @experiment("sweep")
    async def sweep() -> list[int]:
        return await asyncio.gather(*(fit(n) for n in range(20)))

    assert inspect.iscoroutinefunction(sweep)
    with capture_runs() as captured:
        assert asyncio.run(sweep()) == list(range(20))
    (root,) = captured.roots
    assert len(root.children) == 20
    for run in root.children:
        assert run.metric("before") == run.metric("after") == run.params["n"]


@pytest.mark.parametrize("as_task", [False, True])
def test_a_coroutine_function_behind_a_plain_decorator(as_task: bool) -> None:
    """Another library's wrapper returns the coroutine, or a task of it: the run ends with that."""

    async def fit(lr: float) -> float:
        await asyncio.sleep(0)
        return 1 / lr

    @functools.wraps(fit)
    def library(lr: float) -> Any:
        return asyncio.ensure_future(fit(lr)) if as_task else fit(lr)

    decorated = track_returns("accuracy")(stage(library))

    async def main() -> None:
        begun = decorated(0.5)
        assert captured.one("fit").status == "RUNNING"
        assert await begun == 2.0
        with pytest.raises(ZeroDivisionError):
            await decorated(0.0)

    with capture_runs() as captured:
        asyncio.run(main())
    first, second = captured.runs
    assert (first.status, first.metric("accuracy"), first.params) == ("FINISHED", 2.0, {"lr": 0.5})
    assert second.status == "FAILED"


def test_methods_of_each_kind() -> None:
    """A decorator above `classmethod`, `staticmethod`, `partialmethod` and `singledispatchmethod` keeps their kind."""

    class Model:
        def fit(self, lr: float, epochs: int) -> float:
            return lr * epochs

        quick = stage("quick")(functools.partialmethod(fit, epochs=2))

        @stage
        @classmethod
        def make(cls, lr: float) -> str:
            return f"{cls.__name__} {lr}"

        @stage
        @staticmethod
        def load(path: str) -> str:
            return path

        @stage
        @functools.singledispatchmethod
        def describe(self, value: object) -> str:
            return "object"

        @describe.register
        def _(self, value: int) -> str:
            return "int"

    class Child(Model): ...

    with capture_runs() as captured:
        assert (Child.make(0.1), Model.load("x"), Model().quick(0.5)) == ("Child 0.1", "x", 1.0)
        assert (Model().describe(1), Model().describe("a")) == ("int", "object")
    assert [run.name for run in captured.runs] == ["make", "load", "quick", "describe", "describe"]
    assert [run.params.get("lr") for run in captured.runs[:3]] == [0.1, None, 0.5]
    assert {run.status for run in captured.runs} == {"FINISHED"}


def test_async_blocks() -> None:
    """`async with stage(...)` is the same run as `with stage(...)`."""

    async def body() -> None:
        async with experiment("e"), stage("inner", a=1) as run:
            run.log_metric("m", 1)

    with capture_runs() as captured:
        asyncio.run(body())
    assert captured.one("inner").metric("m") == 1
    assert captured.one("inner").status == "FINISHED"


def test_current_run_and_parents() -> None:
    """`current_run()` is the innermost run, and None outside."""
    with capture_runs():
        assert trackdsl.current_run() is None
        with stage("a") as a:
            assert trackdsl.current_run() is a
            with stage("b") as b:
                assert trackdsl.current_run() is b
                assert b.parent is a
                assert (b.path, b.name, len(b.id)) == ("a/b", "b", 32)
            assert trackdsl.current_run() is a


def test_one_block_object_serves_again_and_inside_itself() -> None:
    """A `stage(...)` object in a variable opens a run at each entry, also while it is open."""
    block = stage("again", n=1)
    with capture_runs() as captured:
        with block as outer, block as inner:
            assert inner.parent is outer
        with block:
            pass
    assert [run.path for run in captured.runs] == ["again", "again/again", "again"]
    assert {run.status for run in captured.runs} == {"FINISHED"}


def test_a_call_outside_of_any_run_is_reported_once_per_line(caplog: pytest.LogCaptureFixture) -> None:
    """A `log_metric` without a run records nothing, raises nothing, and says so once, with its line."""
    with capture_runs() as captured:
        for _ in range(3):
            log_metric("lost", 1)
    assert not captured.runs
    (record,) = caplog.records
    assert __file__ in record.message
    assert "with stage" in record.message


def test_strict_raises_what_is_otherwise_logged() -> None:
    """`strict=True` turns a fault in tracking into an exception."""
    trackdsl.configure(strict=True)
    with capture_runs(), pytest.raises(trackdsl.TrackingFault):
        log_metric("lost", 1)


def test_disabled_does_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """With mode `disabled` everything can be called, nothing is written, and nothing is logged."""
    trackdsl.configure(mode="disabled")

    @experiment("e")
    @track_returns("a")
    def pipeline() -> int:
        log_metric("m", 1)
        with stage("s", x=1) as run:
            run.log_metric("m", 1)
            run.log_text("t", "t.txt")
            run.set_tag("a", "b")
        return 1

    assert pipeline() == 1
    assert trackdsl.flush() is True
    assert not caplog.records
    assert not list(trackdsl.settings.spool().parent.glob("spool/**/*.seg"))  # type: ignore[union-attr]


def test_the_pytest_fixture(trackdsl_runs: Captured) -> None:
    """`trackdsl_runs`, which comes with the package, captures what the test records."""
    module_level(1)
    assert trackdsl_runs.one("module_level").params == {"x": 1, "y": 2}
    with pytest.raises(LookupError, match="0 runs are named 'other'; recorded: module_level"):
        trackdsl_runs.one("other")


def test_a_block_that_is_left_in_another_context_ends() -> None:
    """Blocks of interleaved generators, and blocks that are left in another thread than they were entered, all end."""

    def rows(name: str) -> Iterator[int]:
        with stage(name):
            yield from range(2)

    with capture_runs() as captured, experiment("e"):
        list(zip(rows("a"), rows("b"), strict=True))
        with contextlib.ExitStack() as stack:
            thread = threading.Thread(target=lambda: stack.enter_context(stage("entered elsewhere")))
            thread.start()
            thread.join()
    assert len(captured.runs) == 4
    assert {run.status for run in captured.runs} == {"FINISHED"}


def test_a_block_is_entered_again_while_it_is_open() -> None:
    """The same block, nested in itself and in several threads at once, opens a run at each entry, and all end."""
    block = stage("again")

    def enter(barrier: threading.Barrier) -> None:
        with block:
            barrier.wait()

    with capture_runs() as captured:
        barrier = threading.Barrier(4)
        threads = [threading.Thread(target=enter, args=(barrier,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with block, block:
            pass
    assert len(captured.runs) == 6
    assert {run.status for run in captured.runs} == {"FINISHED"}


def test_names_are_masked_too() -> None:
    """Credentials in a decorator's name, or in what a template fills in, are not in the journal."""

    class Address:
        netloc = "https://u:hunter2hunter2@host"

    @stage("load https://u:hunter2hunter2@host")
    def load() -> None: ...

    @experiment("ex https://u:hunter2hunter2@host", run_name="{address.netloc}")
    def main(address: Any) -> None:
        load()

    with capture_runs() as captured:
        main(Address())
    assert [run.name for run in captured.runs] == ["https://***@host", "load https://***@host"]
    assert captured.runs[0].experiment == "ex https://***@host"


def test_wrappers_that_were_pickled_by_value_count_as_wrappers() -> None:
    """The recursion limit is raised for a wrapper of each kind, also where cloudpickle has changed its file name."""

    def plain() -> None: ...

    async def coroutine() -> None: ...

    def generator() -> Iterator[None]:
        yield

    async def agenerator() -> AsyncIterator[None]:
        yield

    for fn in (plain, coroutine, generator, agenerator):
        code: CodeType = stage(fn).__code__  # type: ignore[attr-defined]
        assert _is_wrapper(code.replace(co_filename=_BY_VALUE)), fn
        assert not _is_wrapper(fn.__code__.replace(co_filename=_BY_VALUE)), fn
