"""The tags of trackdsl's that runs have at a store, and stores that older versions have written."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import trackdsl
from tests.conftest import all_runs, client, deliver
from tests.drawn_processes import Machine, Process
from tests.memory_store import Crash, Held, MemoryStore
from trackdsl import compare, experiment, history, load_artifact, runs, stage, tree
from trackdsl._core import events
from trackdsl.cli import main
from trackdsl.delivery.journals import _stretch_size
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.store_format.call_tag import FIELDS, MAX_CALL, call_of

GOLDEN = Path(__file__).parent.parent / "golden" / "runs-with-single-tags.json"
CALL = {"trackdsl.id", "trackdsl.path", "trackdsl.call"}
MakeMachine = Callable[[str, MemoryStore], Machine]


@stage
def fit(lr: float = 0.1) -> None:
    """A stage that records two files."""
    trackdsl.log_dict({"lr": lr}, "settings.json")
    trackdsl.log_text("good", "notes/fit.txt")


@stage
def load(limit: int = 3) -> None:
    """A stage that records no file."""


def pipeline() -> None:
    """Two stages."""
    load()
    fit()


def own_tags(tags: Mapping[str, str]) -> set[str]:
    """The names of a run's tags that are trackdsl's."""
    return {name for name in tags if name.startswith("trackdsl.")}


def test_an_ordinary_run_has_three_tags_of_ours_and_one_for_its_files(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Roots, children, blocks and runs in an experiment that is named by its id have no other tags of ours."""
    trackdsl.configure(tracking_uri=store)
    first = experiment("tags")(pipeline)
    second = stage(pipeline)
    first()
    second()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", client(store).create_experiment(f"tags-{Path.cwd()}"))
    with stage("block", seed=1) as block:
        fit()
    deliver()
    roots = [first.last_run, second.last_run, block]
    found = [run for root in roots for run in tree(root).walk()]
    assert [run.name for run in found] == ["pipeline", "load", "fit", "pipeline", "load", "fit", "block", "fit"]
    for run in found:
        files = {"trackdsl.files"} if run.name == "fit" else set()
        assert own_tags(run.tags) == CALL | files


# --- delivery


def file(process: Process, run: bytes, path: str, text: str, *, handler: str = "object") -> None:
    """Record a file as a process does."""
    snapshot = f"{next(_snapshots)}/content"
    target = process.directory / "files" / snapshot
    target.parent.mkdir(parents=True)
    target.write_text(text)
    process.say(events.File(run, path, snapshot, directory=False, handler=handler, sha256=text))


_snapshots = itertools.count()


def rounds(*machines: Machine, number: int = 20) -> None:
    for _ in range(number):
        for machine in machines:
            machine.round()


def files_of(run: Held) -> dict[str, Any]:
    return {name: json.loads(text) for name, text in run.tags.items() if name.startswith("trackdsl.files")}


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("kind", [Crash, Unavailable])
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("each", [4, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "every"])
def test_killed_at_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException], done: bool, each: int
) -> None:
    """Wherever delivery is killed or cut off, and whenever git answers, a run has the same tags in the end."""
    monkeypatch.setattr(_stretch_size, "_STRETCH", 2)
    number, seen = 0, set()
    while True:
        number += each
        store = MemoryStore({number: (kind, done)})
        machine = Machine(tmp_path / f"{number}", store)
        parent, worker = Process(machine.spool), Process(machine.spool)
        (parent.directory / "git").unlink()
        run = parent.open("train")
        for step in range(3):
            file(parent, run, f"{step}.pkl", f"{step}")
            parent.metric(run, "loss", 1.0, step)
        machine.round()
        machine.round()
        (parent.directory / "git").write_text("c0ffee\nmain\n\ndirty\n")
        file(worker, run, "worker.pkl", "w")
        file(parent, run, "0.pkl", "again")
        parent.close(run)
        parent.die()
        worker.die()
        for _ in range(60):
            machine.round()
            if machine.empty:
                break
        machine.restart()
        (held,) = store.runs.values()
        assert machine.empty, number
        assert own_tags(held.tags) == CALL | {"trackdsl.files"}, number
        assert (call_of(held.tags)["git_dirty"], held.tags["mlflow.source.git.commit"]) == (True, "c0ffee"), number
        found = {path: entry["sha256"] for path, entry in files_of(held)["trackdsl.files"].items()}
        assert found == {"0.pkl": "again", "1.pkl": "1", "2.pkl": "2", "worker.pkl": "w"}, number
        seen.add(re.sub(r'"spool":"\w+"', "", held.tags["trackdsl.call"]))
        if store.calls < number:
            break
    assert number > 10
    assert len(seen) == 1


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_a_call_that_is_too_long_is_cut_and_kept_whole_in_a_file(machines: MakeMachine) -> None:
    """The tag of a call with long names is JSON that fits MLflow; a tag says so, and a file has the whole."""
    store = MemoryStore()
    machine = machines("one", store)
    process = Process(machine.spool)
    (process.directory / "git").write_text("c0ffee\nmain\n\nclean\n")
    site = ("shop." + "f" * 5000, "/home/" + "ä" * 3000, "0a")
    process.say(events.Open(bytes(16), None, "e", "f", "stage", "f", 0, 1, {}, {}, site))
    process.die()
    rounds(machine)
    (held,) = store.runs.values()
    call, whole = call_of(held.tags), json.loads(held.files["trackdsl/tags/trackdsl.call.txt"])
    assert len(held.tags["trackdsl.call"]) <= MAX_CALL
    assert (call["source_hash"], call["git_dirty"], call["spool"]) == ("0a", False, whole["spool"])
    assert (whole["function"], whole["file"]) == site[:2]
    assert "trackdsl.truncated.trackdsl/tags/trackdsl.call.txt" in held.tags


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_files_of_a_new_run_cost_no_request(machines: MakeMachine) -> None:
    """The tags of a run that delivery has just made are not read; later files of it, and of other journals, do that."""
    store = MemoryStore()
    asked: list[str] = []
    store.before = lambda method, *arguments: asked.extend([method] if method == "tags" else [])
    machine = machines("one", store)
    parent, worker = Process(machine.spool), Process(machine.spool)
    run = parent.open("train")
    file(parent, run, "a.pkl", "a")
    file(parent, run, "b.pkl", "b")
    rounds(machine, number=2)
    assert asked == []
    file(parent, run, "c.pkl", "c")
    file(worker, run, "d.pkl", "d")
    rounds(machine)
    (held,) = store.runs.values()
    assert asked
    assert list(files_of(held)["trackdsl.files"]) == ["a.pkl", "b.pkl", "c.pkl", "d.pkl"]
    for process in (parent, worker):
        process.die()
    rounds(machine)


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("tags", [None, {}, {"trackdsl.function": "f", "trackdsl.artifact.a.pkl": '{"sha256": "0"}'}])
def test_several_machines_write_tags_of_their_own(machines: MakeMachine, tags: dict[str, str] | None) -> None:
    """Machines that write to a run at once lose no file; what the one recorded last that resumed the run counts.

    The run is new, of plain MLflow, or was recorded by an older version.
    """
    from trackdsl.store_format.files_tag import note_of_file

    store = MemoryStore()
    one, two = machines("one", store), machines("two", store)
    first, second = Process(one.spool), Process(two.spool)
    if tags is None:
        run = first.open("train")
    else:
        store.runs["abc"] = Held("e-e", "train", dict(tags), status="FINISHED")
        run = first.resume("abc")
    file(first, run, "a.pkl", "1")
    rounds(one)
    (held,) = store.runs.values()
    (run_id,) = store.runs
    again = second.resume(run_id)
    file(second, again, "b.pkl", "2")
    # The second machine has read the tags when the first one writes them.
    between = [lambda: (file(first, run, "c.pkl", "3"), rounds(one))]

    def before(method: str, *arguments: Any) -> None:
        if method == "write" and any("files" in tag for tag in arguments[1].tags) and between:
            between.pop()()

    store.before = before
    rounds(two)
    assert not between
    file(second, again, "a.pkl", "4")
    rounds(two)
    found = {path: note_of_file(held.tags, path) for path in ("a.pkl", "b.pkl", "c.pkl")}
    assert {path: note and note.sha256 for path, note in found.items()} == {"a.pkl": "4", "b.pkl": "2", "c.pkl": "3"}
    assert len(files_of(held)) == 2
    for process in (first, second):
        process.die()
    rounds(one, two)


# --- stores that older versions have written


@pytest.fixture
def old_store(sqlite_store: str, tmp_path: Path) -> str:
    """A store of an earlier version, with a tag for each file and each field of a call; see `tests/golden`."""
    mlflow = client(sqlite_store)
    experiment_id = mlflow.create_experiment("old-style", artifact_location=str(tmp_path / "artifacts"))
    ids: dict[str, str] = {}
    for each in json.loads(GOLDEN.read_text()):
        tags = {name: ids.get(text, text) for name, text in each["tags"].items()}
        run_id = mlflow.create_run(experiment_id, each["start"], tags, each["name"]).info.run_id
        ids[each["run_id"]] = run_id
        for name, text in each["params"].items():
            mlflow.log_param(run_id, name, text)
        for name, found in each["metrics"].items():
            for step, value, time in found:
                mlflow.log_metric(run_id, name, value, time, step)
        for path, content in each["files"].items():
            local = tmp_path / "files" / path
            local.parent.mkdir(parents=True, exist_ok=True)
            local.write_bytes(base64.b64decode(content))
            mlflow.log_artifact(run_id, str(local), str(Path(path).parent).strip("."))
        mlflow.set_terminated(run_id, each["status"], each["end"])
    trackdsl.configure(tracking_uri=sqlite_store)
    return sqlite_store


def test_old_stores_are_read(old_store: str) -> None:
    """Queries, files and commands read a store with the single tags of older versions as they always did."""
    frame = runs("old-style", order_by="start")
    assert sorted(frame["path"]) == ["pipeline", "pipeline/fit", "pipeline/fit", "pipeline/load"]
    assert [run.name for run in tree("pipeline").walk()] == ["pipeline", "load", "fit", "fit"]
    first, second = (run.run_id for run in tree("pipeline").walk() if run.name == "fit")
    assert load_artifact("pipeline", "conf/layers[0].json") == {"a": 1}
    with pytest.raises(trackdsl.UntrustedArtifact):
        load_artifact(first, "thing.pkl")
    assert load_artifact(first, "thing.pkl", trusted=True) == re.compile("a+")
    assert {one.name for one in compare(first, second)} >= {"lr"}
    assert {one.name: one.values[0] for one in compare(first, second, all=True)}["function"] == "__main__.fit"
    assert list(history(first, "loss")["value"]) == [0.5, 0.1]
    shown = CliRunner().invoke(main, ["show", first]).output
    assert re.search(r"function\s+__main__\.fit", shown)
    assert re.search(r"git_dirty\s+False", shown)


FILTERS: list[tuple[str | None, dict[str, Any], int]] = [
    ("tags.trackdsl.function = '__main__.fit'", {}, 2),
    ("tags.`trackdsl.function` LIKE '%.fit' and params.lr = '0.2'", {}, 1),
    ("params.path != 'a AND b' AND tag.\"trackdsl.index\" = '0'", {}, 2),
    ("tags.trackdsl.word != 'stage'", {}, 1),
    ("tags.trackdsl.call.decorator = 'stage' AND tags.trackdsl.git.dirty = 'false'", {}, 3),
    (None, {"tags__trackdsl.function__contains": "load"}, 1),
    (None, {"trackdsl.index": 1}, 1),
    (None, {"tags__trackdsl.call.pid__in": [1, 2]}, 0),
    ("tags.trackdsl.function = 'none'", {}, 0),
]


def test_filters_on_calls_find_old_runs_and_new_ones(old_store: str) -> None:
    """A filter on one field of a call finds runs with the JSON tag and runs with the single tags of older versions."""
    found = [set(runs("old-style", where, **conditions)["run_id"]) for where, conditions, _ in FILTERS]
    assert list(map(len, found)) == [count for *_, count in FILTERS]
    mlflow = client(old_store)
    for run in all_runs(old_store):  # Now as this version writes them.
        mlflow.set_tag(run.info.run_id, "trackdsl.call", json.dumps(call_of(run.data.tags)))
        for name in set(FIELDS.values()) & set(run.data.tags):
            mlflow.delete_tag(run.info.run_id, name)
    for (where, conditions, _), expected in zip(FILTERS, found, strict=True):
        assert set(runs("old-style", where, **conditions)["run_id"]) == expected, (where, conditions)


def test_no_order_by_one_field_of_a_call(sqlite_store: str) -> None:
    """MLflow cannot order by a part of a tag, which the error says."""
    trackdsl.configure(tracking_uri=sqlite_store)
    pipeline()
    deliver()
    with pytest.raises(trackdsl.QueryError, match="sort the frame"):
        runs(order_by="tags.trackdsl.function")
