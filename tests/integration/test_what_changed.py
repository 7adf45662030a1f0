"""What changed since the last run like it: found out by delivery, and kept on the root run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import all_runs, client, deliver, delivery_pids, run_command, sync, wait_until
from tests.failing_sink import Faults, deliver_with_faults
from tests.memory_store import Crash
from trackdsl import experiment, log_metric, stage
from trackdsl.delivery.process._stores import open_store
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.delivery.summaries import _change_notes
from trackdsl.journal import _target
from trackdsl.store_format.changes.stored import key_of
from trackdsl.store_format.root_runs import left, left_in

CHANGED, PREVIOUS, NOTE = "trackdsl.changed", "trackdsl.previous", "mlflow.note.content"


@pytest.fixture(autouse=True)
def on(monkeypatch: pytest.MonkeyPatch, sqlite_store: str) -> None:
    """Changes are noted, in a database."""
    monkeypatch.setenv("TRACKDSL_CHANGES", "1")
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", sqlite_store)


@stage
def train(lr: float) -> None:
    log_metric("accuracy", 1 - lr)


@experiment("churn")
def pipeline(lr: float = 0.1) -> None:
    train(lr)
    log_metric("accuracy", 1 - lr)


@experiment("churn")
def other(lr: float) -> None: ...


@experiment("churn", run_name="fit-{model}")
def templated(model: str) -> None: ...


def delivered(uri: str, call: Callable[[], Any]) -> Any:
    """Record a root run, deliver it, and return what MLflow has of it."""
    call()
    made = trackdsl.last()
    assert made is not None
    id_ = made.id
    deliver()
    return client(uri).get_run(id_)


def kept(run: Any) -> Any:
    """The file with what changed."""
    return json.loads(Path(run.info.artifact_uri, "trackdsl/changes.json").read_text())


def test_a_root_run_knows_the_last_one_like_it(sqlite_store: str) -> None:
    """The first run says so; the second what changed, where the runs part, and what came of it, with links."""
    first = delivered(sqlite_store, lambda: pipeline(0.1))
    assert first.data.tags[CHANGED] == "first run"
    assert PREVIOUS not in first.data.tags
    assert "**First run** of pipeline" in first.data.tags[NOTE]
    second = delivered(sqlite_store, lambda: pipeline(0.2))
    assert second.data.tags[CHANGED] == "lr 0.1 → 0.2"
    assert second.data.tags[PREVIOUS] == first.info.run_id
    note = second.data.tags[NOTE]
    for part in (
        f"runs/{first.info.run_id})",
        "| accuracy | 0.9 | 0.8 | -0.1 |",
        "part at **train**: lr.",
        "[train](",
    ):
        assert part in note
    found = kept(second)
    assert found["changes"]["parts_at"] == "train"
    assert set(found["kept_in"].values()) == {first.info.run_id}, "the same source is not kept twice"
    assert not Path(second.info.artifact_uri, "trackdsl/source.json").exists()
    source = json.loads(Path(first.info.artifact_uri, "trackdsl/source.json").read_text())
    name = f"{train.__module__}.train"
    assert source[next(iter(found["code"].values()))[name]].endswith('log_metric("accuracy", 1 - lr)\n')
    below = [
        run for run in client(sqlite_store).search_runs([first.info.experiment_id]) if run.info.run_name == "train"
    ]
    assert all(CHANGED not in run.data.tags and NOTE not in run.data.tags for run in below)
    third = delivered(sqlite_store, lambda: pipeline(0.2))
    assert third.data.tags[CHANGED] == "nothing"


def test_which_run_is_the_last_one_like_it(sqlite_store: str) -> None:
    """Others, superseded and running runs are passed over; failed ones, and those of another name, count."""
    first = delivered(sqlite_store, lambda: templated("a"))
    superseded = delivered(sqlite_store, lambda: templated("a"))
    client(sqlite_store).set_tag(superseded.info.run_id, "trackdsl.superseded_by", "0" * 32)
    running = delivered(sqlite_store, lambda: templated("a"))
    client(sqlite_store).update_run(running.info.run_id, status="RUNNING")
    delivered(sqlite_store, lambda: other(1))
    with_other_name = delivered(sqlite_store, lambda: templated("b"))
    assert with_other_name.data.tags[PREVIOUS] == first.info.run_id

    @experiment("another")
    def elsewhere() -> None:
        raise ValueError("always")

    def fails() -> None:
        with pytest.raises(ValueError, match="always"):
            elsewhere()

    failed = delivered(sqlite_store, fails)
    assert failed.data.tags[CHANGED] == "first run"
    assert delivered(sqlite_store, fails).data.tags[PREVIOUS] == failed.info.run_id


def test_a_note_of_the_user_is_kept(sqlite_store: str) -> None:
    """A description that the program gives, or somebody wrote into the UI, stays; the tags are there all the same."""

    @experiment("churn", description="mine")
    def described() -> None: ...

    run = delivered(sqlite_store, described)
    assert (run.data.tags[NOTE], run.data.tags[CHANGED]) == ("mine", "first run")


def test_a_run_that_is_resumed_gets_a_new_description_unless_it_was_edited(sqlite_store: str) -> None:
    """Ours is replaced when a run ends again; one that somebody has edited is theirs from then on."""
    run = delivered(sqlite_store, lambda: pipeline(0.1))
    ours = run.data.tags[NOTE]

    def resume() -> None:
        with experiment("churn", run_id=run.info.run_id):
            log_metric("accuracy", 0.5)

    resume()
    deliver()
    again = client(sqlite_store).get_run(run.info.run_id).data.tags[NOTE]
    assert (ours == again, "| accuracy | 0.5 |" in again) == (False, True)
    client(sqlite_store).set_tag(run.info.run_id, NOTE, again + "edited")
    resume()
    deliver()
    assert client(sqlite_store).get_run(run.info.run_id).data.tags[NOTE] == again + "edited"


def test_a_run_that_is_no_root_run(sqlite_store: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its root run's changes are shown, and a message says that it is none and names that one, also of equal names."""

    def nested() -> None:
        with experiment("churn", run_name="pipeline"):
            pipeline(0.1)

    root = delivered(sqlite_store, nested)
    caplog.clear()
    assert trackdsl.changes(root.info.run_id).run_id == root.info.run_id
    assert not caplog.messages
    assert trackdsl.changes("pipeline").run_id == root.info.run_id
    assert any(
        f"is not a root run. What changed is kept with its root run, 'pipeline' {root.info.run_id}" in text
        for text in caplog.messages
    )


def test_nothing_is_noted_if_the_setting_is_off(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no source, no list of packages and no patch leaves the machine."""
    monkeypatch.setenv("TRACKDSL_CHANGES", "0")
    run = delivered(sqlite_store, pipeline)
    assert CHANGED not in run.data.tags
    assert not Path(run.info.artifact_uri, "trackdsl").exists()


def test_a_tree_that_is_too_large_is_compared_in_part(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run says so, and not that nothing changed."""
    monkeypatch.setattr(_change_notes, "MOST_STAGES", 2)
    delivered(sqlite_store, lambda: pipeline(0.1))
    run = delivered(sqlite_store, lambda: pipeline(0.1))
    assert run.data.tags[CHANGED] == "nothing, as far as is known"
    assert kept(run)["unknown"][-1] == "of a tree of this size, only the first 2 runs are compared"
    assert "as far as is known" in str(trackdsl.changes(run.info.run_id))


def test_source_of_a_run_that_was_deleted_is_kept_again(sqlite_store: str) -> None:
    """If the run is deleted that keeps the source, the next run keeps it itself."""
    first, second = (delivered(sqlite_store, lambda: pipeline(0.1)) for _ in range(2))
    assert set(kept(second)["kept_in"].values()) == {first.info.run_id}
    client(sqlite_store).delete_run(first.info.run_id)
    third = delivered(sqlite_store, lambda: pipeline(0.1))
    assert third.data.tags[PREVIOUS] == second.info.run_id
    assert set(kept(third)["kept_in"].values()) == {third.info.run_id}


@pytest.mark.slow
@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("fault", [Unavailable, Crash])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_fault_at_each_call(
    fault: type[BaseException], done: bool, sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever call to the store fails, or is the last of a delivery process, what changed is noted once and whole."""
    first = delivered(sqlite_store, lambda: pipeline(0.1))
    calls, number = 1, 0
    while number <= calls:
        spool = tmp_path / f"spool-{number}"
        monkeypatch.setenv("TRACKDSL_SPOOL", str(spool))
        _target.close_all()
        pipeline(0.2)
        made = trackdsl.last()
        assert made is not None
        _target.close_all()
        faults = Faults({number: (fault, done)})
        deliver_with_faults(spool, sqlite_store, faults)
        calls = faults.calls
        run = client(sqlite_store).get_run(made.id)
        assert run.data.tags[CHANGED] in ("lr 0.1 → 0.2", "nothing")
        found = kept(run)
        assert run.data.tags[PREVIOUS] == found["previous"]["run_id"]
        assert found["summary"] == run.data.tags[CHANGED]
        assert key_of(run.data.tags[NOTE]) in found["notes"]
        assert not left(spool)
        assert set(found["kept_in"].values()) == {first.info.run_id}
        number += 1
    assert calls > 15


PROGRAM = """
import sys
import features
from trackdsl import stage, experiment, log_metric

@stage
def load(path):
    return [1, 2]

@stage
def train(rows, lr):
    log_metric("loss", features.scale(lr))

@experiment("churn")
def main(lr):
    train(load("a.csv"), lr)

main(float(sys.argv[1]))
"""


class Project:
    """A small project under git, whose program runs in processes of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages = folder / "packages" / "site-packages"
        self.packages.mkdir(parents=True)
        self.package("acme", "1.0")
        self.write("program.py", PROGRAM)
        self.write(
            "features.py", "TOKEN = 'ghp_abcdefghijklmnopqrstuvwxyz0123456789'\ndef scale(x):\n    return 2 * x\n"
        )
        self.git("init", "-q")
        self.git("add", "program.py", "features.py")
        self.git("-c", "user.email=a@example.com", "-c", "user.name=a", "commit", "-qm", "first")

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.folder, check=True)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def package(self, name: str, version: str) -> None:
        for old in self.packages.glob(f"{name}-*"):
            old.rmdir()
        (self.packages / f"{name}-{version}.dist-info").mkdir()

    def run(self, uri: str, lr: str = "0.1") -> Any:
        """Run the program, deliver its runs, and return the root run."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path[:1], str(self.packages)])}
        subprocess.run([sys.executable, "program.py", lr], cwd=self.folder, check=True, env=environment)
        deliver()
        experiments = [one.experiment_id for one in client(uri).search_experiments(filter_string="name = 'churn'")]
        found = client(uri).search_runs(experiments, "run_name = 'main'", order_by=["start_time DESC"], max_results=1)
        return found[0]


@pytest.mark.slow
def test_programs_whose_parts_change(sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter, a called function, a package, what is not committed, a commit: each is reported, with a diff."""
    import trackdsl as package

    monkeypatch.syspath_prepend(str(Path(package.__file__).parent.parent))
    project = Project(tmp_path / "project")
    first = project.run(sqlite_store)
    assert first.data.tags[CHANGED] == "first run"
    assert project.run(sqlite_store).data.tags[CHANGED] == "nothing"
    assert project.run(sqlite_store, "0.2").data.tags[CHANGED] == "lr 0.1 → 0.2"

    project.write("features.py", (project.folder / "features.py").read_text().replace("2 * x", "3 * x"))
    edited = project.run(sqlite_store, "0.2")
    assert edited.data.tags[CHANGED] == "source of features.scale; uncommitted changes"
    found = kept(edited)
    assert found["diffs"]["features.scale"].splitlines()[-2:] == ["-    return 2 * x", "+    return 3 * x"]
    assert "+    return 3 * x" in found["diffs"]["uncommitted changes"]
    assert found["changes"]["parts_at"] == "train"
    assert "ghp_" not in "".join(
        path.read_text() for path in Path(first.info.artifact_uri).parent.parent.glob("*/artifacts/trackdsl/*.json")
    )

    project.git("-c", "user.email=a@example.com", "-c", "user.name=a", "commit", "-qam", "second")
    project.package("acme", "2.0")
    changed = project.run(sqlite_store, "0.2").data.tags[CHANGED].split("; ")
    assert changed[0] == "acme 1.0 → 2.0"
    assert changed[1].startswith("commit ")
    assert changed[2] == "no uncommitted changes any more"

    text = run_command("changes", "main", COLUMNS="80").stdout
    assert "acme 1.0 → 2.0" in text
    answer = json.loads(run_command("changes", "main", "--since", first.info.run_id, "--json").stdout)
    assert answer["summary"].startswith("lr 0.1 → 0.2; source of features.scale; acme 1.0 → 2.0; commit ")
    assert answer["diffs"]["features.scale"].splitlines()[-1] == "+    return 3 * x"
    assert trackdsl.changes(first.info.run_id).summary == "first run"


SCRIPT = """
from trackdsl import experiment, log_metric, stage
import features

def main():
    with experiment("churn", run_name="script"):
        with stage("score"):
            log_metric("score", features.scale(2))

main()
"""


@pytest.mark.parametrize(
    "command", [[sys.executable], [sys.executable, "-m", "trackdsl.cli", "run"]], ids=["python", "run"]
)
def test_a_program_without_decorated_functions(
    command: list[str], sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file counts as the source of its root run, with what it calls."""
    import trackdsl as package

    monkeypatch.setenv("PYTHONPATH", str(Path(package.__file__).parent.parent))

    def tag_after(**files: str) -> str:
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        before = {run.info.run_id for run in all_runs(sqlite_store)}
        subprocess.run([*command, "script.py"], cwd=tmp_path, check=True)
        deliver()
        fresh = [run for run in all_runs(sqlite_store) if run.info.run_id not in before]
        (tag,) = (run.data.tags[CHANGED] for run in fresh if CHANGED in run.data.tags)
        return str(tag)

    assert tag_after(script=SCRIPT, features="def scale(x): return 2 * x\n") == "first run"
    assert tag_after() == "nothing"
    assert tag_after(features="def scale(x): return 3 * x\n") == "source of features.scale"
    assert tag_after(script=SCRIPT.replace("scale(2)", "scale(4)")) == "source of __main__.main"
    assert tag_after(script=f"{SCRIPT}print(1)\n") == "source of script.py, __main__.main"


@pytest.mark.slow
def test_delivery_processes_that_are_killed(sqlite_store: str, start: Any, tmp_path: Path) -> None:
    """Two delivery processes are killed while a program runs, and the program too: the run is known, reported once."""
    first = delivered(sqlite_store, lambda: pipeline(0.1))
    spool = tmp_path / "spool"
    program = start(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.integration.test_what_changed import pipeline, stage
        with stage("waits"):
            print("running")
            input()
            with stage("inside"):
                print("again")
            input()
        """,
        TRACKDSL_MODE="online",
    )
    for said in ("running", "again"):
        assert program.say() == said
        wait_until(lambda: left_in(spool), "the run to be noted")
        for pid in delivery_pids(spool):
            os.kill(pid, signal.SIGKILL)
        program.resume() if said == "running" else program.kill()
    sync()
    (run,) = (one for one in all_runs(sqlite_store) if one.info.run_name == "waits")
    assert (run.info.status, run.data.tags[CHANGED]) == ("KILLED", "first run")
    assert not left(spool)
    assert first.data.tags[CHANGED] == client(sqlite_store).get_run(first.info.run_id).data.tags[CHANGED]


@pytest.mark.usefixtures("no_pauses")
def test_sync_after_delivery_was_killed_when_all_was_delivered(
    sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits in the spool but what changed: `trackdsl status` says so, and `trackdsl sync` notes it."""
    spool = tmp_path / "spool"
    pipeline(0.1)
    _target.close_all()
    worker = Worker(spool, lambda uri, cwd: open_store(uri, cwd, own=True))
    monkeypatch.setattr(worker, "awaited", lambda: True)  # So that the records are delivered, and no more.
    wait_until(lambda: not worker.round() and not [*(spool / "journals").iterdir()], "the records to be delivered")
    worker.close()
    assert left(spool) == 1
    assert "What changed in 1 run is not written yet" in run_command("status").stdout
    assert json.loads(run_command("status", "--json").stdout)["unmade"] == 1
    result = sync()
    assert (result.returncode, result.stderr) == (0, "")
    assert "What changed in 1 run is written now" in result.stdout
    (run,) = (one for one in all_runs(sqlite_store) if one.info.run_name == "pipeline")
    assert run.data.tags[CHANGED] == "first run"
    assert "Nothing is waiting" in sync().stdout


def test_source_that_is_edited_while_the_program_runs(
    sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivery reads the source a moment after a run began: what is edited later counts for the next run only."""
    path = tmp_path / "edited_later.py"
    path.write_text("def used():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    worker = Worker(tmp_path / "spool", lambda uri, cwd: open_store(uri, cwd, own=True))

    @experiment("churn")
    def edits() -> None:
        import edited_later

        assert edited_later.used() in (1, 2)
        wait_until(lambda: not worker.round(), "delivery to be at rest")
        path.write_text("def used():\n    return 2\n")

    edits()
    made = trackdsl.last()
    assert made is not None
    _target.close_all()
    wait_until(lambda: not worker.round() and worker.idle(), "everything to be delivered")
    worker.close()
    run = client(sqlite_store).get_run(made.id)
    assert "def used():\n    return 1\n" in _sources(run)
    assert kept(run)["unknown"] == []


def test_source_that_was_edited_before_it_was_read_is_unknown(
    sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, source is read long after the run: what was edited since the program began is not taken for what ran."""
    path = tmp_path / "edited_before.py"
    path.write_text("def used():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    @experiment("churn")
    def edits() -> None:
        import edited_before

        edited_before.used()
        path.write_text("def used():\n    return 2\n")

    run = delivered(sqlite_store, edits)
    assert not any(text.startswith("def used()") for text in _sources(run))
    assert kept(run)["unknown"] == [
        "edited after the program began, so the source that ran is unknown: edited_before.py"
    ]
    assert "the source that ran is unknown" in run.data.tags[NOTE]


def _sources(run: Any) -> list[str]:
    return list(json.loads(Path(run.info.artifact_uri, "trackdsl/source.json").read_text()).values())
