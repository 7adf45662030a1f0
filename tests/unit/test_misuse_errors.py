"""Functions used in another way than they are meant: what is wrong, where, and what to write instead."""

from __future__ import annotations

import asyncio
import copy
import importlib
import inspect
import pickle
import pydoc
import sys
from collections.abc import Callable
from typing import Any

import click
import cloudpickle
import pytest

import trackdsl
from trackdsl import experiment, stage, track_returns
from trackdsl._decorate import misuse
from trackdsl.errors import OptionError, format_error
from trackdsl.testing import capture_runs


class Plain: ...


async def _async_with(block: Any) -> None:
    async with block:
        pass


def _with(block: Any) -> None:
    with block:
        pass


def _with_run() -> None:
    with stage("s") as run:
        _with(run)


async def _coroutine() -> None: ...


def _of_coroutine(function: Any) -> Any:
    called = _coroutine()
    try:
        return function(called)
    finally:
        called.close()


def _in_stage(doing: Callable[[], Any]) -> None:
    with stage("s"):
        doing()


def _two(a: int, b: int) -> None: ...


@click.command()
def _command() -> None: ...


#: What is done, and what the error says among other things.
MISUSES: dict[str, tuple[Callable[[], Any], str]] = {
    "with stage:": (lambda: _with(stage), 'with stage("a-name") as run:'),
    "with experiment:": (lambda: _with(experiment), 'with experiment("a-name") as run:'),
    "async with stage:": (lambda: asyncio.run(_async_with(stage)), 'with stage("a-name") as run:'),
    "with a run": (_with_run, "stop_logging()"),
    "with track_returns:": (lambda: _with(track_returns), 'write `with stage("a-name") as run:`'),
    "with track_returns called:": (lambda: _with(track_returns("a")), 'write `with stage("a-name") as run:`'),
    "two names": (lambda: stage("s", "t"), "its options are nested, params"),
    "a decorator for a function": (lambda: stage(stage("s")), "each of them on a line of its own"),
    "a decorator in a decorator": (lambda: track_returns("a")(track_returns("b")), "each of them on a line of its own"),
    "stage above a fixture": (lambda: stage(pytest.fixture(lambda: 1)), "@stage goes below @pytest.fixture"),
    "parameters in a dict": (lambda: stage("s", params={"lr": 1}), 'are keywords: stage("a-name", lr=...)'),
    "stage above a command": (lambda: stage(_command), "@stage goes below @click.command()"),
    "experiment above a command": (lambda: experiment("e")(_command), "@experiment goes below @click.command()"),
    "track_returns above a command": (lambda: track_returns("a")(_command), "goes below @click.command()"),
    "a class": (lambda: experiment(Plain), "the class Plain: decorate the methods"),
    "a class, called": (lambda: stage("s")(Plain), "the class Plain: decorate the methods"),
    "a call": (lambda: _of_coroutine(stage), "_coroutine() has been called already: write stage(_coroutine)(...)"),
    "a call, named": (lambda: _of_coroutine(track_returns("a")), "has been called already"),
    "a number for a name": (lambda: stage(3), "takes a name, which is a string, as its first argument, not 3"),
    "a number for a run's name": (lambda: experiment("e", run_name=3), "experiment(run_name=...) takes a str, not 3"),
    "tags in a list": (lambda: stage("s", tags=["a"]), 'takes a mapping, such as {"team": "vision"}, not [\'a\']'),
    "params in a text": (lambda: stage(params="a, b")(_two), "write params=['a', 'b']"),
    "params of numbers": (lambda: stage(params=[3])(_two), "takes names as strings, not 3"),
    "names in a list": (lambda: track_returns(["a", "b"]), "@track_returns('a', 'b')"),
    "metrics of a number": (lambda: track_returns(metrics=5), 'metrics=...) takes names, such as ["accuracy"], not 5'),
    "metrics of numbers": (lambda: track_returns(metrics=[5]), "takes names"),
    "artifacts of a number": (lambda: track_returns(artifacts=5), '{"report": "report.json"}, not 5'),
    "a path of a number": (lambda: track_returns(artifacts={"a": 5}), "not {'a': 5}"),
    "a prefix of a number": (lambda: track_returns(prefix=5), "prefix=...) takes a string, not 5"),
    "a typo in start_logging": (lambda: trackdsl.start_logging("s", projct="p"), "did you mean `project`?"),  # type: ignore[call-arg]
    "a key of config": (lambda: trackdsl.start_logging("s", tags={}), "config={'tags': ...}"),  # type: ignore[call-arg]
    "a number for a backend": (lambda: trackdsl.start_logging("s", backend=3), "Write backend='mlflow'"),  # type: ignore[arg-type]
    "a typo in stop_logging": (lambda: trackdsl.stop_logging(state="FAILED"), "did you mean `status`?"),  # type: ignore[call-arg]
    "a typo in log_figure": (lambda: trackdsl.log_figure(1, "a", save_kwarg={}), "did you mean `save_kwargs`?"),  # type: ignore[call-arg]
    "no path": (lambda: trackdsl.log_dict({"a": 1}), "Call it as log_dict(dictionary, artifact_file)."),  # type: ignore[call-arg]
    "a typo in a marker": (
        lambda: trackdsl.Model("m", registred_model_name="x"),
        "did you mean `registered_model_name`?",
    ),  # type: ignore[call-arg]
    "a marker without name": (lambda: trackdsl.Artifact(), "Call it as Artifact(path)."),  # type: ignore[call-arg]
    "a model without name": (lambda: _in_stage(lambda: trackdsl.log_model(1)), "the name is missing"),
    "a model's name of a number": (
        lambda: _in_stage(lambda: trackdsl.log_model(1, 2)),
        "the name is a string, and not a int",
    ),  # type: ignore[arg-type]
    "a metric without name": (lambda: _in_stage(lambda: trackdsl.log_metric()), "log_metric('loss', 0.25)"),  # type: ignore[call-overload]
    "a total of text": (lambda: list(trackdsl.steps([1], total="x")), "such as total=100"),  # type: ignore[call-overload]
    "a stream of a number": (lambda: trackdsl.log_stream(3), "Write log_stream(range(3))."),  # type: ignore[call-overload]
    "steps of a number": (lambda: list(trackdsl.steps(10)), "Write steps(range(10))."),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_reported_with_the_right_way(name: str) -> None:
    """Each misuse raises an `OptionError`, which is a `TypeError` too, and says what to write instead."""
    misuse, text = MISUSES[name]
    with capture_runs(), pytest.raises(OptionError) as caught:
        misuse()
    assert text in str(caught.value)


def test_decorators_are_functions_for_everything_else() -> None:
    """For `help`, `inspect`, pickles and copies, `stage` and `experiment` are plain functions."""
    for function in (stage, experiment):
        assert (
            pickle.loads(pickle.dumps(function))
            is cloudpickle.loads(cloudpickle.dumps(function))
            is copy.copy(function)
            is function
        )
        assert inspect.isroutine(function)
        assert callable(function)
        shown = pydoc.plain(pydoc.render_doc(function))
        assert f"{function.__name__}(name" in shown
        assert "Raises:" in shown
        assert {"name", "params", "tags", "run_id"} <= set(inspect.signature(function).parameters)

    class Decorators:
        step = stage

    with capture_runs() as captured:
        Decorators().step(_two)(1, 2)
    assert captured.one("_two").params == {"a": 1, "b": 2}


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings that trackdsl has logged so far."""
    return [record.getMessage() for record in caplog.records if record.name == "trackdsl"]


def test_an_experiment_in_another_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """An experiment inside another's run is a child run, and one log line says so, with its line of code."""

    @experiment("three")
    def decorated() -> None: ...

    with capture_runs() as captured, experiment("one"):
        for _ in range(2):
            with experiment("two"):
                pass
            with experiment("one"):
                pass
            decorated()
    two, three = warned(caplog)
    line = inspect.getsourcelines(test_an_experiment_in_another_is_said_once)[1] + 8
    assert f"experiment('two') at {__file__}:{line} is inside the run 'one'" in two
    assert "experiment('three') at" in three
    assert f"{__file__}:{line + 4}" in three
    assert [run.tags["trackdsl.experiment"] for run in captured.named("decorated")] == ["three", "three"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("descripton", "did you mean `description`?"),
        ("tag", "did you mean `tags`?"),
        ("Nested", "did you mean `nested`?"),
        ("run_name", "`run_name` is an option of experiment."),
        ("tracking_uri", "`tracking_uri` is an option of experiment."),
        ("seed", ""),
        ("learning_rate", ""),
    ],
)
def test_parameters_of_a_block_that_look_like_options(caplog: pytest.LogCaptureFixture, name: str, hint: str) -> None:
    """A block's parameter that resembles an option is recorded, and reported once, with file and line."""
    given: Any = {name: "x"}
    misuse.checked_block_params.discard(name)
    with capture_runs() as captured:
        for _ in range(2):
            with stage("s", **given):
                pass
    assert [run.params for run in captured.runs] == [given, given]
    if not hint:
        assert warned(caplog) == []
        return
    (line,) = warned(caplog)
    assert line.endswith(hint)
    assert f"{name}= at {__file__}:" in line


def test_names_of_blocks_with_braces(caplog: pytest.LogCaptureFixture) -> None:
    """A placeholder that no keyword of the block fills stays, and is reported once; other braces are plain text."""
    with capture_runs() as captured:
        for name in ("fit-{model}", "fit-{model}", "{}", '{"a": 1}', "{a b}"):
            with stage(name):
                pass
        with stage("fit-{model}", model="rf"):
            pass
    assert [run.name for run in captured.runs] == ["fit-{model}", "fit-{model}", "{}", '{"a": 1}', "{a b}", "fit-rf"]
    (line,) = warned(caplog)
    assert "add model=..., or write f'fit-{model}'." in line
    assert f"at {__file__}:" in line


def test_what_a_run_has_and_a_block_has_not() -> None:
    """If a method of the run is called on the block, the error says how to get the run."""
    block = experiment("e")
    assert not hasattr(block, "anything")
    with pytest.raises(AttributeError, match=r"`with experiment\(...\) as run: run.log_metric`"):
        block.log_metric("a", 1)


def test_models_under_the_older_argument_for_their_name() -> None:
    """`log_model` takes `artifact_path=`, and a name and a model the other way round."""
    with capture_runs(), stage("s"):
        first = trackdsl.log_model(Plain(), artifact_path="first", code_paths=[])
        second = trackdsl.log_model("second", Plain(), code_paths=[])  # type: ignore[arg-type]
    assert [first.name, second.name] == ["first", "second"]


#: What is done inside a run, and what the log says of it.
FAULTS: dict[str, tuple[Callable[[], None], str]] = {
    "text": (lambda: trackdsl.log_metric("a", "b"), "a: str is not a number"),  # type: ignore[arg-type]
    "tags": (lambda: trackdsl.set_tags(["a"]), "tags must be a dict of names and values, not"),  # type: ignore[arg-type]
    "a file": (lambda: trackdsl.log_artifact("/nowhere/x"), "could not keep the artifact 'x'"),
    "metrics in a list": (lambda: trackdsl.log_metrics([1]), "list has no names: give numbers by name"),
    "a metric as metrics": (lambda: trackdsl.log_metrics("a", 1), "str has no names: give numbers by name"),
    "a step of text": (lambda: trackdsl.log_metric("a", 1, step="x"), "step x is not an integer; recorded at step 0"),  # type: ignore[call-overload]
    "a table": (lambda: trackdsl.log_table(5, "a.json"), "give a dict of columns"),
    "an image": (lambda: trackdsl.log_image(5, "a.png"), "int is not an image"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_reported_with_their_line(caplog: pytest.LogCaptureFixture, name: str) -> None:
    """What cannot be recorded is reported in one line that says why, and where in the program it was logged."""
    fault, text = FAULTS[name]
    with capture_runs(), stage("s"):
        fault()
        fault()
    (line,) = warned(caplog)
    assert text in line
    assert line.endswith(f"(at {__file__}:{fault.__code__.co_firstlineno})")


@pytest.mark.parametrize(
    ("module", "command"),
    [("PIL", "pip install 'pillow'"), ("dask", "pip install 'trackdsl[dask]'"), ("new", "pip install 'new'")],
)
def test_a_missing_package_is_reported_with_the_command(module: str, command: str) -> None:
    """Wherever a package is missing the message has the command that installs it."""
    error = ModuleNotFoundError(f"No module named {module!r}", name=f"{module}.part")
    assert format_error(error).endswith(f"; `{command}` installs it")
    assert (
        format_error(ImportError("cannot import name 'x' from 'y'")) == "ImportError: cannot import name 'x' from 'y'"
    )


@pytest.mark.parametrize("library", ["optuna", "torch"])
def test_an_integration_without_its_library(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """An integration whose library is missing says so, with the command that installs it."""
    name = f"trackdsl.integrations.{library}"
    for module in [each for each in sys.modules if each.startswith("trackdsl.integrations._") or each == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module(name)
    assert str(caught.value) == f"{name} needs {library}: pip install '{library}'"
