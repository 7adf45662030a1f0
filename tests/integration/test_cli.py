"""The command line: what is waiting, its delivery in the foreground, and the demo."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.conftest import (
    PATIENCE,
    Program,
    StartProgram,
    all_runs,
    client,
    delivery_pids,
    end_delivery,
    free_port,
    run_command,
    wait_until,
)
from trackdsl._core.version import __version__
from trackdsl.cli import main
from trackdsl.cli._wrapping import wrapped
from trackdsl.journal._format import HEADER_SIZE, Header
from trackdsl.journal._lock import FileLock, is_held
from trackdsl.store_format.progress import Progress, ProgressFile

TWO_RUNS = """
    from trackdsl import experiment, log_metric, stage

    @stage
    def train(lr: float = 0.1) -> None:
        for step in range(5):
            log_metric("loss", 1 / (step + 1), step=step)

    @experiment("churn")
    def pipeline() -> None:
        train()

    pipeline()
"""
#: Records, says so, and lives on until it is killed.
LIVING = """
    import signal
    from trackdsl import experiment, log_metric

    with experiment("living") as run:
        run.log_metric("loss", 0.5)
        print("recorded")
        signal.pause()
"""


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The spool of this test."""
    return tmp_path / "spool"


def trackdsl(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "trackdsl.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **environment},
        check=False,
    )


def record(start: StartProgram, source: str = TWO_RUNS, **environment: str) -> Program:
    """Let a program record offline, to its end."""
    program = start(source, **environment)
    code, _, errors = program.finish()
    assert code == 0, errors
    return program


def journals(spool: Path) -> list[Path]:
    """The journals of a spool, oldest first."""
    return sorted((spool / "journals").iterdir()) if spool.exists() else []


def events_of(spool: Path) -> dict[str, bytes]:
    """The content of all segments."""
    return {str(path): path.read_bytes() for path in sorted(spool.rglob("*.seg"))}


def make_newer(journal: Path, version: int = 99) -> None:
    """Let a journal look as if a later trackdsl had written it."""
    segment = journal / "000001.seg"
    content = segment.read_bytes()
    header = Header.unpack(content[:HEADER_SIZE])
    assert header is not None
    newer = Header(version, header.number, header.salt, header.created)
    segment.write_bytes(newer.pack() + content[HEADER_SIZE:])


class Foreground:
    """A command that runs while the test continues, with the keyboard's interrupt at its default."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "trackdsl.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Foreground:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=PATIENCE)

    def error_line(self) -> str:
        """The next line that it writes to its errors."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def finish(self) -> tuple[int, str, str]:
        """Wait for the end: exit code, output, errors."""
        out, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, errors


def every_command(
    command: click.Command = main, path: tuple[str, ...] = ("trackdsl",)
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands with their names, those of groups in groups too."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from every_command(below, (*path, name))


class Terminal(io.StringIO):
    """A stream that counts as a terminal."""

    def isatty(self) -> bool:
        return True


class TestHelp:
    """What the command line says of itself."""

    @pytest.mark.parametrize("path", [path for path, _ in every_command()], ids=" ".join)
    def test_every_command(self, path: tuple[str, ...]) -> None:
        """The help of each command fits in 80 columns, with examples and exit codes; each prints JSON if asked."""
        result = CliRunner().invoke(main, [*path[1:], "--help"], prog_name="trackdsl", terminal_width=80)
        assert result.exit_code == 0
        assert [line for line in result.output.splitlines() if len(line) > 80] == []
        assert "exit code is" in result.output
        examples = result.output.partition("Examples:")[2]
        assert " ".join(path) in examples
        command = dict(every_command())[path]
        # The group only names its commands: what it prints is its help.
        assert isinstance(command, click.Group) or any("--json" in option.opts for option in command.params)

    @pytest.mark.parametrize("path", [path for path, _ in every_command()], ids=" ".join)
    def test_a_narrow_terminal(self, path: tuple[str, ...]) -> None:
        """The prose of the help of each command fits in 40 columns."""
        result = CliRunner().invoke(main, [*path[1:], "--help"], prog_name="trackdsl", env={"COLUMNS": "40"})
        prose = result.output.partition("Examples:")[0]
        assert [line for line in prose.splitlines() if len(line) > 40] == []

    def test_messages_end_between_words(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """At a terminal no line of a message is longer than that, except for a path; a pipe gets it in one line."""
        monkeypatch.setenv("COLUMNS", "40")
        text = f"there is no run 'pipelin' in /{'x' * 60}; did you mean pipeline?\n`trackdsl ls` lists them."
        assert wrapped(text, io.StringIO()) == text
        lines = wrapped(text, Terminal(), before="Error: ").split("\n")
        assert lines[0] == "there is no run 'pipelin' in"
        assert [len(line) > 40 for line in lines] == [False, True, False, False]
        assert " ".join(lines) == text.replace("\n", " ")

    def test_version(self) -> None:
        """`--version` is the version of the package."""
        assert __version__ in CliRunner().invoke(main, ["--version"]).output

    def test_a_mistyped_command(self) -> None:
        """For a mistyped command, the most similar one is suggested."""
        result = CliRunner().invoke(main, ["shw", "x"])
        assert result.exit_code == 2
        assert "No such command 'shw'; did you mean `show`?" in result.output


class TestStatus:
    """`trackdsl status`."""

    def test_empty_spool(self, spool: Path) -> None:
        """An empty spool is reported in one line, and is not a failure."""
        result = trackdsl("status")
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == f"Nothing is waiting in {spool}.\n"

    def test_looking_makes_no_spool(self, tmp_path: Path) -> None:
        """A mistyped `--spool` creates no folders."""
        result = run_command("status", "--spool", str(tmp_path / "typo"))
        assert result.returncode == 0
        assert "Nothing is waiting" in result.stdout
        assert not (tmp_path / "typo").exists()

    def test_imports_no_mlflow(self, start: StartProgram) -> None:
        """Asking for the status costs no import of MLflow."""
        record(start)
        code = "import sys; from trackdsl.cli import main; main(['status'], standalone_mode=False); "
        code += "sys.exit('mlflow' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0

    def test_json(self, start: StartProgram, spool: Path) -> None:
        """`--json` gives program, target without credentials, and how much waits since when."""
        before = time.time()
        program = record(start, TRACKDSL_TRACKING_URI="https://me:hunter2@mlflow.example.org/x")
        result = run_command("status", "--json")
        assert result.returncode == 0
        assert "hunter2" not in result.stdout
        found = json.loads(result.stdout)
        assert found["spool"] == str(spool)
        assert (found["delivering"], found["waiting"]) == (False, 1)
        (journal,) = found["journals"]
        assert journal["source"].endswith("program_0.py")
        assert journal["pid"] == program.pid
        assert journal["alive"] is False
        assert journal["target"] == "https://***@mlflow.example.org/x"
        assert journal["events"] >= 9  # Two begins, five points, two ends.
        assert journal["events_exact"] is True
        assert journal["bytes"] > 100
        assert journal["since"] >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(before - 1))
        assert (journal["problem"], journal["error"], journal["lost"]) == (None, None, 0)

    def test_table(self, start: StartProgram) -> None:
        """The table names program and target whole, also in a pipe, and what to do next."""
        record(start, TRACKDSL_TRACKING_URI="https://me:hunter2@mlflow.example.org/a/rather/long/path/to/it")
        result = run_command("status")
        assert result.returncode == 0
        assert "program_0.py" in result.stdout
        assert "https://***@mlflow.example.org/a/rather/long/path/to/it" in result.stdout
        assert "trackdsl sync" in result.stdout
        assert "hunter2" not in result.stdout + result.stderr

    def test_what_delivery_noted(self, start: StartProgram, spool: Path) -> None:
        """Failures, waiting artifacts, damage and orphans are reported, and an error's credentials are not."""
        record(start)
        file = ProgressFile(journals(spool)[0], write=True)
        noted = Progress(damaged=2, unknown=3, deferred=4, blocked_since=time.time_ns() - 10**13)
        noted.error = "no answer from postgresql://me:hunter2@db/x"
        file.write(noted)
        file.close()
        shown = run_command("status").stdout
        for text in ("3 h: no answer from postgresql://***@db/x", "4 artifacts", "2 damaged", "3 events belong"):
            assert text in shown.replace("failing for 2 h", "failing for 3 h")
        (journal,) = json.loads(run_command("status", "--json").stdout)["journals"]
        assert (journal["damaged"], journal["orphans"], journal["deferred"]) == (2, 3, 4)
        assert journal["error"] == "no answer from postgresql://***@db/x"
        assert journal["since"] == journal["blocked_since"]

    def test_journals_left_alone(self, start: StartProgram, spool: Path) -> None:
        """A journal of a later version is named with its version, one without origin by its folder."""
        for _ in range(2):
            record(start)
        newer, damaged = journals(spool)
        make_newer(newer)
        (damaged / "origin").write_bytes(b"00000000\n{}\n")
        before = events_of(spool)
        result = run_command("status")
        assert result.returncode == 0
        assert "version 99" in result.stdout
        assert "program_0.py" in result.stdout
        assert str(damaged) in result.stdout
        found = json.loads(run_command("status", "--json").stdout)["journals"]
        assert [(entry["problem"], entry["schema"]) for entry in found] == [
            ("newer-version", 99),
            ("damaged-origin", None),
        ]
        assert events_of(spool) == before


class TestSync:
    """`trackdsl sync`."""

    def test_nothing_to_do(self) -> None:
        """With nothing waiting, `sync` says so at once and succeeds."""
        result = run_command("sync")
        assert result.returncode == 0
        assert "Nothing is waiting" in result.stdout

    @pytest.mark.slow
    def test_delivers(self, start: StartProgram, spool: Path) -> None:
        """What programs recorded offline is at MLflow afterwards, that of a killed one too, and the spool is empty."""
        record(start)
        killed = start(LIVING)
        assert killed.say() == "recorded"
        killed.kill()
        result = trackdsl("sync")
        assert result.returncode == 0, result.stderr
        assert "Everything is delivered" in result.stdout
        assert "INFO" not in result.stderr
        found = {run.info.run_name: run for run in all_runs()}
        assert {name: run.info.status for name, run in found.items()} == {
            "pipeline": "FINISHED",
            "train": "FINISHED",
            "living": "KILLED",
        }
        assert found["train"].data.params == {"lr": "0.1"}
        points = client().get_metric_history(found["train"].info.run_id, "loss")
        assert [(point.step, point.value) for point in points] == [(step, 1 / (step + 1)) for step in range(5)]
        assert journals(spool) == []
        assert not delivery_pids(spool)

    @pytest.mark.slow
    def test_unreachable_server(self, start: StartProgram, spool: Path) -> None:
        """A server that is away fails `sync` within seconds, by name; nothing is lost, and other stores are served."""
        port = free_port()
        record(start, TRACKDSL_TRACKING_URI=f"http://me:hunter2@127.0.0.1:{port}")
        waiting = events_of(spool)
        record(start)
        began = time.monotonic()
        result = run_command("sync", "--timeout", str(PATIENCE))
        assert result.returncode == 1
        assert time.monotonic() - began < PATIENCE / 2
        assert f"127.0.0.1:{port}" in result.stderr
        assert "trackdsl sync" in result.stderr
        assert "hunter2" not in result.stdout + result.stderr + (spool / "delivery.log").read_text()
        assert events_of(spool) == waiting
        assert len(all_runs()) == 2

    def test_journals_left_alone(self, start: StartProgram, spool: Path) -> None:
        """A journal of a later version and a damaged one fail `sync` by name, and are not touched."""
        for _ in range(2):
            record(start)
        newer, damaged = journals(spool)
        make_newer(newer)
        (damaged / "origin").unlink()
        before = {path: path.read_bytes() for path in spool.rglob("*") if path.is_file()}
        result = run_command("sync")
        assert result.returncode == 1
        assert "version 99" in result.stderr
        assert str(damaged) in result.stderr
        assert {path: path.read_bytes() for path in spool.rglob("*") if path.is_file()} == before

    @pytest.mark.slow
    def test_beside_the_delivery_process(self, start: StartProgram, spool: Path) -> None:
        """While a delivery process is at work `sync` waits for it, and a program that lives on counts as it stands."""
        program = start(LIVING, TRACKDSL_MODE="online")
        assert program.say() == "recorded"
        wait_until(lambda: is_held(spool / "delivery.lock"), "the delivery process")
        (deliverer,) = delivery_pids(spool)
        result = run_command("sync")
        assert result.returncode == 0, result.stderr
        assert [run.data.metrics for run in all_runs()] == [{"loss": 0.5}]
        assert program.process.poll() is None
        assert delivery_pids(spool) == [deliverer]
        again = run_command("sync")
        assert (again.returncode, "Nothing is waiting" in again.stdout) == (0, True)
        assert "1 program is recording" in run_command("status").stdout
        program.kill()
        assert run_command("sync").returncode == 0
        assert [run.info.status for run in all_runs()] == ["KILLED"]

    @pytest.mark.slow
    def test_takes_over(self, start: StartProgram, spool: Path) -> None:
        """When the process that delivers goes away, `sync` continues instead."""
        record(start)
        lock = FileLock(spool / "delivery.lock")
        assert lock.acquire()
        with Foreground("sync") as sync:
            assert "running already" in sync.error_line()
            lock.release()
            code, _, errors = sync.finish()
        assert code == 0, errors
        assert len(all_runs()) == 2

    def test_gives_up(self, start: StartProgram, spool: Path) -> None:
        """`sync` fails, and says what is left, if nothing moves for `--timeout` seconds."""
        record(start)
        before = events_of(spool)
        lock = FileLock(spool / "delivery.lock")
        assert lock.acquire()
        result = trackdsl("sync", "--timeout", "0.5")
        lock.release()
        assert result.returncode == 1
        assert "program_0.py" in result.stderr
        assert "no progress" in result.stderr
        assert events_of(spool) == before

    def test_interrupt(self, start: StartProgram, spool: Path) -> None:
        """Ctrl-C exits with 130, without a traceback, and leaves everything where it was."""
        record(start)
        before = events_of(spool)
        lock = FileLock(spool / "delivery.lock")
        assert lock.acquire()
        with Foreground("sync") as sync:
            assert "running already" in sync.error_line()
            sync.process.send_signal(signal.SIGINT)
            code, _, errors = sync.finish()
        lock.release()
        assert code == 130
        assert "Nothing is lost" in errors
        assert "Traceback" not in errors
        assert events_of(spool) == before


class TestCompose:
    """`trackdsl compose`."""

    def test_json(self, tmp_path: Path) -> None:
        """With --json, the files are printed by their names, or the paths of those that were written."""
        printed = json.loads(CliRunner().invoke(main, ["compose", "--json"]).stdout)
        assert list(printed) == ["compose.yaml", ".env.example"]
        assert "services:" in printed["compose.yaml"]
        result = CliRunner().invoke(main, ["compose", "--json", "--output", str(tmp_path / "tracking")])
        assert json.loads(result.stdout) == {"files": [str(tmp_path / "tracking" / name) for name in printed]}
        for name, text in printed.items():
            assert (tmp_path / "tracking" / name).read_text(encoding="utf-8") == text


class TestDemo:
    """`trackdsl demo`."""

    @pytest.mark.slow
    def test_json(self, tmp_path: Path, spool: Path) -> None:
        """With --json, the store and the root run are printed, and nothing else."""
        result = trackdsl("demo", "--json", "--directory", str(tmp_path / "demo"), TRACKDSL_MODE="online")
        end_delivery(spool)
        assert result.returncode == 0, result.stderr
        printed = json.loads(result.stdout)
        (root,) = [run for run in all_runs(printed["store"]) if run.info.run_name == "digits"]
        assert printed["runs"] == [{"name": "digits", "run_id": root.info.run_id}]

    @pytest.mark.slow
    def test_end_to_end(self, tmp_path: Path, spool: Path) -> None:
        """The demo records a pipeline, and shows the tree of runs that MLflow then holds."""
        result = trackdsl("demo", "--directory", str(tmp_path / "demo"), TRACKDSL_MODE="online")
        end_delivery(spool)
        assert result.returncode == 0, result.stderr
        uri = f"sqlite:///{tmp_path}/demo/mlflow.db"
        for command in ("trackdsl ui", "trackdsl report digits"):
            assert f"  {command} --tracking-uri {uri}\n" in result.stdout
        assert "In this folder, the commands work without --tracking-uri." in result.stdout
        runs = {run.info.run_name: run for run in all_runs(uri)}
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        for name in runs:
            assert name in result.stdout
        parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in runs.items()}
        root, sweep = runs["digits"].info.run_id, runs["sweep"].info.run_id
        assert parents == {
            "digits": None,
            **dict.fromkeys(("load", "split", "sweep", "evaluate"), root),
            **dict.fromkeys(("fit-linear", "fit-small-net", "fit-large-net"), sweep),
        }
        self.check_content(uri, runs)

    def check_content(self, uri: str, runs: dict[str, Any]) -> None:
        """Metrics by step, parameters and the model are there."""
        mlflow = client(uri)
        history = mlflow.get_metric_history(runs["fit-linear"].info.run_id, "loss")
        assert [point.step for point in history] == list(range(10))
        assert runs["fit-linear"].data.params["rate"] == "0.01"
        assert runs["digits"].data.metrics["best_accuracy"] > 0.9
        assert len(mlflow.get_run(runs["digits"].info.run_id).outputs.model_outputs) == 1
        assert [file.path for file in mlflow.list_artifacts(runs["evaluate"].info.run_id)] == ["report.json"]

    @pytest.mark.slow
    def test_unreachable_server(self, spool: Path) -> None:
        """Without a server the demo fails by saying what is wrong and what to do; its runs are kept."""
        uri = f"http://me:hunter2@127.0.0.1:{free_port()}"
        result = trackdsl("demo", TRACKDSL_MODE="online", TRACKDSL_TRACKING_URI=uri)
        end_delivery(spool)
        assert result.returncode == 1
        assert "cannot be reached" in result.stderr
        assert "trackdsl sync" in result.stderr
        assert "hunter2" not in result.stdout + result.stderr
        assert len(journals(spool)) == 1

    def test_without_scikit_learn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where scikit-learn is missing, the demo names the fix."""
        monkeypatch.setitem(sys.modules, "sklearn", None)
        result = CliRunner().invoke(main, ["demo"])
        assert result.exit_code == 1
        assert "pip install scikit-learn" in result.output

    def test_switched_off(self) -> None:
        """Where trackdsl is switched off or badly set, the demo says so instead of showing nothing."""
        assert "TRACKDSL_MODE" in trackdsl("demo", TRACKDSL_MODE="disabled").stderr
        bad = trackdsl("demo", TRACKDSL_MODE="onlin")
        assert bad.returncode == 1
        assert "Error: TRACKDSL_MODE is 'onlin'" in bad.stderr


@pytest.mark.slow
def test_newer_holds_up_nobody(start: StartProgram, spool: Path) -> None:
    """A journal of a later version is not touched, and later ones of the same store are delivered."""
    for _ in range(2):
        record(start)
    newer, _ = journals(spool)
    make_newer(newer)
    before = {path: path.read_bytes() for path in newer.iterdir()}
    assert run_command("sync").returncode == 1
    assert journals(spool) == [newer]
    assert {path: path.read_bytes() for path in newer.iterdir()} == before
    assert len(all_runs()) == 2


def test_help_keeps_its_lines() -> None:
    """Each example of a help text is on a line of its own."""
    for command in ([], ["status"], ["sync"], ["drop"], ["demo"]):
        text = run_command(*command, "--help").stdout
        assert "\\b" not in text
        assert "\n    trackdsl " in text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("command", [["status", "--json"], ["ls"], ["--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_is_full(empty_store: Path, command: list[str], unbuffered: str) -> None:
    """Where the standard output cannot be written, the error is one sentence and the exit code 1."""
    environment = {"TRACKDSL_TRACKING_URI": f"sqlite:///{empty_store}", "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "trackdsl.cli", *command],
            stdout=full, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "Error: cannot write to the standard output: No space left on device.\n"
