"""The address of a program's first root run, at its terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import PATIENCE, Server, all_runs, end_delivery, wait_until
from trackdsl import experiment, settings
from trackdsl._runs import show_url as _show_url
from trackdsl.delivery.program import _waiting
from trackdsl.errors import SettingsError
from trackdsl.journal._target import known_targets
from trackdsl.store_format.known_runs import KnownRun

TWO_ROOTS = """
import sys, trackdsl
with trackdsl.experiment("e", run_name="first") as run:
    print(run.run_id, flush=True)
    sys.stdin.readline()
with trackdsl.experiment("e", run_name="second"):
    pass
"""


@pytest.fixture(autouse=True)
def delivery(tmp_path: Path) -> Iterator[None]:
    """The delivery process of a test ends with it."""
    yield
    end_delivery(tmp_path / "spool")


class Terminal:
    """A program whose errors go to a terminal, as at a desk and not on a build server.

    Args:
        command: starts the program; by default, one with two root runs.
        environment: variables beside those of the test.
    """

    def __init__(self, *command: str, **environment: str) -> None:
        at_a_desk = {name: value for name, value in os.environ.items() if name != "CI"}
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command or (sys.executable, "-c", TWO_ROOTS),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=slave,
            env={**at_a_desk, "TRACKDSL_MODE": "online", **environment},
        )
        os.close(slave)
        self.text = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        with self.process:  # Closes its pipes and waits; `communicate` fails where `finish` has closed one.
            os.close(self.master)

    def run_id(self) -> str:
        """MLflow's id of the first run, which the program prints while it is open."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def shows(self, text: str) -> bool:
        """Whether the terminal shows a text by now."""
        self._read()
        return text in self.text

    def finish(self) -> str:
        """Let the program run to its end; returns what the terminal has shown."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=PATIENCE)
        self._read()
        return self.text

    def _read(self) -> None:
        os.set_blocking(self.master, False)
        try:
            while found := os.read(self.master, 65536):
                self.text += found.decode()
        except OSError:  # Nothing more for now, or the program has ended.
            pass


@pytest.mark.slow
def test_a_terminal_shows_it_once_while_the_run_is_open(shared_server: Server) -> None:
    """A terminal shows the address of the first root run once, while it is open, and the address works."""
    with Terminal(TRACKDSL_TRACKING_URI=shared_server.uri) as terminal:
        run_id = terminal.run_id()
        (run,) = [run for run in all_runs(shared_server.uri) if run.info.run_id == run_id]
        url = f"{shared_server.uri}/#/experiments/{run.info.experiment_id}/runs/{run_id}"
        wait_until(lambda: terminal.shows(f"trackdsl: run 'first' is at {url}"), "the address")
        assert terminal.process.poll() is None
        text = terminal.finish()
    assert terminal.process.returncode == 0
    assert text.count("trackdsl: run ") == 1


@pytest.mark.slow
def test_a_database_is_shown_with_its_command(sqlite_store: str) -> None:
    """For a database the line says what to start for the address to lead somewhere."""
    with Terminal() as terminal:
        run_id = terminal.run_id()
        text = terminal.finish()
    assert f"/runs/{run_id} while `mlflow ui` runs" in text


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"TRACKDSL_SHOW_URL": "0"}, {"CI": "true"}])
def test_a_terminal_that_is_not_to_show_it(sqlite_store: str, environment: dict[str, str]) -> None:
    """With the setting off, or on a build server, nothing is written."""
    with Terminal(**environment) as terminal:
        terminal.run_id()
        assert "trackdsl: run " not in terminal.finish()


UNCHANGED = """
import sys
print("begun", file=sys.stderr, flush=True)
sys.stdin.readline()
print("over", file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [False, True])
def test_an_unchanged_program_has_its_terminal_for_itself(sqlite_store: str, tmp_path: Path, replaced: bool) -> None:
    """Under `trackdsl run` the address is the last line, and none where the program has put a file for its errors."""
    script = tmp_path / "script.py"
    script.write_text(f"{UNCHANGED}sys.stderr = open('errors.txt', 'w')\n" if replaced else UNCHANGED)
    root = str(Path(__file__).parents[2])
    with Terminal(sys.executable, "-m", "trackdsl.cli", "run", str(script), PYTHONPATH=root) as terminal:
        wait_until(lambda: terminal.shows("begun"), "the program")
        wait_until(all_runs, "its run at MLflow")
        lines = terminal.finish().splitlines()
    assert lines[:2] == ["begun", "over"]
    assert [line.partition(" is at ")[0] for line in lines[2:]] == ([] if replaced else ["trackdsl: run 'script'"])
    if replaced:
        assert Path("errors.txt").read_text() == ""


class WithoutIsatty:
    """What a program may put in the place of its standard error."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...


@pytest.mark.parametrize("kind", ["file", "without isatty", "closed", "none"])
def test_a_wait_that_nothing_can_show(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wait for delivery writes nothing where the standard error is no terminal."""
    monkeypatch.setattr(_waiting, "_SHOW_AFTER", -1.0)
    path = tmp_path / "errors.txt"
    errors: Any = {"file": path.open("w", 1), "without isatty": WithoutIsatty(), "closed": path.open("a")}.get(kind)
    if kind == "closed":
        errors.close()
    with experiment("e"):
        pass
    with monkeypatch.context() as changed:
        changed.setattr(sys, "stderr", errors)
        wait = _waiting.Wait([one.writer for one in known_targets() if one.writer], nothing, nothing, show=True)
        assert not wait.until_done(0.1, 1.0)
    assert path.read_text() == ""
    assert getattr(errors, "text", "") == ""


def nothing(spool: Path) -> None:
    """Neither starts delivery nor wakes it."""


class Written:
    """Replaces the program's standard error."""

    def __init__(self, terminal: bool) -> None:
        self.terminal = terminal
        self.text = ""

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Begin two root runs that are at MLflow at once, and return what is written to the errors."""

    def begin(*, terminal: bool, show_url: bool | None, ci: str = "") -> str:
        _show_url._program.reset()
        monkeypatch.setattr(_show_url, "call_after_delivery", (calls := []).append)
        monkeypatch.setattr(trackdsl.Run, "wait_for_mlflow", lambda *_: KnownRun("b" * 32, "7"))
        # Nothing is to be delivered.
        monkeypatch.setattr("trackdsl.journal._store_target.Target.watch", lambda *_: None)
        monkeypatch.setattr(sys, "stderr", written := Written(terminal))
        monkeypatch.setenv("CI", ci)
        trackdsl.configure(mode="online", show_url=show_url)
        for name in ("one\x1b[31m", "two"):
            with experiment("e", run_name=name):
                pass
        for call in calls:
            call()
        return written.text

    return begin


@pytest.mark.parametrize(
    ("terminal", "show_url", "ci", "shown"),
    [
        (True, None, "", True),
        (False, None, "", False),
        (True, None, "1", False),
        (False, True, "1", True),
        (True, False, "", False),
    ],
)
def test_when_it_is_written(begun: Any, terminal: bool, show_url: bool | None, ci: str, shown: bool) -> None:
    """By default the address is written only at a terminal and not in CI; the setting changes that; never twice."""
    text = begun(terminal=terminal, show_url=show_url, ci=ci)
    assert text.count("/#/experiments/7/runs/" + "b" * 32) == shown
    assert text.count("\n") == shown
    assert "\x1b" not in text
    assert "two" not in text


def test_a_value_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is neither true nor false is refused, with the possible values."""
    monkeypatch.setenv("TRACKDSL_SHOW_URL", "sometimes")
    with pytest.raises(SettingsError, match=r"TRACKDSL_SHOW_URL is 'sometimes'.*true"):
        settings.show_url()
    monkeypatch.setenv("TRACKDSL_SHOW_URL", "on")
    assert settings.show_url() is True
