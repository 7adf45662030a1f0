"""Which earlier root run is the last one like it, if its function does not say so: blocks and scripts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import trackdsl as package
from tests.conftest import all_runs, client, deliver

CHANGED, PREVIOUS, SCRIPT = "trackdsl.changed", "trackdsl.previous", "trackdsl.script"
PYTHON, RUN = (sys.executable,), (sys.executable, "-m", "trackdsl.cli", "run")
BLOCKS = """
import sys
from trackdsl import experiment

for name in sys.argv[1:]:
    with experiment("churn", run_name=name):
        pass
"""
MAIN = """
from trackdsl import experiment

@experiment("churn")
def main(): ...

main()
"""


@pytest.fixture(autouse=True)
def on(monkeypatch: pytest.MonkeyPatch, sqlite_store: str) -> None:
    """Changes are written, to a database."""
    monkeypatch.setenv("TRACKDSL_CHANGES", "1")
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", sqlite_store)
    monkeypatch.setenv("TRACKDSL_MODE", "offline")
    monkeypatch.setenv("TRACKDSL_EXPERIMENT_NAME", "churn")
    monkeypatch.setenv("PYTHONPATH", str(Path(package.__file__).parent.parent))


def write(path: Path, text: str) -> Path:
    """Write a script; git knows nothing of folders that have no `.git`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (1, 1))
    return path


def ran(uri: str, cwd: Path, *command: str) -> list[Any]:
    """Run a program, deliver its runs, and return MLflow's root runs of it, in order."""
    before = {run.info.run_id for run in all_runs(uri)}
    subprocess.run(command, cwd=cwd, check=True)
    deliver()
    fresh = [run for run in all_runs(uri) if run.info.run_id not in before and CHANGED in run.data.tags]
    return sorted(fresh, key=lambda run: run.data.tags["trackdsl.id"])


def previous(run: Any) -> str | None:
    """The run that it was compared with."""
    found: str | None = run.data.tags.get(PREVIOUS)
    return found


def test_blocks_of_a_script_whose_names_are_made_per_run(sqlite_store: str, tmp_path: Path) -> None:
    """A block of the same name is the last one like it; then one with other numbers in it, then any."""
    write(tmp_path / "blocks.py", BLOCKS)
    (first,) = ran(sqlite_store, tmp_path, *PYTHON, "blocks.py", "w1")
    assert (first.data.tags[CHANGED], first.data.tags[SCRIPT]) == ("first run", str(tmp_path / "blocks.py"))
    (second,) = ran(sqlite_store, tmp_path, *PYTHON, "blocks.py", "w2.5e-3")
    (third,) = ran(sqlite_store, tmp_path.parent, *PYTHON, f"{tmp_path.name}/blocks.py", "resnet")
    assert (previous(second), previous(third)) == (first.info.run_id, second.info.run_id)
    again, numbered = ran(sqlite_store, tmp_path, *PYTHON, "blocks.py", "w1", "w7")
    assert (previous(again), previous(numbered)) == (first.info.run_id, again.info.run_id)


def test_two_blocks_of_one_program_are_not_alike(sqlite_store: str, tmp_path: Path) -> None:
    """`train` and `check` in one process are not compared with each other, but with those of the process before."""
    write(tmp_path / "blocks.py", BLOCKS)
    train, check = ran(sqlite_store, tmp_path, *PYTHON, "blocks.py", "train", "check")
    assert (previous(train), previous(check)) == (None, None)
    pair = ran(sqlite_store, tmp_path, *PYTHON, "blocks.py", "train", "check")
    assert [previous(run) for run in pair] == [train.info.run_id, check.info.run_id]


@pytest.mark.parametrize("command", [PYTHON, RUN], ids=["python", "run"])
@pytest.mark.parametrize("text", [BLOCKS, MAIN], ids=["block", "function"])
def test_scripts_of_one_name_in_two_folders(
    text: str, command: tuple[str, ...], sqlite_store: str, tmp_path: Path
) -> None:
    """They are two scripts, also if each is started in its own folder; from where makes no difference."""
    for folder in ("a", "b"):
        write(tmp_path / folder / "tt.py", text)
    (first,) = ran(sqlite_store, tmp_path / "a", *command, "tt.py", "x")
    (other,) = ran(sqlite_store, tmp_path / "b", *command, "tt.py", "x")
    (again,) = ran(sqlite_store, tmp_path, *command, "a/tt.py", "x")
    assert [previous(run) for run in (first, other, again)] == [None, None, first.info.run_id]


def test_checkouts_of_one_repository(sqlite_store: str, tmp_path: Path) -> None:
    """In a git working tree, a script is its path in it, wherever that is; another repository's is another script."""
    runs = []
    for folder, remote in (("one", "git@host:me/shop.git"), ("two", "https://host/you/shop"), ("three", "me/other")):
        write(tmp_path / folder / "jobs" / "tt.py", BLOCKS)
        for arguments in (["init", "-q"], ["remote", "add", "origin", remote], ["add", "."], ["commit", "-qm", "x"]):
            user = ["-c", "user.email=a@example.com", "-c", "user.name=a"]
            subprocess.run(["git", *user, *arguments], cwd=tmp_path / folder, check=True)
        runs += ran(sqlite_store, tmp_path, *PYTHON, f"{folder}/jobs/tt.py", "x")
    assert {run.data.tags[SCRIPT] for run in runs} == {"jobs/tt.py"}
    assert [previous(run) for run in runs] == [None, runs[0].info.run_id, None]


@pytest.mark.parametrize("command", [PYTHON, RUN], ids=["python", "run"])
def test_runs_of_earlier_versions(command: tuple[str, ...], sqlite_store: str, tmp_path: Path) -> None:
    """A run without the tag is found by its name and the program's name, as before."""
    write(tmp_path / "tt.py", BLOCKS)
    (first,) = ran(sqlite_store, tmp_path, *command, "tt.py", "x")
    client(sqlite_store).delete_tag(first.info.run_id, SCRIPT)
    (second,) = ran(sqlite_store, tmp_path, *command, "tt.py", "x")
    assert previous(second) == first.info.run_id
