"""What changed, where the source, packages or datasets of one of the two runs are not known."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import client, deliver
from trackdsl import experiment, log_input, stage

CHANGED = "trackdsl.changed"
_EDITED = "edited after the program began, so the source that ran is unknown: helper_of_two.py"


@pytest.fixture(autouse=True)
def on(monkeypatch: pytest.MonkeyPatch, sqlite_store: str) -> None:
    """Changes are written, to a database."""
    monkeypatch.setenv("TRACKDSL_CHANGES", "1")
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", sqlite_store)


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the project, edited long ago."""
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "helper_of_two.py"
    write(path, 1)
    os.utime(path, (1, 1))
    return path


def write(path: Path, number: int) -> None:
    """Edit the module."""
    path.write_text(f"def help():\n    return {number}\n")


#: What is done while the next run is open.
edits: list[Callable[[], None]] = []


@experiment("churn")
def pipeline() -> None:
    import helper_of_two

    helper_of_two.help()
    while edits:
        edits.pop()()


def recorded(call: Callable[[], Any]) -> str:
    """Record a root run, and return its id."""
    call()
    made = trackdsl.last()
    assert made is not None
    return made.id


def delivered(uri: str, call: Callable[[], Any]) -> Any:
    """Record a root run, deliver it, and return what MLflow has of it."""
    id_ = recorded(call)
    deliver()
    return client(uri).get_run(id_)


def test_source_that_is_not_known_of_the_run_before(sqlite_store: str, helper: Path) -> None:
    """A helper was edited before the earlier run's source was read: nobody says that nothing changed since."""
    edits.append(lambda: write(helper, 2))
    first = delivered(sqlite_store, pipeline)
    os.utime(helper, (2, 2))
    second = delivered(sqlite_store, pipeline)
    assert second.data.tags[CHANGED] == "nothing, as far as is known"
    assert f"*of the run before: {_EDITED.replace('_', chr(92) + '_')}*" in second.data.tags["mlflow.note.content"]
    found = trackdsl.changes(second.info.run_id)
    assert (found.previous, found.unknown) == (first.info.run_id, (f"of the run before: {_EDITED}",))
    assert "nothing changed, as far as is known" in str(found)

    third = delivered(sqlite_store, pipeline)
    assert (third.data.tags[CHANGED], trackdsl.changes(third.info.run_id).unknown) == ("nothing", ())


def test_a_function_that_was_edited_itself(sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What such a function used is not known either: the run says so."""
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "edited_itself.py"
    path.write_text("from trackdsl import experiment\n@experiment('churn')\ndef main():\n    return 1\n")
    main = importlib.import_module("edited_itself").main

    def edits() -> None:
        main()
        path.write_text(path.read_text().replace("1", "2"))

    run = delivered(sqlite_store, edits)
    (sentence,) = trackdsl.changes(run.info.run_id).unknown
    assert sentence.endswith("the source that ran is unknown: edited_itself.py")


def test_a_secret_in_the_source_that_was_edited(sqlite_store: str, helper: Path) -> None:
    """Source is compared masked: a run that uses a secret does not say that nothing changed, and says why, once."""
    for secret in ("sk-abcdefghijklmnop1234567890abcdef", "sk-0123456789abcdefghijklmnopqrstuv"):
        helper.write_text(f"API_KEY = '{secret}'\ndef help():\n    return API_KEY\n")
        os.utime(helper, (len(secret), 2))
        importlib.import_module("helper_of_two")
        run = delivered(sqlite_store, pipeline)
    assert run.data.tags[CHANGED] == "nothing, as far as is known"
    assert trackdsl.changes(run.info.run_id).unknown == (
        "secrets are masked, so it is not known whether they changed: helper_of_two.API_KEY",
    )


def test_a_run_before_that_keeps_nothing(sqlite_store: str, helper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `changes` off, its source and packages are not known; the next run says so."""
    monkeypatch.setenv("TRACKDSL_CHANGES", "0")
    delivered(sqlite_store, pipeline)
    monkeypatch.setenv("TRACKDSL_CHANGES", "1")
    trackdsl.configure()
    run = delivered(sqlite_store, pipeline)
    assert run.data.tags[CHANGED] == "nothing, as far as is known"
    assert trackdsl.changes(run.info.run_id).unknown == (
        "of the run before: its source and packages are not known: the run does not keep them",
    )


def test_a_child_run_whose_root_run_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence about a child run says that it is the root run which would keep its source."""
    monkeypatch.setenv("TRACKDSL_CHANGES", "0")
    for _ in range(2):
        recorded(loads)
    deliver()
    found = trackdsl.runs("churn", where="run_name = 'load'")
    (changes,) = trackdsl.compare(*found["run_id"]).changes
    sentence = "its source and packages are not known: its root run does not keep them"
    assert sentence in changes.unknown
    assert not any("the run does not keep" in one for one in changes.unknown)


def test_packages_whose_list_is_gone_are_not_known(sqlite_store: str, helper: Path) -> None:
    """The run that kept the list of packages was deleted: the run after says that they are not compared."""
    first, second = (delivered(sqlite_store, pipeline) for _ in range(2))
    file = Path(second.info.artifact_uri, "trackdsl/changes.json")
    kept = json.loads(file.read_text())
    Path(first.info.artifact_uri, "trackdsl/source.json").unlink()
    third = delivered(sqlite_store, pipeline)
    assert kept["packages"] is not None
    assert third.data.tags[CHANGED] == "nothing, as far as is known"
    (sentence,) = trackdsl.changes(third.info.run_id).unknown
    assert sentence.startswith("of the run before: its packages are not known")


@stage
def load() -> None:
    log_input([1, 2, 3], "train")


@experiment("churn")
def loads() -> None:
    load()


def test_datasets_that_are_not_known_of_one_run_are_not_compared(
    sqlite_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changed is not written to one of two equal runs: no dataset is gone or new, and the comparison says so."""
    first = delivered(sqlite_store, loads)
    monkeypatch.setenv("TRACKDSL_CHANGES", "0")
    second = delivered(sqlite_store, loads)
    for one, other in ((first, second), (second, first)):
        (changes,) = trackdsl.compare(one.info.run_id, other.info.run_id).changes
        assert (changes.changes, changes.parts_at) == ((), None)
        assert "datasets are not compared, because those of one run are not known" in changes.unknown
        assert trackdsl.changes(one.info.run_id, since=other.info.run_id).summary == "nothing, as far as is known"
