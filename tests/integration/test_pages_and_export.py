"""`trackdsl open`, `ui` and `export`: the pages of runs, MLflow's UI on a store, and files of runs."""

from __future__ import annotations

import contextlib
import errno
import http.client
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import psutil
import pytest

from tests.conftest import PATIENCE, Server, client, deliver, run_command, wait_until
from trackdsl import experiment, stage
from trackdsl.cli import _pages


def record() -> None:
    """A tree of two runs, delivered to the store of the working directory."""
    with experiment("churn", run_name="pipeline") as run:
        run.log_params({"lr": 0.1, "note": 'a "quote", and\na line'})
        with stage("train") as train:
            train.log_metric("accuracy", 0.9)
    deliver()


@pytest.fixture
def recorded(sqlite_store: str) -> str:
    record()
    return sqlite_store


@pytest.mark.parametrize("ending", ["csv", "CSV", "parquet"])
def test_export(recorded: str, ending: str) -> None:
    """The file has a row for each run, with the columns of `runs`; values with quotes and newlines come back."""
    done = run_command("export", "churn", "-o", f"runs.{ending}")
    assert done.returncode == 0, done.stderr
    assert (done.stdout, "has 2 runs in" in done.stderr) == ("", True)
    frame = pd.read_parquet("runs.parquet") if ending == "parquet" else pd.read_csv(f"runs.{ending}")
    assert frame["path"].tolist() == ["pipeline/train", "pipeline"]
    assert frame["metrics.accuracy"].tolist()[0] == 0.9
    assert frame["params.note"].tolist()[1] == 'a "quote", and\na line'
    assert not list(Path().glob(".runs*"))


def test_export_of_some(recorded: str) -> None:
    """A filter chooses runs; a file that exists is replaced."""
    Path("some.csv").write_text("before")
    done = run_command("export", "-o", "some.csv", "--where", "metrics.accuracy > 0.5")
    assert "has 1 run in" in done.stderr
    assert pd.read_csv("some.csv")["name"].tolist() == ["train"]


def test_export_as_json(recorded: str) -> None:
    """A JSON file is a list of rows; what is missing or no number is `null`."""
    with experiment("churn", run_name="odd") as run:
        run.log_metric("loss", float("nan"))
    deliver()
    said = json.loads(run_command("export", "churn", "-o", "runs.json", "--json").stdout)
    rows = json.loads(Path("runs.json").read_text())
    assert (said["path"], said["runs"], list(rows[0])) == ("runs.json", 3, said["columns"])
    by_name = {row["name"]: row for row in rows}
    assert (by_name["train"]["metrics.accuracy"], by_name["train"]["params.lr"]) == (0.9, None)
    assert by_name["odd"]["metrics.loss"] is None
    assert pd.Timestamp(by_name["odd"]["start"]).tzinfo is not None


def test_no_cell_is_a_formula(recorded: str) -> None:
    """A spreadsheet executes no name and no parameter; numbers stay numbers, and Parquet has the texts themselves."""
    with experiment("churn", run_name="=cmd()|' /C calc'!A0") as run:
        run.log_params({"a": "@SUM(A1)", "b": "-0.5", "c": "+x", "d": "\t=1"})
    deliver()
    for ending in ("csv", "parquet"):
        run_command("export", "churn", "-o", f"runs.{ending}")
    read = {"keep_default_na": False, "dtype": str}
    texts = pd.read_csv("runs.csv", **read).iloc[0]  # type: ignore[call-overload]
    assert texts["name"] == "'=cmd()|' /C calc'!A0"
    assert [texts[f"params.{name}"] for name in "abcd"] == ["'@SUM(A1)", "-0.5", "'+x", "'\t=1"]
    assert pd.read_parquet("runs.parquet")["name"].iloc[0] == "=cmd()|' /C calc'!A0"


def test_what_still_runs(sqlite_store: str) -> None:
    """A run that still runs, and the stage that it is in, reach the present in a trace and in a report's timeline."""
    store, began = client(sqlite_store), time.time_ns() // 1_000_000 - 5000
    pipeline = store.create_run("0", began, run_name="pipeline").info.run_id
    store.create_run("0", began, {"mlflow.parentRunId": pipeline}, "inner")
    events = json.loads(run_command("trace", "pipeline").stdout)["traceEvents"]
    assert min(event["dur"] for event in events if event["ph"] == "X") >= 5_000_000
    assert run_command("report", "pipeline", "-o", "r.html").returncode == 0
    data = re.findall(r'id="data">(.*?)</script>', Path("r.html").read_text())[0]
    assert min(json.loads(data)["bars"]["time"]) >= 5000


@pytest.mark.parametrize(
    "arguments", [["trace", "pipeline", "-o"], ["report", "pipeline", "-o"], ["compare", "pipeline", "train", "--html"]]
)
def test_a_dash_is_the_standard_output(recorded: str, arguments: list[str]) -> None:
    """`-` as the file means what is printed, as for other programs; no file of that name is written."""
    done = run_command(*arguments, "-")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["traceEvents"] if arguments[0] == "trace" else done.stdout.endswith("</html>\n")
    assert not Path("-").exists()
    assert "--json needs" in run_command(*arguments, "-", "--json").stderr


@pytest.mark.parametrize(
    "arguments", [["export", "-o", "x.csv"], ["export", "-o", "x.parquet"], ["trace", "pipeline", "-o", "x.csv"],
              ["compare", "pipeline", "train", "--html", "x.csv"], ["report", "pipeline", "-o", "x.csv"]]
)  # fmt: skip
def test_a_full_disk(recorded: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that was there stays as it is, and nothing else is left."""
    name = arguments[-1]
    Path(name).write_text("before")
    before = sorted(Path().iterdir())

    def full(_self: Path, _target: Path) -> Path:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "replace", full)
    done = run_command(*arguments)
    assert done.returncode == 1
    assert f"cannot write to {name}: No space left on device" in done.stderr
    assert Path(name).read_text() == "before"
    assert sorted(Path().iterdir()) == before


def test_a_device_is_not_replaced(recorded: str) -> None:
    """What is not a regular file is written directly; a link stays a link; the file's permissions stay."""
    Path("target.json").write_text("")
    Path("target.json").chmod(0o640)
    Path("link.json").symlink_to("target.json")
    assert run_command("trace", "pipeline", "-o", "link.json").returncode == 0
    assert Path("link.json").is_symlink()
    assert Path("target.json").stat().st_mode & 0o777 == 0o640
    assert len(json.loads(Path("target.json").read_text())["traceEvents"]) > 2
    reading, writing = os.pipe()
    assert run_command("trace", "pipeline", "-o", f"/dev/fd/{writing}").returncode == 0
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert "traceEvents" in pipe.read()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "runs.xlsx"], "must end in .parquet, .csv or .json"),
        (["nothing", "-o", "runs.csv"], "no experiment 'nothing'"),
        (["-o", "missing/runs.csv"], "cannot write to missing/runs.csv: there is no folder missing"),
        (["--where", "metrics.", "-o", "runs.csv"], "metrics."),
    ],
)
def test_what_cannot_be_exported(recorded: str, arguments: list[str], said: str) -> None:
    """The message names the fix, and no file is left."""
    done = run_command("export", *arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert not list(Path().glob("*runs*"))


def test_a_database_has_no_pages(recorded: str) -> None:
    """`open` says which command shows a run of a store that is not a server."""
    done = run_command("open", "pipeline")
    assert done.returncode == 1
    assert "is not a server: `trackdsl ui " in done.stderr


def test_open(own_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a server, `open` prints the page of a run and opens it; `ui` does the same, at the newest root run."""
    own_server.start()
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", own_server.uri)
    record()
    done = run_command("open", "train")
    pages = [done.stdout.strip(), run_command("ui").stdout.strip()]
    assert all(page.startswith(f"{own_server.uri}/#/experiments/") for page in pages)
    assert opened == pages
    as_json = json.loads(run_command("open", "train", "--no-browser", "--json").stdout)
    assert (as_json["url"], as_json["run_id"]) == (pages[0], pages[0].rpartition("/")[2])
    assert opened == pages


def start_ui(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trackdsl.cli", "ui", "--no-browser", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check_ends(process: subprocess.Popen[str], number: int, code: int) -> None:
    """A signal ends the command, and with it all that it has started."""
    below = psutil.Process(process.pid).children(recursive=True)
    assert below
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (code, ""), err
    wait_until(lambda: not any(each.is_running() for each in below), "the processes of the server to end")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGKILL, -9)])
def test_ui(recorded: str, number: int, code: int) -> None:
    """MLflow's UI has the runs of the database; its processes end with it, at Ctrl-C and SIGKILL.

    The address of the store is in the environment of the server, and not in its command line.
    """
    process = start_ui()
    assert process.stdout is not None
    page = urlsplit(process.stdout.readline().strip())
    assert process.poll() is None, process.communicate()
    run_id = page.fragment.rpartition("/")[2]
    connection = http.client.HTTPConnection(page.hostname or "", page.port, timeout=PATIENCE)
    connection.request("GET", f"/api/2.0/mlflow/runs/get?run_id={run_id}")
    run = json.loads(connection.getresponse().read())["run"]
    assert run["info"]["run_name"] == "pipeline"
    connection.request("GET", "/")
    assert b"<!doctype html>" in connection.getresponse().read()
    connection.close()
    commands = [" ".join(each.cmdline()) for each in psutil.Process(process.pid).children(recursive=True)]
    assert any("mlflow server" in command for command in commands)
    assert not any(os.getcwd() in command for command in commands)
    check_ends(process, number, code)


#: Answers in place of MLflow's server, whose start takes ten seconds of CPU time, and like that from a child process.
STAND_IN = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

if os.fork():
    os.wait()
else:
    HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Answers).serve_forever()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_that_end_the_ui(
    recorded: str, number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes of the server end with the command at SIGTERM and SIGHUP, and the exit code names the signal."""
    (tmp_path / "stand-in/mlflow").mkdir(parents=True)
    (tmp_path / "stand-in/mlflow/__init__.py").touch()
    (tmp_path / "stand-in/mlflow/__main__.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/stand-in{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    process = start_ui()
    assert process.stdout is not None
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    assert process.poll() is None, process.communicate()
    check_ends(process, number, code)


@contextlib.contextmanager
def another_program() -> Iterator[int]:
    """A web server of another program, which answers all that it is asked; yields its port."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_a_port_that_is_taken(recorded: str) -> None:
    """A port that another program listens on is an error that says what to do, and no page of it is opened."""
    with another_program() as port:
        done = run_command("ui", "--no-browser", "--port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: port {port} is in use: leave --port out, or name another.\n"


def test_a_port_that_is_taken_meanwhile(recorded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer counts only while the server lives: with another program at its port, the error is the server's."""
    with another_program() as port:

        @contextlib.contextmanager
        def fails(*_: object) -> Iterator[subprocess.Popen[bytes]]:
            with subprocess.Popen(["false"]) as process:
                pass
            yield process

        monkeypatch.setattr(_pages, "_free_port", lambda: port)
        monkeypatch.setattr(_pages, "_server", fails)
        done = run_command("ui", "--no-browser")
    assert (done.returncode, done.stdout) == (1, "")
    assert "`mlflow server` ended with exit code 1" in done.stderr
