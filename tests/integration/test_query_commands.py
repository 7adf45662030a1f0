"""`trackdsl ls`, `show`, `tree`, `compare`, `trace`: what they print, for people and for programs."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import trackdsl
from tests.conftest import PATIENCE, StartProgram, client, recorded_offline
from trackdsl import QueryError, experiment, stage
from trackdsl.cli import main
from trackdsl.cli._console import output
from trackdsl.query._shown import short

HOSTILE = "a\nb\x1b[31m [red]x[/] '; DROP TABLE runs; \u202e"
#: Not in the encodings of Western Europe.
SNOW = "sn\N{SNOWMAN}w"
LONG = "a name that goes on and on, " + "for-ever-and-ever-" * 10


@stage("fails")
def fails(message: str, deep: int = 0) -> None:
    """Fails, some levels further in if asked to, with two lines of a message."""
    if deep:
        further_in(message, deep)
    raise ValueError(f"no {message}\nreally")


def further_in(message: str, deep: int) -> None:
    """Calls `fails` in turn, so that no line of the traceback repeats the one before."""
    fails.__wrapped__(message, deep - 1)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def database(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with a tree of runs, one of which has names and values that terminals would obey."""
    folder = tmp_path_factory.mktemp("cli")
    with recorded_offline(empty_store, folder) as uri:
        for number in range(3):
            with experiment("churn", run_name=f"pipeline-{number}", tags={"team": "a"}) as run:
                run.log_params({"lr": number / 10, "model": "rf"})
                with stage("train") as train:
                    train.log_metric("accuracy", [0.5, 0.9, math.nan][number])
        with contextlib.suppress(ValueError), experiment("churn", run_name=LONG, tags={LONG: LONG}) as run:
            run.log_params({LONG: LONG})
            run.log_metric(LONG[:100], 0.5)
            fails(LONG)
        with contextlib.suppress(ValueError), experiment("churn", run_name="deep") as run:
            fails("deep", 300)
        with experiment("snow", run_name=SNOW):
            pass
        with experiment("other", run_name=HOSTILE) as run:
            run.log_params({"p": HOSTILE, "many": "x" * 500, **{f"q{n}": n for n in range(10)}})
            run.set_tag("t", HOSTILE)
    return uri


@pytest.fixture
def ask(database: str) -> Iterator[Any]:
    """Run a command on the store of `database`; what it does to the environment is undone."""
    before = dict(os.environ)

    def run(*arguments: str, code: int = 0, charset: str = "utf-8", **environment: str) -> Result:
        result = CliRunner(charset).invoke(main, [*arguments, "--tracking-uri", database], env=environment)
        assert result.exit_code == code, result.output
        return result

    yield run
    os.environ.clear()
    os.environ.update(before)


def as_json(result: Result) -> Any:
    """What a command printed, read as strictly as the standard says."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(result.stdout, parse_constant=refuse)


def test_ls(ask: Any, database: str) -> None:
    """`ls` lists the runs that were asked for, in order; with `--json` all that MLflow has of them."""
    text = ask("ls", "churn").stdout
    assert text.count("train") == 3
    assert "lr=0.2" in text
    assert "accuracy 0.9" in text
    assert "there are more" not in text.lower()
    found = as_json(ask("ls", "churn", "--order-by", "accuracy DESC", "--where", "metrics.accuracy > 0.1", "--json"))
    assert [run["metrics"] for run in found["runs"]] == [{"accuracy": 0.9}, {"accuracy": 0.5}]
    assert found["more"] is False
    first = found["runs"][0]
    assert list(first) == ["run_id", "id", "name", "experiment", "status", "start", "end", "duration", "parent", "path",
                           "params", "metrics", "tags"]  # fmt: skip
    run = client(database).get_run(first["run_id"])
    assert (first["path"], first["parent"]) == ("pipeline-1/train", run.data.tags["mlflow.parentRunId"])
    assert first["tags"] == run.data.tags
    few = as_json(ask("ls", "--max", "2", "--json"))
    assert (len(few["runs"]), few["more"]) == (2, True)
    assert "--max 0" in ask("ls", "--max", "2").stdout
    assert len(as_json(ask("ls", "--max", "0", "--json"))["runs"]) == 12
    assert {run["experiment"] for run in as_json(ask("ls", "churn", "other", "--json"))["runs"]} == {"churn", "other"}
    assert ask("ls", "churn", "--where", "metrics.accuracy > 2").stdout == "No runs.\n"


def test_show(ask: Any) -> None:
    """`show` prints all of a run, by its name or the beginning of its id; NaN is `null` in JSON."""
    run = as_json(ask("ls", "churn", "--where", "metrics.accuracy = 0.9", "--json"))["runs"][0]
    assert as_json(ask("show", short(run["run_id"]), "--json")) == run
    text = ask("show", "pipeline-1").stdout
    for part in ("pipeline-1", "churn", "FINISHED", "lr", "0.1", "team"):
        assert part in text
    nan = next(one for one in as_json(ask("ls", "churn", "--json"))["runs"] if one["path"] == "pipeline-2/train")
    assert nan["metrics"] == {"accuracy": None}
    assert "nan" in ask("show", nan["run_id"]).stdout


def test_tree(ask: Any) -> None:
    """`tree` draws a run and what is below it; from below, `--whole` begins at the root."""
    lines = ask("tree", "pipeline-1").stdout.splitlines()
    assert lines[0].startswith("pipeline-1  FINISHED  ")
    assert lines[1].startswith("└── train  FINISHED  ")
    assert "accuracy 0.9" in lines[1]
    found = as_json(ask("tree", "pipeline-1", "--json"))
    (below,) = found["children"]
    assert (below["name"], below["metrics"], below["children"]) == ("train", {"accuracy": 0.9}, [])
    assert as_json(ask("tree", below["run_id"], "--whole", "--json")) == found


def test_compare(ask: Any) -> None:
    """`compare` prints in what runs differ, and with `--all` what is the same."""
    found = as_json(ask("compare", "pipeline-0", "pipeline-1", "--json"))
    assert found["differences"] == [{"kind": "params", "name": "lr", "values": ["0.0", "0.1"]}]
    assert [run["name"] for run in found["runs"]] == ["pipeline-0", "pipeline-1"]
    assert found["same"] > 1
    text = ask("compare", "pipeline-0", "pipeline-1").stdout
    assert "lr" in text
    assert "model" not in text
    assert "model" in ask("compare", "pipeline-0", "pipeline-1", "--all").stdout
    trains = [run["run_id"] for run in as_json(ask("ls", "churn", "--where", "run_name = 'train'", "--json"))["runs"]]
    values = as_json(ask("compare", *trains, "--json"))["differences"][0]["values"]
    assert sorted(value for value in values if value is not None) == [0.5, 0.9]


def test_compare_with_one_run(ask: Any) -> None:
    """The command line is wrong, so the exit code is 2, and the usage is shown."""
    said = ask("compare", "pipeline-0", code=2).stderr
    assert "Usage:" in said
    assert "compare takes two runs or more: `trackdsl compare RUN RUN`" in said


def test_compare_with_stages(ask: Any, tmp_path: Path) -> None:
    """The stages of both trees are compared too, with deltas; `--html` writes a page that is inert."""
    found = as_json(ask("compare", "pipeline-0", "pipeline-1", "--json"))
    whole, train = found["stages"]
    assert (whole["path"], train["path"], train["statuses"]) == ("", "train", ["FINISHED", "FINISHED"])
    assert train["differences"] == [{"kind": "metrics", "name": "accuracy", "values": [0.5, 0.9]}]
    assert len(found["changes"]) == 1
    lines = ask("compare", "pipeline-0", "pipeline-1").stdout.splitlines()
    assert next(line.split() for line in lines if "train: accuracy" in line)[-2:] == ["0.9", "+0.4"]
    other = as_json(ask("ls", "other", "--json"))["runs"][0]["run_id"]
    done = ask("compare", "pipeline-0", "pipeline-1", other, "--html", str(tmp_path / "c.html"))
    assert "compares 3 runs" in done.stderr
    page = (tmp_path / "c.html").read_text()
    assert "0.9 (+0.4)" in page
    assert "Parallel coordinates</h2>" in page
    assert "<script" not in page
    assert "\x1b" not in page
    assert "x.html" in ask("compare", "pipeline-0", other, "--html", str(tmp_path / "no" / "x.html"), code=1).output


def test_trace(ask: Any, tmp_path: Path) -> None:
    """`trace` writes the runs as a trace, or as a chart for Markdown; where a file cannot be written, it says so."""
    file = tmp_path / "trace.json"
    said = ask("trace", "pipeline-1", "-o", str(file))
    assert (said.stdout, said.stderr.count("https://ui.perfetto.dev")) == ("", 1)
    spans = [event for event in json.loads(file.read_text())["traceEvents"] if event["ph"] == "X"]
    assert [span["name"] for span in spans] == ["pipeline-1", "train"]
    assert spans[1]["args"]["metrics"] == {"accuracy": 0.9}
    assert as_json(ask("trace", "pipeline-1"))["traceEvents"][-1] == spans[1]
    chart = ask("trace", "pipeline-1", "--format", "mermaid").stdout.splitlines()
    assert (chart[:2], chart[-1]) == (["```mermaid", "gantt"], "```")
    printed = as_json(ask("trace", "pipeline-1", "-o", str(file), "--json"))
    assert printed == {"path": str(file), "format": "chrome", "runs": 2}
    assert "--json needs --output FILE" in ask("trace", "pipeline-1", "--json", code=2).stderr
    said = ask("trace", "pipeline-1", "-o", str(file), "--format", "speedscope")
    assert "https://speedscope.app" in said.stderr
    assert json.loads(file.read_text())["name"] == "pipeline-1"
    failed = ask("trace", "pipeline-1", "-o", str(tmp_path / "missing" / "x.json"), code=1)
    assert "cannot write to" in failed.stderr


def test_report(ask: Any, tmp_path: Path) -> None:
    """`report` writes a page, and says where; hostile names are text there; errors name what to do."""
    file = tmp_path / "report.html"
    said = ask("report", "pipeline-1", "-o", str(file))
    assert (said.stdout, "shows 2 runs: open it in a browser" in said.stderr) == ("", True)
    page = file.read_text()
    assert page.startswith("<!doctype html>")
    assert "accuracy" in page
    printed = as_json(ask("report", "deep", "-o", str(file), "--json"))
    assert (printed["runs"], printed["bytes"]) == (2, file.stat().st_size)
    assert "further_in" in file.read_text()
    other = as_json(ask("ls", "other", "--json"))["runs"][0]["run_id"]
    ask("report", other, "-o", str(file))
    assert "\x1b" not in file.read_text()
    assert "no run 'nothing'" in ask("report", "nothing", "-o", str(file), code=1).stderr
    failed = ask("report", "pipeline-1", "-o", str(tmp_path / "missing" / "x.html"), code=1)
    assert "cannot write to" in failed.stderr


def test_ls_shows_roots_first(ask: Any) -> None:
    """Without an order runs without a parent come first, also where there is no room for the others."""
    found = as_json(ask("ls", "churn", "--json"))["runs"]
    assert [run["parent"] is None for run in found] == sorted((run["parent"] is None for run in found), reverse=True)
    assert {run["name"] for run in found[:5]} == {"deep", LONG[:250], "pipeline-2", "pipeline-1", "pipeline-0"}
    few = as_json(ask("ls", "churn", "--max", "2", "--json"))
    assert (few["runs"], few["more"]) == (found[:2], True)
    by_path = as_json(ask("ls", "churn", "--order-by", "path", "--json"))["runs"]
    assert [run["path"] for run in by_path][-2:] == ["pipeline-2", "pipeline-2/train"]


def test_an_empty_experiment_says_where_runs_are(ask: Any) -> None:
    """`ls` of an experiment without runs names those that hold some."""
    text = ask("ls", "Default").stdout
    assert text.startswith("No runs in 'Default'. There are runs in ")
    assert "'churn'" in text
    assert "'other'" in text
    assert as_json(ask("ls", "Default", "--json")) == {"runs": [], "more": False}


@pytest.mark.parametrize("command", [["ls", "snow"], ["show", SNOW], ["changes", SNOW], ["tree", SNOW]])
def test_another_encoding(ask: Any, command: list[str]) -> None:
    """An output without the characters of a name has question marks in their place."""
    assert "sn?w" in ask(*command, charset="latin-1").stdout


def test_the_doctor_in_another_encoding(ask: Any) -> None:
    """Where the marks of `doctor` are not in the encoding, it prints words in their place."""
    lines = ask("doctor", charset="latin-1", TRACKDSL_MODE="offline").stdout.splitlines()
    assert {line.split()[0] for line in lines if " recording " in line or " disk " in line} == {"warning", "ok"}


def test_failures(ask: Any) -> None:
    """`show` prints the traceback of a failed run with its line breaks, `tree` the exception beside the status."""
    runs = as_json(ask("ls", "churn", "--where", "run_name = 'fails'", "--json"))["runs"]
    (first,) = [run for run in runs if run["tags"]["trackdsl.exception.message"].startswith("no a name")]
    text = ask("show", first["run_id"]).stdout
    section = text.partition("\nexception\n")[2].splitlines()
    assert section[0] == "Traceback (most recent call last):"
    assert section[-2:] == [f"ValueError: no {LONG}", "really"]
    assert '    raise ValueError(f"no {message}\\nreally")' in section
    assert "traceback" not in text.partition("\nexception\n")[0]
    assert "exception" not in ask("show", "pipeline-0").stdout
    lines = ask("tree", "deep").stdout.splitlines()
    assert ["  FAILED  " in line and "  ValueError: no deep" in line for line in lines] == [True, True]
    assert "ValueError" not in ask("tree", "pipeline-1").stdout
    branch = as_json(ask("tree", "deep", "--json"))
    assert branch["failure"] == branch["children"][0]["failure"] == "ValueError: no deep"
    assert as_json(ask("tree", "pipeline-1", "--json"))["failure"] is None


def test_a_traceback_that_no_tag_can_hold(ask: Any) -> None:
    """`show` prints all of a long traceback, from the file that is kept next to the tag."""
    runs = as_json(ask("ls", "--where", "run_name = 'fails'", "--json"))["runs"]
    (found,) = [run for run in runs if run["tags"]["trackdsl.exception.message"].startswith("no deep")]
    tag = found["tags"]["trackdsl.exception.traceback"]
    text = ask("show", found["run_id"]).stdout.partition("\nexception\n")[2]
    assert len(tag) < len(text)
    assert "… [" not in text
    assert text.endswith("ValueError: no deep\nreally\n")


@pytest.mark.parametrize("name", ["churn", None])
def test_tables_fit_80_columns(ask: Any, name: str | None) -> None:
    """With `COLUMNS=80` no table is wider than that, long names or not, and every id stands whole in it."""
    runs = as_json(ask("ls", "churn", "--json"))["runs"]
    long = next(run for run in runs if run["name"].startswith("a name"))
    shown = [short(long["run_id"]), *(short(run["run_id"]) for run in runs)]
    lines = ask("ls", *([name] if name else []), COLUMNS="80").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [id_ for id_ in shown if not any(line.startswith(id_ + " ") for line in lines)] == []
    assert any("…" in line for line in lines)
    assert len(lines) < 60
    for arguments, ids in (
        (["show", long["run_id"]], [long["run_id"], long["id"]]),
        (["compare", long["run_id"], "pipeline-0"], []),
        (["tree", long["run_id"]], []),
    ):
        text = ask(*arguments, COLUMNS="80").stdout.partition("\nexception\n")[0]
        assert max(map(len, text.splitlines())) <= 80
        assert all(id_ in text for id_ in ids)


def test_a_narrow_list_keeps_the_names(ask: Any) -> None:
    """At 40 columns `ls` still says which run is which, and how it ended."""
    title, *rows = ask("ls", COLUMNS="40").stdout.splitlines()
    assert title.split() == ["run", "name", "status", "took"]
    assert rows
    assert all(len(line) <= 40 and len(line.split()) >= 4 for line in rows if not line.startswith("There are"))


@pytest.mark.parametrize("columns", [36, 40, 53, 54, 60, 66, 80])
def test_a_narrow_terminal_cuts_nothing_of_a_run(ask: Any, columns: int) -> None:
    """However narrow the terminal is, `show` has whole ids, and all characters of long names and values."""
    for name in ("train", LONG[:250]):
        run = as_json(ask("show", name, "--json"))
        wide, narrow = (
            ask("show", run["run_id"], COLUMNS=str(width)).stdout.partition("\nexception\n")[0]
            for width in (1000, columns)
        )
        assert max(map(len, narrow.splitlines())) <= columns
        assert all(id_ in narrow for id_ in (run["run_id"], run["id"], run["start"]))
        assert sorted("".join(narrow.split())) == sorted("".join(wide.split()))


@pytest.mark.parametrize("arguments", [["show", "pipeline-1"], ["ls"], ["tree", "pipeline-1"], ["show", LONG]])
def test_a_pipe_gets_no_padding(ask: Any, arguments: list[str]) -> None:
    """Lines for a pipe have no blanks at their ends, however long the longest value of a table is."""
    lines = ask(*arguments).stdout.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize(("columns", "lines", "width"), [("100", "24", 100), ("80", "", 80), ("80", "24", 1000)])
def test_the_width_of_a_pipe(monkeypatch: pytest.MonkeyPatch, columns: str, lines: str, width: int) -> None:
    """`COLUMNS` limits a pipe, whether `LINES` is set or not, unless both are what readline sets by itself."""
    monkeypatch.setenv("COLUMNS", columns)
    if lines:
        monkeypatch.setenv("LINES", lines)
    assert output().width == width


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_that_runs_hold_is_obeyed(ask: Any, terminal: bool) -> None:
    """Newlines, escape sequences, markup and changes of direction in names and values are shown as text."""
    run_id = as_json(ask("ls", "other", "--json"))["runs"][0]["run_id"]
    environment = {"FORCE_COLOR": "1", "COLUMNS": "3000"} if terminal else {}
    for arguments in (["ls"], ["ls", "other"], ["show", run_id], ["tree", run_id], ["compare", run_id, "pipeline-0"]):
        text = ask(*arguments, **environment).stdout
        assert r"a\nb\x1b[31m [red]x[/]" in text
        assert "\u202e" not in text
        assert "\x1b[31m [" not in text
        if not terminal:
            assert "\x1b" not in text
    assert as_json(ask("show", run_id, "--json"))["name"] == HOSTILE
    assert "… 6 more" in ask("ls", "other").stdout
    for arguments in (["show", HOSTILE + "?"], ["ls", HOSTILE], ["ls", "churn", "--order-by", HOSTILE]):
        error = ask(*arguments, code=1).output
        assert error.startswith("Error: ")
        assert not {"\x1b", "\u202e"} & set(error)
        assert error.count("\n") == 1


def test_mistakes(ask: Any, tmp_path: Path) -> None:
    """A wrong question exits with 1 and names the fix, a wrong argument with 2; no database is made."""
    assert "did you mean `churn`" in ask("ls", "chrun", code=1).output
    assert "Write `=`" in ask("ls", "--where", "metrics.accuracy == 1", code=1).output
    assert "did you mean `accuracy`" in ask("ls", "churn", "--order-by", "acuracy", code=1).output
    assert "there is no run 'nobody': give its id" in ask("show", "nobody", code=1).output
    assert "no run 'pipelin-0'; did you mean `pipeline-0`?" in ask("show", "pipelin-0", code=1).output
    assert "two runs" in ask("compare", "pipeline-0", code=2).output
    ask("show", code=2)
    ask("compare", code=2)
    result = CliRunner().invoke(main, ["ls"])
    assert (result.exit_code, list(Path.cwd().iterdir())) == (1, [])
    assert "does not exist" in result.output


def test_what_waits_is_not_said_to_be_missing(
    tmp_path: Path, sqlite_store: str, start: StartProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While events wait for a store, no run, metric, experiment or database of it is said to be missing."""
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", sqlite_store)
    fresh = f"sqlite:///{tmp_path}/fresh.db"
    for uri in (sqlite_store, fresh):
        code, _, err = start(WAITING, TRACKDSL_TRACKING_URI=uri).finish()
        assert (code, err) == (0, "")
    asked = [["show", "root"], ["tree", "root"], ["compare", "root", "other"], ["ls", "waits"],
             ["ls", "Default"], ["ls"], ["show", "root", "--tracking-uri", fresh]]  # fmt: skip
    before = dict(os.environ)
    for arguments in asked:
        result = CliRunner().invoke(main, arguments)
        assert "3 events wait for delivery to this store" in result.output
        assert "`trackdsl sync` delivers them" in result.output
        assert "not exist" not in result.output
        assert "there is no" not in result.output
    os.environ.clear()
    os.environ.update(before)
    for question in (lambda: trackdsl.best(None, "loss"), lambda: trackdsl.runs(loss__gt=1, experiment="waits")):
        with pytest.raises(QueryError, match="events wait"):
            question()
    nowhere = CliRunner().invoke(main, ["ls", "--tracking-uri", f"sqlite:///{tmp_path}/nowhere.db"])
    assert "does not exist" in nowhere.output


WAITING = """
    from trackdsl import experiment

    with experiment("waits", run_name="root") as run:
        run.log_metric("loss", 1.0)
"""


@pytest.mark.slow
def test_as_a_program(database: str) -> None:
    """From a shell, `ls` prints a table and nothing else."""
    command = [sys.executable, "-m", "trackdsl.cli", "ls", "churn"]
    environment = {**os.environ, "TRACKDSL_TRACKING_URI": database}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("train") == 3


@pytest.mark.slow
def test_the_newest_is_named_once(database: str) -> None:
    """Where a name fits several runs, one line of the errors says which one is shown; the output is the run alone."""
    command = [sys.executable, "-m", "trackdsl.cli", "tree", "train", "--json", "--tracking-uri", database]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["run_id"] in done.stderr
    assert done.stderr.startswith("trackdsl: 3 runs are called 'train'; this is the newest")
    assert done.stderr.count("\n") == 1


def test_the_list_of_commands_is_not_cut() -> None:
    """In 80 columns each command has one line, with all of its first sentence."""
    listed = CliRunner().invoke(main, ["--help"], terminal_width=80).output.partition("Commands:")[2].splitlines()[1:]
    assert len(listed) == len(main.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


@pytest.mark.parametrize("command", ["run", "ls", "show", "tree", "compare", "report", "trace", "export", "open", "ui"])
def test_help_has_examples(command: str) -> None:
    """The examples of each help text stand on lines of their own."""
    text = CliRunner().invoke(main, [command, "--help"]).output
    assert f"\n    trackdsl {command} " in text
    assert "\\b" not in text
