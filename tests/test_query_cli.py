"""`trackdsl ls`, `show`, `tree`, `compare`: what they print, for people and for programs."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import trackdsl
from trackdsl import experiment, settings, stage
from trackdsl.cli import main

from .conftest import PATIENCE, client, deliver

HOSTILE = "a\nb\x1b[31m [red]x[/] '; DROP TABLE runs; \u202e"


@pytest.fixture(scope="module")
def database(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with a tree of runs, one of which has names and values that terminals would obey."""
    folder = tmp_path_factory.mktemp("cli")
    shutil.copy(empty_store, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    before = settings.configured()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TRACKDSL_SPOOL", str(folder / "spool"))
        patch.setenv("TRACKDSL_MODE", "offline")
        trackdsl.configure(tracking_uri=uri)
        for number in range(3):
            with experiment("churn", run_name=f"pipeline-{number}", tags={"team": "a"}) as run:
                run.log_params({"lr": number / 10, "model": "rf"})
                with stage("train") as train:
                    train.log_metric("accuracy", [0.5, 0.9, math.nan][number])
        with experiment("other", run_name=HOSTILE) as run:
            run.log_params({"p": HOSTILE, "many": "x" * 500, **{f"q{n}": n for n in range(10)}})
            run.set_tag("t", HOSTILE)
        deliver()
    settings.restore(before)
    return uri


@pytest.fixture
def ask(database: str) -> Iterator[Any]:
    """Run a command on the store of `database`; what it does to the environment is undone."""
    before = dict(os.environ)

    def run(*words: str, code: int = 0, **environment: str) -> Result:
        result = CliRunner().invoke(main, [*words, "--tracking-uri", database], env=environment)
        assert result.exit_code == code, result.output
        return result

    yield run
    os.environ.clear()
    os.environ.update(before)


def as_json(result: Result) -> Any:
    """What a command printed, read as strictly as the standard says."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

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
    assert len(as_json(ask("ls", "--max", "0", "--json"))["runs"]) == 7
    assert {run["experiment"] for run in as_json(ask("ls", "churn", "other", "--json"))["runs"]} == {"churn", "other"}
    assert ask("ls", "churn", "--where", "metrics.accuracy > 2").stdout == "No runs.\n"


def test_show(ask: Any) -> None:
    """`show` tells all of a run, by its name or the beginning of its id; NaN is `null` in JSON."""
    run = as_json(ask("ls", "churn", "--where", "metrics.accuracy = 0.9", "--json"))["runs"][0]
    assert as_json(ask("show", run["run_id"][:10], "--json")) == run
    text = ask("show", "pipeline-1").stdout
    for words in ("pipeline-1", "churn", "FINISHED", "lr", "0.1", "team"):
        assert words in text
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
    """`compare` tells in what runs differ, and with `--all` what is the same."""
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


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_that_runs_hold_is_obeyed(ask: Any, terminal: bool) -> None:
    """Newlines, escape sequences, markup and changes of direction in names and values are shown, never done."""
    run_id = as_json(ask("ls", "other", "--json"))["runs"][0]["run_id"]
    environment = {"FORCE_COLOR": "1", "COLUMNS": "3000"} if terminal else {}
    for words in (["ls"], ["ls", "other"], ["show", run_id], ["tree", run_id], ["compare", run_id, "pipeline-0"]):
        text = ask(*words, **environment).stdout
        assert r"a\nb\x1b[31m [red]x[/]" in text
        assert "\u202e" not in text
        assert "\x1b[31m [" not in text
        if not terminal:
            assert "\x1b" not in text
    assert as_json(ask("show", run_id, "--json"))["name"] == HOSTILE
    assert "… 6 more" in ask("ls", "other").stdout
    for words in (["show", HOSTILE + "?"], ["ls", HOSTILE], ["ls", "churn", "--order-by", HOSTILE]):
        error = ask(*words, code=1).output
        assert error.startswith("Error: ")
        assert not {"\x1b", "\u202e"} & set(error)
        assert error.count("\n") == 1


def test_mistakes(ask: Any, tmp_path: Path) -> None:
    """What cannot be asked ends with 1 and says what to do, a wrong word with 2; no database comes of it."""
    assert "did you mean `churn`" in ask("ls", "chrun", code=1).output
    assert "Write `=`" in ask("ls", "--where", "metrics.accuracy == 1", code=1).output
    assert "did you mean `accuracy`" in ask("ls", "churn", "--order-by", "acuracy", code=1).output
    assert "there is no run" in ask("show", "nobody", code=1).output
    assert "fits several runs" in ask("tree", "train", code=1).output
    assert "two runs" in ask("compare", "pipeline-0", code=1).output
    ask("show", code=2)
    ask("compare", code=2)
    result = CliRunner().invoke(main, ["ls"])
    assert (result.exit_code, list(Path.cwd().iterdir())) == (1, [])
    assert "does not exist" in result.output


def test_as_a_program(database: str) -> None:
    """From a shell, `ls` prints a table and nothing else."""
    command = [sys.executable, "-m", "trackdsl.cli", "ls", "churn"]
    environment = {**os.environ, "TRACKDSL_TRACKING_URI": database}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("train") == 3


@pytest.mark.parametrize("command", ["ls", "show", "tree", "compare"])
def test_help_has_examples(command: str) -> None:
    """The examples of each help text stand on lines of their own."""
    text = CliRunner().invoke(main, [command, "--help"]).output
    assert f"\n    trackdsl {command} " in text
    assert "\\b" not in text
