"""`trackdsl run`: real programs run as under plain `python`, and their runs have what happened."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, all_runs, client, deliver, free_port, run_command

pytestmark = pytest.mark.slow

PYTHON = (sys.executable,)
RUN = (sys.executable, "-m", "trackdsl.cli", "run")


@pytest.fixture(autouse=True)
def offline(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs find the package; the test delivers."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)


def write(name: str, source: str) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))


def ended(*command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A program that has ended, with what it printed."""
    return subprocess.run(
        command, capture_output=True, timeout=PATIENCE, env={**os.environ, **environment}, check=False
    )


def recorded() -> dict[str, Any]:
    """The runs at the store, by name."""
    deliver()
    return {str(run.info.run_name): run for run in all_runs()}


def artifact(run: Any, path: str) -> str:
    return Path(client().download_artifacts(run.info.run_id, path)).read_text()


#: Name → source, what the run ends as, exit code.
PROGRAMS = {
    "fine": ("print('said'); import sys; print(sys.argv, __name__, __file__, sys.path[0], sorted(globals()))", 0),
    "chained": (
        """
        def inner():
            raise KeyError("a")
        def outer():
            try:
                inner()
            except KeyError as error:
                raise ExceptionGroup("several", [ValueError("no"), error]) from error
        outer()
        """,
        1,
    ),
    "syntax": ("def f(:\n", 1),
    "missing": ("import not_there_at_all", 1),
    "code": ("import sys; print('so'); sys.exit(3)", 3),
    "raised_code": ("raise SystemExit(300)", 44),
    "text": ("raise SystemExit('no data')", 1),
    "at_once": ("import os; print('x', flush=True); os._exit(5)", 5),
    "interrupted": ("raise KeyboardInterrupt", 130),
    "hooked": ("import sys; sys.excepthook = lambda *found: print('hook', found[0], found[2].tb_lineno); 1 / 0", 1),
    "thread": ("import threading; threading.Thread(target=lambda: 1 / 0).start()", 0),
    "binary": ("import sys; sys.stdout.buffer.write(bytes(range(256))); sys.stderr.write('é')", 0),
    "printed": ("import traceback\ntry:\n    1 / 0\nexcept Exception:\n    traceback.print_exc()", 0),
}


def test_programs_are_as_under_python() -> None:
    """Output, errors, traceback and exit code are those of `python`; status, exit code and output are on the run."""
    for name, (source, _) in PROGRAMS.items():
        write(f"{name}.py", source)
        plain, ours = (ended(*start, f"{name}.py", "--lr", "0.1") for start in (PYTHON, RUN))
        assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr), name
    write("broken.py", "import json\ndef load(): ...\nraise ImportError('not today')\n")
    write("imports.py", "import broken\n")
    plain, ours = ended(*PYTHON, "imports.py"), ended(*RUN, "--stage", "broken:*", "imports.py")
    assert (ours.returncode, ours.stderr) == (1, plain.stderr)
    runs = recorded()
    for name, (_, code) in PROGRAMS.items():
        status = "KILLED" if name == "interrupted" else "FAILED" if code else "FINISHED"
        run = runs[name]
        assert (run.info.status, run.data.tags["trackdsl.exit_code"]) == (status, str(code)), name
        assert run.data.params["argv"] == "--lr 0.1"
    assert artifact(runs["code"], "output.txt") == "so\n"
    assert "ValueError: no" in artifact(runs["chained"], "output.txt")
    tags = runs["chained"].data.tags
    assert tags["trackdsl.exception.type"] == "ExceptionGroup"
    assert "trackdsl" not in tags["trackdsl.exception.traceback"]
    assert runs["code"].data.tags["trackdsl.exception.type"] == "SystemExit"


@pytest.mark.parametrize("end", ["", "1 / 0", "raise SystemExit(3)"])
def test_what_a_program_does_last(end: str) -> None:
    """What objects of the program print when they are deleted at the end is printed, as under `python`."""
    write(
        "last.py",
        f"""
        import sys
        class Resource:
            def __del__(self):
                print("deleted", flush=True)
                print("deleted", file=sys.stderr)
        resource = Resource()
        def use(resource):
            return resource
        use(resource)
        {end}
        """,
    )
    for program in (["last.py"], ["-m", "last"]):
        plain, ours = ended(*PYTHON, *program), ended(*RUN, "--stage", "use", "--track-returns", "use", *program)
        assert b"deleted" in plain.stdout
        assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)


#: What an installed `trackdsl` is: Python treats a script otherwise than `-m`.
STARTER = "import sys\nfrom trackdsl.cli import main\nsys.exit(main())\n"


@pytest.mark.parametrize(
    "source", ["def f(:\n", "if 1:\n\tprint(1)\n        print(2)\n", "x = (\n", "raise ValueError"]
)
def test_a_program_that_cannot_begin(source: str) -> None:
    """A traceback without a frame of the program ends the installed command as it ends `python`, and not by a crash."""
    write("starter", STARTER)
    Path("broken.py").write_text(source)
    for options in ([], ["--stage", "x"]):
        plain, ours = ended(*PYTHON, "broken.py"), ended(sys.executable, "starter", "run", *options, "broken.py")
        assert (ours.returncode, ours.stdout) == (plain.returncode, plain.stdout)
        assert ours.stderr.endswith(plain.stderr)


def test_a_program_from_a_pipe() -> None:
    """A program that can be read only once is read once."""
    source = b"import sys\nprint(sys.argv, __file__)\n"
    plain, ours = (
        subprocess.run([*start, "/dev/stdin", "x"], input=source, capture_output=True, timeout=PATIENCE, check=True)
        for start in (PYTHON, RUN)
    )
    assert ours.stdout == plain.stdout == b"['/dev/stdin', 'x'] /dev/stdin\n"


def test_comparisons_of_bytes_and_text() -> None:
    """`-bb`, which makes them exceptions, ends no program."""
    write("fine.py", "print('said')\n")
    done = ended(sys.executable, "-bb", "-m", "trackdsl.cli", "run", "fine.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"said\n", b"")


def test_a_debugger() -> None:
    """`pdb` shows the stack of the program alone, and steps over what trackdsl does."""
    write(
        "stops.py",
        """
        import threading
        def add(x):
            breakpoint()
            return x + 1
        print(add(2))
        thread = threading.Thread(target=add, args=(3,))
        thread.start()
        thread.join()
        """,
    )
    keys = b"where\nup\nup\ndown\n" + b"next\n" * 3 + b"step\n" * 3 + b"continue\nwhere\nup\nnext\nnext\nwhere\nc\n"
    plain, ours = (
        subprocess.run([*start, "stops.py"], input=keys, capture_output=True, timeout=PATIENCE, check=False)
        for start in (PYTHON, RUN)
    )
    assert b"Oldest frame" in plain.stdout
    assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)


@pytest.mark.skipif(find_spec("sklearn") is None, reason="needs scikit-learn")
def test_autologging() -> None:
    """With `--autolog`, what MLflow records by itself is on the run of the stage that trains."""
    write(
        "fits.py",
        """
        from sklearn.linear_model import LinearRegression
        def train(positive):
            return LinearRegression(positive=positive).fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
        print(train(True).predict([[3.0]]).round(3))
        """,
    )
    done = ended(*RUN, "--autolog", "--stage", "train", "fits.py", TRACKDSL_MODE="online")
    assert (done.returncode, done.stdout) == (0, b"[7.]\n")
    runs = recorded()
    assert set(runs) == {"fits", "train"}
    assert (runs["train"].data.params["positive"], runs["train"].data.params["fit_intercept"]) == ("True", "True")
    assert runs["train"].data.metrics["training_r2_score"] == 1.0
    assert runs["train"].data.tags["mlflow.parentRunId"] == runs["fits"].info.run_id


def test_the_run_as_json() -> None:
    """`--json` gives the run before the program begins, beside the program's own output."""
    write("fine.py", "import sys; print('said'); print('so', file=sys.stderr)\n")
    done = ended(*RUN, "--json", "--name", "a\nb", "fine.py")
    line, rest = done.stderr.split(b"\n", 1)
    assert (done.stdout, rest) == (b"said\n", b"so\n")
    (run,) = recorded().values()
    assert json.loads(line) == {"id": run.data.tags["trackdsl.id"], "name": "a\nb", "parent": None}
    assert artifact(run, "output.txt") == "said\nso\n"
    done = ended(*RUN, "--json", "fine.py", TRACKDSL_MODE="disabled")
    assert json.loads(done.stderr.splitlines()[0])["id"] is None


def test_every_way_to_name_a_program() -> None:
    """Scripts, links, folders, zip files and modules have the names, arguments and paths that `python` gives them."""
    source = """
        import sys
        main = sys.modules["__main__"]
        print({name: str(value).partition(" object at")[0] for name, value in vars(main).items()})
        print(sys.argv, sys.path[:2], vars(main) is globals())
    """
    for name in ("plain.py", "package/__main__.py", "package/part.py", "package/__init__.py", "below/__main__.py"):
        write(name, source)
    Path("below/link.py").symlink_to("../plain.py")
    subprocess.run([sys.executable, "-m", "zipfile", "-c", "zipped.zip", "below/__main__.py"], check=True)
    subprocess.run([sys.executable, "-m", "zipapp", "below", "-o", "app.pyz"], check=True)
    programs = (
        "plain.py", "./plain.py", "below/../plain.py", "below/link.py", "below", "below/", "app.pyz", "zipped.zip",
        "-m package", "-m package.part", "-m package.nothing", "-m not.there",
    )  # fmt: skip
    for program in programs:
        arguments = (*program.split(), "--lr", "-m", "--", "x y")
        plain, ours = ended(*PYTHON, *arguments), ended(*RUN, *arguments)
        assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr), program


def test_pickles_and_processes() -> None:
    """Classes of the program pickle as `__main__`'s, and its functions are stages in processes of every kind."""
    write(
        "pools.py",
        """
        import multiprocessing, pickle
        from concurrent.futures import ProcessPoolExecutor

        class Point:
            def __init__(self, x): self.x = x

        def move(point):
            return Point(point.x + 1)

        if __name__ == "__main__":
            print(pickle.dumps(Point(1)), pickle.loads(pickle.dumps(move)) is move)
            for method in ("fork", "spawn", "forkserver"):
                with multiprocessing.get_context(method).Pool(1) as pool:
                    print([point.x for point in pool.map(move, [Point(1), Point(2)])])
            process = multiprocessing.get_context("spawn").Process(target=move, args=(Point(4),))
            process.start()
            process.join()
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                print(pool.submit(move, Point(5)).result().x)
        """,
    )
    plain, ours = ended(*PYTHON, "pools.py"), ended(*RUN, "--stage", "move", "pools.py")
    assert (ours.returncode, ours.stdout, ours.stderr) == (0, plain.stdout, plain.stderr)
    deliver()
    found = all_runs()
    assert Counter(run.data.tags["trackdsl.path"] for run in found) == {"pools": 1, "pools/move": 8}


def test_tracebacks_of_threads_and_processes() -> None:
    """What threads and processes print of an exception, what pools pass on, and an exit have no frames of ours."""
    write(
        "fails.py",
        """
        import multiprocessing, sys, threading, traceback
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

        class Frozen(Exception):
            def __setattr__(self, name, value):
                raise AttributeError(name)

        def fail(x):
            raise ValueError(f"no {x}")

        class Own(threading.Thread):
            def run(self):
                fail(3)

        def result_of(call):
            try:
                call()
            except ValueError:
                traceback.print_exc()

        if __name__ == "__main__":
            for method in ("fork", "spawn"):
                context = multiprocessing.get_context(method)
                process = context.Process(target=fail, args=(1,), name=method)
                process.start()
                process.join()
                with context.Pool(1) as pool:
                    result_of(lambda: pool.map(fail, [1]))
                with ProcessPoolExecutor(1, mp_context=context) as executor:
                    result_of(executor.submit(fail, 1).result)
            with ThreadPoolExecutor(1) as executor:
                result_of(executor.submit(fail, 2).result)
            for thread in (threading.Thread(target=fail, args=(2,), name="T"), Own(name="own")):
                thread.start()
                thread.join()
            for leave in (sys.exit, exit):
                try:
                    leave(3)
                except SystemExit:
                    traceback.print_exc()
            raise Frozen("no attributes")
        """,
    )
    plain, ours = ended(*PYTHON, "fails.py"), ended(*RUN, "fails.py")
    assert plain.stderr.count(b"ValueError: no") == 13
    assert ours.stderr == plain.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals(number: signal.Signals) -> None:
    """A signal ends the program as it does under `python`, and its run is KILLED."""
    write("waits.py", "import signal\nprint('ready', flush=True)\nsignal.pause()\n")
    codes: list[int] = []
    errors: list[list[bytes]] = []
    for start in (PYTHON, RUN):
        process = subprocess.Popen([*start, "waits.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        error = process.communicate(timeout=PATIENCE)[1]
        assert b"trackdsl" not in error
        errors.append(error.splitlines()[-1:])  # The program may be in either line.
        codes.append(process.returncode)
    assert codes == [-number, -number]
    assert errors[0] == errors[1]
    assert recorded()["waits"].info.status == "KILLED"


def test_terminals_and_closed_pipes() -> None:
    """At a terminal the program sees a terminal, and a reader that goes away ends it as under `python`."""
    write("asks.py", "import sys, os\nprint(sys.stdin.isatty(), sys.stdout.isatty(), os.isatty(1))\n")
    ours, theirs = pty.openpty()
    done = subprocess.run([*RUN, "asks.py"], stdin=theirs, stdout=theirs, check=False)
    os.close(theirs)
    assert (done.returncode, os.read(ours, 100).split()) == (0, [b"True"] * 3)
    os.close(ours)
    write("much.py", "for number in range(100_000):\n    print(number)\n")
    said = []
    for start in (PYTHON, RUN):
        process = subprocess.Popen([*start, "much.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        said.append((process.stderr.read(), process.wait()))
        process.stderr.close()
    assert said[0] == said[1]
    assert b"BrokenPipeError" in said[0][0]


COMMAND_LINES = {
    "argparse": """
        import argparse
        parser = argparse.ArgumentParser()
        parser.add_argument("--lr", type=float)
        parser.add_argument("--depth", type=int, default=3)
        parser.add_argument("path")
        def train(lr):
            if lr > 1: raise ValueError("too high")
        train(parser.parse_args().lr)
    """,
    "click": """
        import click
        @click.command()
        @click.option("--lr", type=float)
        @click.option("--depth", default=3)
        @click.argument("path")
        def train(lr, depth, path):
            if lr > 1: raise ValueError("too high")
        train()
    """,
    "typer": """
        import typer
        app = typer.Typer(pretty_exceptions_enable=False)
        @app.command()
        def train(path: str, lr: float = 0.1, depth: int = 3):
            if lr > 1: raise ValueError("too high")
        app()
    """,
}


@pytest.mark.parametrize("library", COMMAND_LINES)
def test_command_lines(library: str) -> None:
    """What argparse, click and typer make of the arguments are parameters; a failing program fails as ever."""
    write(f"{library}_.py", COMMAND_LINES[library])
    arguments = (f"{library}_.py", "--lr", "5", "data.csv")
    plain, ours = ended(*PYTHON, *arguments), ended(*RUN, "--stage", "train", *arguments)
    assert (ours.returncode, ours.stdout, ours.stderr) == (1, plain.stdout, plain.stderr)
    runs = recorded()
    expected = {"argv": "--lr 5 data.csv", "lr": "5.0", "depth": "3", "path": "data.csv"}
    assert runs[f"{library}_"].data.params == expected
    assert (runs["train"].data.params["lr"], runs["train"].info.status) == ("5.0", "FAILED")


#: Name → what the program says for itself; the type and the message of its failure, its status, and its exit code.
REASONS = {
    "argparse_": ("", ["--lr", "high", "x"], "argparse.ArgumentError", "invalid float value: 'high'", "FAILED", 2),
    "click_": ("", ["--lr", "high", "x"], "click.exceptions.BadParameter", "'high' is not a valid float", "FAILED", 2),
    "typer_": ("", ["--lr", "high", "x"], "BadParameter", "valid ", "FAILED", 2),
    "says": ("raise click.ClickException('no data')", [], "click.exceptions.ClickException", "no data", "FAILED", 1),
    "exits": ("click.get_current_context().exit(7)", [], "click.exceptions.Exit", "7", "FAILED", 7),
    "handles": (
        "\n    try: 1 / 0\n    except ArithmeticError: raise click.exceptions.Exit(3)", [],
        "ZeroDivisionError", "division by zero", "FAILED", 3,
    ),
    "stopped": ("raise KeyboardInterrupt", [], "KeyboardInterrupt", "", "KILLED", 1),
    "by_itself": (
        "\n    try: 1 / 0\n    except ArithmeticError: pass\n    sys.exit(3)", [], "SystemExit", "3", "FAILED", 3
    ),
}  # fmt: skip


def test_what_a_program_exits_for() -> None:
    """Where a library prints an error and exits, the run has that error, and not only the exit code."""
    for library, source in COMMAND_LINES.items():
        write(f"{library}_.py", source)
    for name, (body, arguments, *_, code) in REASONS.items():
        if body:
            write(f"{name}.py", f"import click, sys\n@click.command()\ndef main():\n    {body}\nmain()\n")
        plain, ours = (ended(*start, f"{name}.py", *arguments) for start in (PYTHON, RUN))
        assert (ours.returncode, ours.stdout, ours.stderr) == (code, plain.stdout, plain.stderr)
    runs = recorded()
    for name, (_, _, kind, message, status, code) in REASONS.items():
        tags = runs[name].data.tags
        assert (runs[name].info.status, tags["trackdsl.exit_code"]) == (status, str(code)), name
        assert tags["trackdsl.exception.type"].endswith(kind), name
        assert message in tags.get("trackdsl.exception.message", ""), name
    assert 'File "' in runs["exits"].data.tags["trackdsl.exception.traceback"]


@pytest.mark.skipif(find_spec("hydra") is None, reason="needs Hydra")
def test_hydra() -> None:
    """The configuration that Hydra makes is the parameters; in a sweep, each job is a child with its own."""
    write(
        "hydrated.py",
        """
        import hydra
        @hydra.main(version_base=None, config_path="conf", config_name="config")
        def main(cfg):
            print(cfg.model.lr)
            if cfg.model.lr > 1: raise ValueError("too high")
        main()
        """,
    )
    write("conf/config.yaml", "model:\n  lr: 0.1\n  dims: [3, 4]\nname: at-${model.lr}\n")
    write("conf/partial.yaml", "model:\n  lr: 0.1\n  depth: ???\ndata: ???\nhome: ${oc.env:NOT_THERE}\n")
    plain, ours = (ended(*start, "hydrated.py", "model.lr=5") for start in (PYTHON, RUN))
    assert (ours.returncode, ours.stdout, ours.stderr) == (1, plain.stdout, plain.stderr)
    ended(*RUN, "--name", "sweep", "hydrated.py", "-m", "model.lr=0.5,7")
    arguments = ("--config-name", "partial", "-m", "+name=x", "model.lr=0.5")
    done = ended(*RUN, "--name", "incomplete", "hydrated.py", *arguments)
    assert b"trackdsl" not in done.stdout + done.stderr
    runs = recorded()
    (incomplete,) = [run for run in all_runs() if run.data.params.get("data") == "???"]
    assert incomplete.data.params == {
        "model.lr": "0.5", "model.depth": "???", "data": "???", "home": "${oc.env:NOT_THERE}", "name": "x",
    }  # fmt: skip
    assert incomplete.data.tags["trackdsl.path"] == "incomplete/job-0"
    runs = {str(run.info.run_name): run for run in all_runs() if run is not incomplete}
    tags = runs["hydrated"].data.tags
    assert (tags["trackdsl.exception.type"], tags["trackdsl.exception.message"]) == ("ValueError", "too high")
    assert tags["trackdsl.exception.traceback"].endswith("ValueError: too high\n")
    expected = {"argv": "model.lr=5", "model.lr": "5", "model.dims": "[3, 4]", "name": "at-5"}
    assert runs["hydrated"].data.params == expected
    jobs = [(runs[name].info.status, runs[name].data.params["model.lr"]) for name in ("job-0", "job-1")]
    assert jobs == [("FINISHED", "0.5"), ("FAILED", "7")]
    assert runs["job-1"].data.tags["mlflow.parentRunId"] == runs["sweep"].info.run_id


def test_options_and_the_project() -> None:
    """Experiment, name, tags and stages come from options, further stages from pyproject.toml."""
    write("churn/__init__.py", "")
    write("churn/data.py", "def load(rows): return list(range(rows))\n")
    write("churn/other.py", "")
    write("churn/model.py", "class Model:\n    def fit(self, rows): return {'accuracy': 0.75}\n")
    write("train.py", "from churn.data import load\nfrom churn.model import Model\nprint(Model().fit(len(load(3))))\n")
    write(
        "pyproject.toml",
        "[tool.trackdsl]\nstages = ['churn.data:*', 'churn.data:laod', 'churn.modle:fit', 'churn.other:*']\n",
    )
    done = ended(
        *RUN, "--experiment", "churn", "--name", "baseline", "--tag", "team=cv", "--stage", "churn.model:Model.*",
        "--track-returns", "churn.model:Model.fit", "train.py",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"{'accuracy': 0.75}\n")
    project = f"stages in {Path.cwd()}/pyproject.toml: "
    said = done.stderr.decode()
    assert f"{project}churn.data:laod matches no function of churn.data; did you mean load?" in said
    assert f"{project}churn.modle:fit matches nothing" in said
    done = ended(*RUN, "--name", "other", "train.py", TRACKDSL_STAGES="churn.data:laod")
    assert b"TRACKDSL_STAGES: churn.data:laod matches no function of churn.data; did you mean load?" in done.stderr
    assert "did you mean churn.model" in said
    assert "churn.other:" not in said  # Another program of the project imports it.
    runs = recorded()
    assert set(runs) == {"baseline", "other", "load", "fit"}
    assert (runs["baseline"].data.tags["team"], runs["load"].data.params["rows"]) == ("cv", "3")
    assert runs["fit"].data.metrics == {"accuracy": 0.75}
    experiment = client().get_experiment(runs["fit"].info.experiment_id)
    assert experiment.name == "churn"


def test_a_program_that_records_by_itself() -> None:
    """Sessions, experiments and stages of the program are below its run, which only its end ends."""
    write(
        "own.py",
        """
        import threading
        from trackdsl import experiment, log_metric, start_logging, stop_logging
        log_metric("before", 1)
        start_logging("first"); stop_logging(); stop_logging()
        start_logging("second"); log_metric("inside", 2); stop_logging()
        @experiment
        def pipeline(): log_metric("deep", 3)
        pipeline()
        threading.Thread(target=log_metric, args=("after", 4)).start()
        """,
    )
    assert ended(*RUN, "own.py").returncode == 0
    runs = recorded()
    assert runs["own"].data.metrics == {"before": 1, "after": 4}
    parents = {runs[name].data.tags["mlflow.parentRunId"] for name in ("first", "second", "pipeline")}
    assert parents == {runs["own"].info.run_id}


def test_nothing_is_recorded_where_it_is_disabled() -> None:
    """With TRACKDSL_MODE=disabled the program runs as ever, and there is no run."""
    write("fine.py", "print('said')\n")
    done = ended(*RUN, "--stage", "fine:x", "fine.py", TRACKDSL_MODE="disabled")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"said\n", b"")
    assert recorded() == {}


@pytest.mark.skipif(find_spec("torch") is None, reason="needs PyTorch")
def test_torchrun() -> None:
    """Two ranks are children of one root run, and each has the stages that it ran."""
    write(
        "ranks.py",
        """
        import torch.distributed as dist
        def fit(rank): return rank
        dist.init_process_group("gloo")
        fit(dist.get_rank())
        dist.destroy_process_group()
        """,
    )
    done = ended(
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-port", str(free_port()), "--no-python",
        *RUN, "--stage", "fit", "ranks.py",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    deliver()
    found = all_runs()
    paths = sorted(run.data.tags["trackdsl.path"] for run in found)
    assert paths == ["ranks", "ranks/rank-0", "ranks/rank-0/fit", "ranks/rank-1", "ranks/rank-1/fit"]
    assert {run.info.status for run in found} == {"FINISHED"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["trian.py"], 2, "There is no file 'trian.py'; did you mean train.py?"),
        (["churn"], 2, "For a module, write `trackdsl run -m churn`."),
        (["-"], 2, "Save it as a file"),
        (["--stage", "a b", "train.py"], 2, "--stage takes functions as package.module:function"),
        (["--tracking-uri", "nonsense://x", "train.py"], 2, "--tracking-uri is 'nonsense://x'"),
        (["--tag", "team", "train.py"], 2, "'team' must be NAME=VALUE"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_run(arguments: list[str], code: int, message: str) -> None:
    """A wrong command says what to write instead, and no run begins."""
    write("train.py", "")
    done = run_command("run", *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert not list(Path(os.environ["TRACKDSL_SPOOL"]).glob("journals/*"))


@pytest.mark.parametrize("variable", [False, True])
def test_a_setting_that_names_no_functions(variable: bool) -> None:
    """A wrong pattern in the project or in a variable is an error that says where it is, also for `doctor`."""
    write("train.py", "")
    environment = {"TRACKDSL_STAGES": "churn.data:load, a b"} if variable else {}
    if not variable:
        write("pyproject.toml", "[tool.trackdsl]\nstages = ['churn.data:load', 'a b']\n")
    where = "TRACKDSL_STAGES" if variable else f"stages in {Path.cwd()}/pyproject.toml"
    message = f"{where} has 'a b', which names no functions. It takes package.module:function"
    done = ended(*RUN, "train.py", **environment)
    assert (done.returncode, done.stderr.decode().startswith(f"Error: {message}")) == (1, True)
    assert message in ended(*RUN[:-1], "doctor", "--json", **environment).stdout.decode()
