"""Shell completion: real shells, real stores, stores that are away, and names that a shell would execute."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, Server, deliver, free_port, run_command, wait_until
from trackdsl import experiment, stage
from trackdsl.cli import main
from trackdsl.cli._completion import complete_experiment, complete_function, complete_run, complete_watched_run
from trackdsl.cli._shell_scripts import SHELLS

HOSTILE = ("$(touch hacked)", "`touch hacked`", "a; touch hacked", "*", "two words", "-rf", "a\nb", "~root", "a,b")
#: What a shell's script does at a press of Tab, and whether MLflow was imported for it.
_TAB = """import sys
from trackdsl.cli import main
try: main(prog_name='trackdsl')
finally: assert 'mlflow' not in sys.modules
"""


def completed(command: str, shell: str = "bash", **environment: str) -> list[str]:
    """The lines that a shell gets for the last argument of a command line."""
    variables = {"_TRACKDSL_COMPLETE": f"{shell}_complete", "COMP_WORDS": command}
    variables["COMP_CWORD"] = command.split(" ")[-1] if shell == "fish" else str(command.count(" "))
    done = subprocess.run(
        [sys.executable, "-c", _TAB], capture_output=True, text=True, timeout=PATIENCE, check=False,
        env={**os.environ, **variables, **environment},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return [line for line in done.stdout.splitlines() if line]


def make_command() -> None:
    """Make the command `trackdsl` in the folder `bin`."""
    Path("bin").mkdir()
    Path("bin/trackdsl").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{_TAB}"\n')
    Path("bin/trackdsl").chmod(0o700)


def offered(complete: Any, start: str, **params: Any) -> dict[str, str | None]:
    """What a completion offers, with descriptions."""
    context = main.make_context("trackdsl", ["show"], resilient_parsing=True)
    context.params.update(params)
    return {item.value: item.help for item in complete(context, None, start)}


def test_names_at_a_database(sqlite_store: str) -> None:
    """Runs and experiments are offered by name, the newest first, and runs by id once the argument begins like one."""
    with experiment("churn", run_name="first") as first:
        with stage("fit-a"):
            pass
        with stage("fit-b"):
            pass
    with experiment("vision", run_name="second"):
        pass
    deliver()
    assert next(iter(offered(complete_run, ""))) == "second"
    assert offered(complete_run, "fit") == {"fit-b": None, "fit-a": None}
    assert offered(complete_run, first.id[:20])[first.id] == "first"
    assert set(offered(complete_experiment, "")) == {"Default", "churn", "vision"}
    assert offered(complete_experiment, "", tracking_uri="sqlite:///not_there.db") == {}
    assert not Path("not_there.db").exists()


def test_names_that_a_shell_would_execute(sqlite_store: str) -> None:
    """A run whose name a shell would execute is offered by its id, with its name as a harmless description."""
    ids = {}
    for name in HOSTILE:
        with experiment("Default", run_name=name) as run:
            ids[run.id] = name
    deliver()
    found = offered(complete_run, "")
    assert set(found) == set(ids)
    assert found[next(id_ for id_, name in ids.items() if name == "a\nb")] == "a\\nb"


def test_runs_to_watch(sqlite_store: str, tmp_path: Path) -> None:
    """`watch` is offered what the spool has, those that run first; a name that a shell would execute by its id."""
    with experiment("churn", run_name="ended"):
        pass
    with experiment("churn", run_name="pipeline") as run, stage("fit"), stage("a; touch hacked") as hostile:
        assert offered(complete_watched_run, "") == {
            "pipeline": "running", "fit": "running", hostile.id: "pipeline/fit/a; touch hacked", "ended": "finished",
        }  # fmt: skip
        assert set(offered(complete_watched_run, "pipeline/f")) == {"pipeline/fit", hostile.id}
        assert offered(complete_watched_run, run.id[:20])[run.id] == "pipeline"
        assert offered(complete_watched_run, "pip", spool=tmp_path / "nowhere") == {}


def test_functions_of_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For `--stage`, packages, modules, functions and methods are offered; nothing is executed, and no FIFO is read."""
    monkeypatch.chdir(tmp_path)
    Path("churn").mkdir()
    Path("churn/__init__.py").write_text("def whole(): ...\n")
    Path("churn/train.py").write_text(
        "def fit(): ...\nasync def load(): ...\nclass Trainer:\n    def fit(self): ...\nopen('executed', 'w')\n"
    )
    Path("churn/broken.py").write_text("def (")
    os.mkfifo("churn/pipe.py")
    assert list(offered(complete_function, "ch")) == ["churn."]
    assert list(offered(complete_function, "churn.")) == ["churn.broken:", "churn.train:"]
    assert list(offered(complete_function, "churn:")) == ["churn:whole"]
    assert list(offered(complete_function, "churn.train:")) == [
        "churn.train:fit", "churn.train:load", "churn.train:Trainer.fit",
    ]  # fmt: skip
    assert list(offered(complete_function, "churn.train:l")) == ["churn.train:load"]
    for start in ("churn.broken:", "churn.pipe:", "churn.missing:", "missing.", "..", ":", "a:b:c"):
        assert offered(complete_function, start) == {}
    assert not Path("executed").exists()


def test_what_follows_a_program_is_its_own() -> None:
    """Behind the program's name files are offered, and no option of trackdsl nor a value of one; before it, options."""

    def offered_for(incomplete: str, *before: str) -> list[tuple[str, str]]:
        found = SHELLS["bash"](main, {}, "trackdsl", "_TRACKDSL_COMPLETE").get_completions(["run", *before], incomplete)
        return [(item.type, item.value) for item in found]

    assert ("plain", "--stage") in offered_for("--st")
    for before, incomplete in (((), "--st"), ((), "-"), (("--experiment",), ""), (("--lr", "1"), "x"), ((), "--tag=")):
        ((kind, _),) = offered_for(incomplete, "train.py", *before)
        assert kind == "file"


@pytest.mark.slow
def test_bash_completes(sqlite_store: str) -> None:
    """Bash, with the printed script, completes commands, options, runs, experiments and files, and executes nothing."""
    for name in ("baseline", "best", "grid:lr=0.1", "grid:lr=0.2", *HOSTILE):
        with experiment("churn", run_name=name):
            pass
    deliver()
    make_command()
    script = run_command("completion", "bash").stdout
    (Path("completion.sh")).write_text(script)

    def tab(*arguments: str, line: str = "") -> list[str]:
        program = (
            f"source completion.sh; COMP_LINE={line!r}; "
            f"COMP_WORDS=({' '.join(map(repr, arguments))}); COMP_CWORD={len(arguments) - 1}; "
            "_trackdsl_completion trackdsl 2>/dev/null; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        path = f"{Path.cwd()}/bin:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", program], capture_output=True, text=True, env={**os.environ, "PATH": path}, check=True
        )
        return done.stdout.split()

    assert tab("trackdsl", "sh") == ["show"]
    assert tab("trackdsl", "tree", "--wh") == ["--whole"]
    assert sorted(tab("trackdsl", "show", "b")) == ["baseline", "best"]
    assert tab("trackdsl", "ls", "chu") == ["churn"]
    assert tab("trackdsl", "run", "--experiment", "chu") == ["churn"]
    assert len(tab("trackdsl", "show", "")) == len(HOSTILE) + 4
    # As bash takes words apart: it replaces only what stands behind the last of these characters.
    assert sorted(tab("trackdsl", "show", "grid", ":", line="trackdsl show grid:")) == ["lr=0.1", "lr=0.2"]
    assert sorted(tab("trackdsl", "show", "grid", ":", "lr", "=", line="trackdsl show grid:lr=")) == ["0.1", "0.2"]
    assert "baseline" in tab("trackdsl", "compare", "grid", ":", "", line="trackdsl compare grid: ")
    assert tab("trackdsl", "run", "--experiment", "=", "chu", line="trackdsl run --experiment=chu") == ["churn"]
    with experiment("churn", run_name="going"):
        assert tab("trackdsl", "watch", "go") == ["going"]
    assert not Path("hacked").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
def test_fish_completes(sqlite_store: str) -> None:
    """Fish, with the printed script, completes names with colons, and the value in `--option=value`, files too."""
    with experiment("churn", run_name="grid:lr=0.1"):
        pass
    deliver()
    make_command()
    Path("completion.fish").write_text(run_command("completion", "fish").stdout)

    def tab(line: str) -> list[str]:
        done = subprocess.run(
            ["fish", "-c", f"source completion.fish; complete -C '{line}'"],
            capture_output=True, text=True, env={**os.environ, "PATH": f"{Path.cwd()}/bin:{os.environ['PATH']}"},
            check=True,
        )  # fmt: skip
        return [found.partition("\t")[0] for found in done.stdout.splitlines()]

    assert tab("trackdsl sh") == ["show"]
    assert tab("trackdsl show grid:") == ["grid:lr=0.1"]
    assert tab("trackdsl run --experiment=chu") == ["--experiment=churn"]
    assert tab("trackdsl report x --output=completion.f") == ["--output=completion.fish"]


#: What is typed before Tab and Enter, and the arguments that the command then has.
TYPED = {
    "show bas": ["show", "baseline"],
    "show grid:lr=0.2": ["show", "grid:lr=0.2"],
    "ls chu": ["ls", "churn"],
    "ls two": ["ls", "two words"],
    "ls d1": ["ls", "d1 $(touch hacked)"],
    "ls d2": ["ls", "d2 `touch hacked`"],
    "ls d3": ["ls", "d3; touch hacked"],
    "ls d4": ["ls", """d4 it's "x" \\ ~ * #"""],
    "ls d5": ["ls", "d5:x|touch hacked"],
    "run --experiment=d1": ["run", "--experiment=d1 $(touch hacked)"],
}
#: How each shell is started, and made ready.
_SHELLS = {
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -D -u; source script; unsetopt beep"),
    "fish": (["fish", "--no-config", "--private", "-i"], "source script; set -g fish_autosuggestion_enabled 0"),
}


class Keyboard:
    """A shell at a terminal, and what is typed there."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.pid, self.terminal = pty.fork()
        if not self.pid:
            os.execvpe(command[0], command, environment)  # noqa: S606 - the shell itself

    def types(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def shows(self) -> bool:
        """Read what the shell shows, which it waits for; whether there was anything."""
        return bool(select.select([self.terminal], [], [], 0)[0] and os.read(self.terminal, 65536))

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


@pytest.mark.slow
@pytest.mark.parametrize("shell", _SHELLS)
def test_what_a_shell_inserts_is_quoted(shell: str, sqlite_store: str, tmp_path: Path) -> None:
    """At Tab and Enter, zsh and fish call the command with the name as it is, and execute none of it."""
    command, ready = _SHELLS[shell]
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    names = {arguments[-1].removeprefix("--experiment=") for arguments in TYPED.values() if arguments[0] != "show"}
    for name in (*names, *HOSTILE):
        with experiment(name, run_name=name if name in HOSTILE else "of-an-experiment"):
            pass
    for name in ("baseline", "grid:lr=0.1", "grid:lr=0.2", "\x1b]0;x\x07"):
        with experiment("runs", run_name=name):
            pass
    deliver()
    Path("bin").mkdir()
    Path("bin/trackdsl").write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "if '_TRACKDSL_COMPLETE' in os.environ:\n    from trackdsl.cli import main\n    main(prog_name='trackdsl')\n"
        "open('called.new', 'w').write(json.dumps(sys.argv[1:]))\nos.replace('called.new', 'called')\n"
    )
    Path("bin/trackdsl").chmod(0o700)
    Path("script").write_text(run_command("completion", shell).stdout)
    environment = {
        **os.environ, "PATH": f"{Path.cwd()}/bin:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb",
        "COLUMNS": "200", "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    with contextlib.closing(Keyboard(command, environment)) as keyboard:
        keyboard.types(f"{ready}; touch ready\n")
        wait_until(lambda: not keyboard.shows() and Path("ready").exists(), "the shell")
        for typed, expected in TYPED.items():
            keyboard.types(f"trackdsl {typed}\t\n")
            wait_until(lambda: not keyboard.shows() and Path("called").exists(), typed)
            assert json.loads(Path("called").read_text()) == expected
            Path("called").unlink()
    assert not Path("hacked").exists()


@pytest.mark.slow
def test_a_store_that_is_away(sqlite_store: str) -> None:
    """If the store refuses, never answers, is not a store or is set wrongly, a shell gets nothing, and no error."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        for uri in (
            f"http://127.0.0.1:{port}",
            f"postgresql://127.0.0.1:{port}/mlflow",
            f"http://127.0.0.1:{free_port()}",
        ):
            assert completed("trackdsl show b", TRACKDSL_TRACKING_URI=uri) == []
            assert completed("trackdsl ls c", TRACKDSL_TRACKING_URI=uri) == []
    Path("folder.db").mkdir()
    for uri in ("./mlruns", "sqlite:///folder.db", "sqlite:///not_there.db", "nonsense://"):
        assert completed("trackdsl show b", TRACKDSL_TRACKING_URI=uri) == []
    assert completed("trackdsl show b", TRACKDSL_MODE="nonsense") == []
    assert completed("trackdsl run tr") == ["file,tr"]


def test_names_at_a_server(shared_server: Server) -> None:
    """A server's runs and experiments are offered too."""
    name = f"completed-{os.urandom(6).hex()}"
    with experiment(name, run_name=name, tracking_uri=shared_server.uri):
        pass
    deliver()
    for line in (f"trackdsl show {name[:-1]}", f"trackdsl ls {name[:-1]}"):
        assert completed(line, TRACKDSL_TRACKING_URI=shared_server.uri) == [f"plain,{name}"]


@pytest.mark.parametrize(
    ("shell", "line"), [("bash", "plain,churn"), ("zsh", "plain\nchurn\n_"), ("fish", "plain,churn")]
)
@pytest.mark.slow
def test_every_shell(shell: str, line: str, sqlite_store: str) -> None:
    """Each shell has a script that it accepts, which gets its answers in the form that it reads."""
    with experiment("churn"):
        pass
    deliver()
    assert completed("trackdsl ls chu", shell) == line.splitlines()
    script = run_command("completion", shell).stdout
    assert "_TRACKDSL_COMPLETE" in script
    assert json.loads(run_command("completion", shell, "--json").stdout) == {"shell": shell, "script": script}
    if program := shutil.which(shell):
        Path("script").write_text(script)
        subprocess.run([program, "-n", "script"], check=True)
