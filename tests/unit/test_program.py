"""`trackdsl run`, in one process: which functions become stages, which arguments are recorded, what is hidden."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from trackdsl import stage
from trackdsl._core.redaction import MASK
from trackdsl._core.redaction.command_lines import mask_command_line
from trackdsl._decorate.options import Options
from trackdsl._recording import printed
from trackdsl.cli.program import main_run
from trackdsl.cli.program.command_lines import CommandLine
from trackdsl.cli.program.main_module import Program
from trackdsl.cli.program.main_run import begin_run
from trackdsl.cli.program.main_stages import MainStages
from trackdsl.cli.program.stages import Pattern, Stages
from trackdsl.cli.program.tracebacks import without_own_frames
from trackdsl.errors import OptionError
from trackdsl.testing import capture_runs

MODULE = """
import functools
from os.path import join

def fit_a(x): return x + 1
def fit_b(x): return {"accuracy": 0.5}
async def wait(x): return x
class Trainer:
    def fit(self, epochs): return self.inner(epochs)
    def inner(self, epochs): return epochs
    @classmethod
    def make(cls): return cls()
    @staticmethod
    def help_out(x): return x
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that the program has imported."""
    made = types.ModuleType("churn_of_test")
    exec(MODULE, vars(made))  # noqa: S102 - the module above
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def stages(*texts: str, option: str = "--stage", main: str = "train") -> Stages:
    return Stages([Pattern.parsed(text, option) for text in texts], [main])


@pytest.mark.parametrize("text", ["", ":", "a b", "a.b:", ":f g", "a-b:f", "1a:f", "a:f.", "a:f(x)", "a:/etc"])
def test_what_is_no_pattern(text: str) -> None:
    """A pattern that names no functions is refused, with the forms that patterns have."""
    with pytest.raises(OptionError, match=r"--stage takes functions as package\.module:function"):
        Pattern.parsed(text, "--stage")


def test_functions_and_methods_of_a_module(module: Any) -> None:
    """Functions, methods, class methods and static methods become stages; what the module imports does not."""
    stages("churn_of_test:fit_*", "churn_of_test:Trainer.*", "churn_of_test:fit_a").follow()
    stages("churn_of_test:fit_b", option="--track-returns").follow()
    with capture_runs() as captured:
        assert (module.fit_a(1), module.fit_b(2)) == (2, {"accuracy": 0.5})
        assert module.Trainer.make().fit(3) == module.Trainer.help_out(3) == 3
        module.join("a", "b")
    names = [run.path for run in captured.runs]
    assert sorted(names) == ["fit", "fit/inner", "fit_a", "fit_b", "help_out", "make"]
    assert captured.one("fit").params == {"epochs": 3}
    assert captured.one("fit_b").metric("accuracy") == 0.5


def test_a_name_that_the_module_imports(module: Any) -> None:
    """A function that a module only imports becomes a stage if its whole name is given, and not by a `*`."""
    stages("churn_of_test:join", "churn_of_test:jo*").follow()
    with capture_runs() as captured:
        assert module.join("a", "b") == "a/b"
    assert len(captured.named("join")) == 1


def test_patterns_that_match_nothing(module: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Each pattern that matches nothing gets one warning, with similar names, and a tag on the program's run."""
    found = stages("churn_of_test:fti_a", "churn_of_test:nothing", "churn_of_tset:x", "churn_of_test:Trainer")
    with capture_runs() as captured, stage("program") as run:
        found.run = run
        found.follow()
        found.report_unmet(ValueError())
        found.report_unmet(None)
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == 4
    assert "--stage churn_of_test:fti_a matches no function of churn_of_test; did you mean fit_a, fit_b?" in logged[0]
    assert "It has: fit_a, fit_b, wait, Trainer.fit, Trainer.inner." in logged[1]
    assert "Name its methods: --stage churn_of_test:Trainer.*" in logged[2]
    assert "has not imported churn_of_tset; did you mean churn_of_test?" in logged[3]
    assert len([name for name in captured.one("program").tags if "omitted.stage" in name]) == 4


def test_a_module_with_another_name(
    module: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A module that is imported by another name than its own, as `os.path` is, is found by that name."""
    monkeypatch.setitem(sys.modules, "alias_of_test", module)
    found = stages("alias_of_test:fit_*")
    found.follow()
    found.report_unmet(None)
    with capture_runs() as captured, stage("program"):
        module.fit_a(1)
    assert len(captured.named("fit_a")) == 1
    assert not caplog.records


def test_near_misses(module: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A method that a class inherits, and a module without its colon, have a hint of their own."""
    stages("churn_of_test:Sub.fit").follow()
    MainStages(stages("churn.model.fit")).compile(b"def main(): ...", "train.py")
    MainStages(stages("json.decoder")).compile(b"def main(): ...", "train.py")
    inherited, module_of, only_module = (record.getMessage() for record in caplog.records)
    assert inherited.endswith("matches no function of churn_of_test; did you mean Trainer.fit?")
    assert module_of.endswith("It has: main. For a function of a module, write --stage churn.model:fit.")
    assert only_module.endswith("It has: main. json.decoder is a module: write --stage json.decoder:NAME.")


def test_a_module_that_is_imported_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a reload, or an import after a removal, defines is a stage again; what it leaves as it is, is not twice."""
    (tmp_path / "again_of_test.py").write_text("def fit(x): return {'accuracy': x / 10}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "again_of_test", types.ModuleType("again_of_test"))  # Removed after the test.
    del sys.modules["again_of_test"]
    stages("again_of_test:fit").follow()
    stages("again_of_test:*", option="--track-returns").follow()
    module: Any = importlib.import_module("again_of_test")
    loader = module.__loader__
    module.kept = module.fit
    with capture_runs() as captured, stage("program"):
        module.fit(1)
        assert importlib.reload(module) is module
        module.fit(2)
        module.kept(3)
        assert type(module.__loader__) is type(module.__spec__.loader) is type(loader)
        del sys.modules["again_of_test"]
        importlib.import_module("again_of_test").fit(4)
    assert [run.params["x"] for run in captured.named("fit")] == [1, 2, 3, 4]
    assert [run.metric("accuracy") for run in captured.named("fit")] == [0.1, 0.2, 0.3, 0.4]


MAIN = '''"""Its text."""
from __future__ import annotations
registered = []
def register(function):
    registered.append(function)
    return function

@register
def train(lr):
    return lr * 2

class Model:
    def fit(self):
        return train(2)

if True:
    def fail():
        raise ValueError("no")
'''


def test_functions_of_the_main_file(caplog: pytest.LogCaptureFixture) -> None:
    """Functions of the program itself become stages right at their definition, on the same lines as before."""
    main = MainStages(stages("train", "Model.fit", "train:fail", "trian"))
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(main.compile(MAIN.encode(), "train.py"), names)  # noqa: S102 - the program above
    assert (names["__doc__"], names["train"].__wrapped__.__code__.co_firstlineno) == ("Its text.", 8)
    with capture_runs() as captured:
        assert (names["registered"][0](1), names["Model"]().fit()) == (2, 4)
        with pytest.raises(ValueError, match="no") as raised:
            names["fail"]()
    assert [run.path for run in captured.runs] == ["train", "fit", "fit/train", "fail"]
    assert "--stage trian matches no function of the program; did you mean train?" in caplog.text
    frames = traceback.extract_tb(without_own_frames(raised.tb))
    assert [(frame.name, frame.lineno) for frame in frames[1:]] == [("fail", 18)]


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores the parsers after the test."""
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", argparse.ArgumentParser.parse_known_args)
    owner = next(each for each in click.Command.__mro__ if "make_context" in vars(each))
    monkeypatch.setattr(owner, "make_context", vars(owner)["make_context"])
    monkeypatch.setattr(click.Context, "__exit__", click.Context.__exit__)


@pytest.mark.usefixtures("patched")
def test_arguments_of_argparse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's own arguments are parameters, of subcommands too; what libraries parse for themselves is not."""
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "0.5", "fit", "--api-key", "hunter22", "more"])
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float)
    command = parser.add_subparsers(dest="command").add_parser("fit")
    command.add_argument("--api-key")
    command.add_argument("--depth", default=[1, 2])
    library = argparse.ArgumentParser()
    library.add_argument("--level")
    with capture_runs() as captured, stage("program") as run:
        CommandLine(run, sys.argv[1:]).follow()
        library.parse_args(["--level", "3"])
        library.parse_args([])
        found, rest = parser.parse_known_args()
        parser.parse_known_args(sys.argv[1:])
    assert (found.lr, rest) == (0.5, ["more"])
    params = captured.one("program").params
    line = "--lr 0.5 fit --api-key *** more"
    assert params == {"argv": line, "lr": 0.5, "command": "fit", "api_key": MASK, "depth": "[1, 2]"}


@pytest.mark.usefixtures("patched")
def test_arguments_of_click() -> None:
    """Options of groups and commands are parameters, and hidden ones are masked; other commands do not count."""

    @click.group()
    @click.option("--verbose", is_flag=True)
    def program(verbose: bool) -> None: ...

    @program.command()
    @click.option("--lr", default=0.1)
    @click.option("--pin", hide_input=True)
    def train(lr: float, pin: str) -> None: ...

    @click.command()
    @click.option("--other", default=1)
    def library(other: int) -> None: ...

    arguments = ["--verbose", "train", "--lr", "0.3", "--pin", "1234"]
    with capture_runs() as captured, stage("program") as run:
        CommandLine(run, arguments).follow()
        context = program.make_context("train.py", arguments)
        with context:
            program.invoke(context)
        library.main([], standalone_mode=False)
    line = "--verbose train --lr 0.3 --pin ***"
    assert captured.one("program").params == {
        "argv": line, "verbose": True, "command": "train", "lr": 0.3, "pin": MASK,
    }  # fmt: skip


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--hid", "hush77", "--lr", "1"], "--hid *** --lr 1"),
        (["--hid=hush77", "--lr", "1"], "--hid=*** --lr 1"),
        (["-qzhush77", "--lr", "1"], "-qz*** --lr 1"),
        (["-z", "hush77", "more"], "-z *** more"),
        (["--two", "hush77", "hush78", "more"], "--two *** *** more"),
        (["--hid", "hush77", "--unknown"], "--hid *** --unknown"),
    ],
    ids=["apart", "joined", "short", "short, apart", "two values", "a mistake"],
)
def test_values_that_click_hides_are_not_in_the_line(arguments: list[str], line: str) -> None:
    """`argv` has no value of an option that click hides, of a subcommand neither, even if click refuses the line."""

    @click.group()
    def program() -> None: ...

    @program.command()
    @click.option("--hid", "-z", hide_input=True)
    @click.option("--two", nargs=2, hide_input=True)
    @click.option("-q", is_flag=True)
    @click.option("--lr", type=float)
    def train(**_: object) -> None: ...

    with capture_runs() as captured, stage("program") as run:
        command_line = CommandLine(run, ["train", *arguments])
        command_line.follow()
        with contextlib.suppress(click.UsageError):
            program.main(["train", *arguments], standalone_mode=False)
        command_line.record_line()
    assert captured.one("program").params["argv"] == f"train {line}"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["db.password=hush77", "lr=1"], "db.password=*** lr=1"),
        (["--password=hush77", "lr=1"], "--password=*** lr=1"),
        (["-m", "db.password=hush77,hush78"], "-m db.password=***"),
        (["-m", "db.password=choice(hush77,hush78)"], "-m db.password=***"),
        (["++db.password={a: hush77, b: hush78}"], "++db.password=***"),
        (["db.password='hush77,hush78'"], "db.password=***"),
        (["--opt=api_key=hush77"], "--opt=api_key=***"),
        (["--url=postgresql://me:hush77@host/db"], "--url=postgresql://***@host/db"),
        (["--token", "hush77", "--max-tokens", "5"], "--token *** --max-tokens 5"),
        (["a b", "*", "lr=1"], "'a b' '*' lr=1"),
    ],
)
def test_secrets_of_a_command_line(words: list[str], line: str) -> None:
    """The whole value of a secret is masked, as an option or an override of Hydra's, and no other word."""
    assert mask_command_line(words) == line


def test_the_output_of_a_killed_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the program runs, the end of its output is kept, masked, every so often; `sys.stdout` is not replaced."""
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(main_run, "_OUTPUT_EVERY", -1.0)
    monkeypatch.setattr(main_run, "_OUTPUT_PART", 0.0)
    with capture_runs() as captured:
        run = begin_run(Program("train.py"), Options("experiment"))
        assert run is not None
        command_line = CommandLine(run.run, ("--password", "hunter22"))
        run.while_running.append(command_line.record_line)
        run.follow_output()
        print("first")  # noqa: T201 - what a program prints
        print("with hunter22")  # noqa: T201
        kept = captured.one("train").artifacts["output.txt"].read_text()
        run.end(SystemExit(3))
        print("later")  # noqa: T201
    assert "write" not in vars(stream)
    assert kept == "first\nwith ***\n"
    program = captured.one("train")
    assert (program.status, program.tags["trackdsl.exit_code"]) == ("FAILED", "3")
    assert program.params == {"argv": "--password ***"}


@pytest.mark.usefixtures("patched")
def test_chained_commands() -> None:
    """Several commands in one line of click's each have their own parameters."""

    @click.group(chain=True)
    def program() -> None: ...

    @program.command()
    @click.option("--lr", default=0.1)
    @click.option("--pin", hide_input=True)
    def fit(lr: float, pin: str) -> None: ...

    @program.command()
    @click.option("--lr", default=0.7)
    def score(lr: float) -> None: ...

    with capture_runs() as captured, stage("program") as run:
        CommandLine(run, []).follow()
        program.main(["fit", "--lr", "3", "--pin", "1234", "score"], standalone_mode=False)
    assert captured.one("program").params == {"fit.lr": 3.0, "fit.pin": MASK, "score.lr": 0.7}


class Stream:
    """A stream whose `write` can be replaced."""

    def __init__(self) -> None:
        self.write: Any = io.StringIO().write


def test_many_writes_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output of a program that prints a lot costs one look in many writes; a slow program's is never late."""
    now, looks = [0.0], list[float]()
    monkeypatch.setattr(printed, "_clock", lambda: now[0])
    output, streams = printed.Output(looks.append), [Stream(), Stream()]
    restore = output.follow(*streams)
    for number in range(10_000):
        streams[number % 2].write(f"{number}\n")
    assert 100 < len(looks) < 1000
    for _ in range(70):
        now[0] += 1
        streams[0].write("slow\n")
    looks.clear()
    now[0] += 1
    streams[1].write("last\n")
    assert (looks, output.text().endswith("slow\nlast\n")) == ([now[0]], True)
    assert output.text().startswith("0\n1\n2\n")
    with pytest.raises(TypeError):
        streams[0].write(3)
    for end in restore:
        end()
    streams[0].write("after\n")
    assert "after" not in output.text()


def test_the_output_is_bounded() -> None:
    """Of any number of writes of any length the end is kept."""
    output, stream = printed.Output(lambda _: None), Stream()
    output.follow(stream)
    most = 2 * printed.MAX_PRINTED
    for length in (1, 1000, most, 3):
        for _ in range(300):
            stream.write("x" * length)
    stream.write("end")
    assert sum(map(len, [*output._joined, *output._parts])) < 2 * most
    assert output.text() == ("x" * most + "end")[-most:]


@pytest.fixture(autouse=True)
def arguments() -> Iterator[None]:
    """Restores the test's own arguments and main module."""
    before = sys.argv
    yield
    sys.argv = before
