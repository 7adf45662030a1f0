"""What MLflow holds after delivery, on a real SQLite store and a real server."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trackdsl
from tests.conftest import (
    Server,
    StartProgram,
    all_runs,
    client,
    deliver,
    end_delivery,
    points,
    sync,
    wait_until,
)
from trackdsl import experiment, log_metric, stage, steps, track_returns
from trackdsl.delivery.batches._compose import Pending, split
from trackdsl.delivery.batches._timestamp_dedup import TimestampDedup
from trackdsl.delivery.store._sink import Batch
from trackdsl.store_format import limits as _limits
from trackdsl.store_format.call_tag import call_of
from trackdsl.store_format.progress import Progress, ProgressFile


def mine(uri: str, root: str) -> dict[str, Any]:
    """The runs below a root, by path; a server is shared between tests."""
    return {
        run.data.tags["trackdsl.path"]: run
        for run in all_runs(uri)
        if run.data.tags.get("trackdsl.path", "").split("/")[0] == root
    }


def test_a_pipeline_becomes_a_tree(store: str) -> None:
    """Parents, parameters, metric histories, tags, artifacts and statuses are what the program did."""
    trackdsl.configure(tracking_uri=store)

    @stage
    @track_returns
    def train(lr: float, config: dict[str, Any]) -> dict[str, float]:
        """Train."""
        for epoch in steps(range(3)):
            log_metric("loss", 1 / (epoch + 1))
        return {"accuracy": 0.5}

    @experiment(f"tree-{os.getpid()}", run_name="tree", description="what it is", tags={"team": "a"})
    def pipeline() -> None:
        with stage("split", seed=42) as run:
            run.log_text("hello", "notes/hello.txt")
        train(0.1, {"opt": {"name": "adam"}})

    with pytest.raises(ZeroDivisionError):
        pipeline()
        with stage("tree"), stage("broken"):
            1 / 0
    deliver()
    root, split_, train_ = (
        run for path, run in mine(store, "tree").items() if path in ("tree", "tree/split", "tree/train")
    )
    kind = client(store).get_experiment_by_name(f"tree-{os.getpid()}").tags["mlflow.experimentKind"]
    assert kind == "custom_model_development"  # This tag makes MLflow's UI open on model training.
    found = mine(store, "tree")
    assert set(found) == {"tree", "tree/split", "tree/train", "tree/broken"}
    train_ = found["tree/train"]
    split_ = found["tree/split"]
    broken = found["tree/broken"]
    first_root = next(run for run in all_runs(store) if run.info.run_id == train_.data.tags["mlflow.parentRunId"])
    assert first_root.info.run_name == "tree"
    assert first_root.data.tags["mlflow.note.content"] == "what it is"
    assert first_root.data.tags["team"] == "a"
    assert train_.data.params == {"lr": "0.1", "config.opt.name": "adam"}
    assert points(train_, "loss", store) == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert train_.data.metrics["accuracy"] == 0.5
    assert split_.data.params == {"seed": "42"}
    assert [item.path for item in client(store).list_artifacts(split_.info.run_id, "notes")] == ["notes/hello.txt"]
    tags = train_.data.tags
    call = call_of(tags)
    assert call["function"].endswith("train")
    assert (call["pid"], call["index"], len(call["source_hash"])) == (os.getpid(), 0, 16)
    assert {tags["mlflow.user"], tags["mlflow.source.type"]} >= {"LOCAL"}
    assert train_.info.status == "FINISHED"
    assert train_.info.end_time >= train_.info.start_time
    assert (broken.info.status, broken.data.tags["trackdsl.exception.type"]) == ("FAILED", "ZeroDivisionError")
    assert "1 / 0" in broken.data.tags["trackdsl.exception.traceback"]
    assert root.info.experiment_id


def test_limits_of_mlflow_lose_nothing(store: str) -> None:
    """Long values, refused names, repeated parameters, thousands of items: exact, or reported on the run."""
    trackdsl.configure(tracking_uri=store)
    keys = ["a[0]", "a=1", "*args", "a//b", "a/", "/a", "", "a\n", "../up", ".", "ü é", "x" * 400, "x" * 399 + "y"]
    with stage("limits") as run:
        run.log_params({key: number for number, key in enumerate(keys)})
        run.log_metrics({key: float(number) for number, key in enumerate(keys)})
        run.log_params({f"p{n}": n for n in range(350)})
        run.set_tags({f"t{n}": n for n in range(250)})
        for n in range(2500):
            run.log_metric("many", n, step=n)
        run.log_param("long", "ab" * 5000)
        run.set_tag("long", "cd" * 5000)
        run.log_param("twice", 1)
        run.log_param("twice", 1)
        run.log_param("twice", 2)
        run.log_metrics({"nan": math.nan, "inf": math.inf, "-inf": -math.inf})
    deliver()
    found = mine(store, "limits")["limits"]
    data = found.data
    by_key = {_limits.unescape_key(key): value for key, value in data.params.items()}
    for number, key in enumerate(keys):
        if len(key) < 250:
            assert by_key[key] == str(number), key
    cut = {key: value for key, value in data.params.items() if key.startswith("xxx")}
    assert {keys[int(value)] for value in cut.values()} == {"x" * 400, "x" * 399 + "y"}
    # A key that is cut is kept whole in a tag, whose own key had to be cut too.
    assert {value for key, value in data.tags.items() if key.startswith("trackdsl.renamed.xxx")} >= {"x" * 400}
    assert sum(1 for n in range(350) if data.params[f"p{n}"] == str(n)) == 350
    assert sum(1 for n in range(250) if data.tags[f"t{n}"] == str(n)) == 250
    assert points(found, "many", store) == [(n, float(n)) for n in range(2500)]
    assert data.params["long"].endswith("[10000 characters]")
    assert _text(store, found, "trackdsl/params/long.txt") == "ab" * 5000
    assert _text(store, found, "trackdsl/tags/long.txt") == "cd" * 5000
    assert "trackdsl/params/long.txt" in str(data.tags)
    assert (data.params["twice"], data.tags["trackdsl.param.later.twice"]) == ("1", "2")
    assert math.isnan(data.metrics["nan"])
    assert data.metrics["inf"] > 1e308 > -1e308 > data.metrics["-inf"]
    assert not any("refused" in tag for tag in data.tags)


def _text(uri: str, run: Any, path: str) -> str:
    return Path(client(uri).download_artifacts(run.info.run_id, path)).read_text()


def test_equal_points_in_one_millisecond_are_all_kept(store: str) -> None:
    """A thousand equal points, logged faster than MLflow's clock ticks, are a thousand points."""
    trackdsl.configure(tracking_uri=store)
    with stage("equal") as run:
        for _ in range(1000):
            run.log_metric("same", 1.0)
            run.log_metric("nan", math.nan)
    deliver()
    found = mine(store, "equal")["equal"]
    assert len(points(found, "same", store)) == 1000
    assert len(points(found, "nan", store)) == 1000


def test_artifacts_arrive(store: str, tmp_path: Path) -> None:
    """Files, renamed files, folders and texts are at their paths, with their bytes."""
    trackdsl.configure(tracking_uri=store)
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "deep" / "a.bin").write_bytes(bytes(range(256)) * 1000)
    with stage("files") as run:
        run.log_artifact(tmp_path / "out" / "deep" / "a.bin", "checkpoints/epoch_0.pth")
        run.log_artifacts(tmp_path / "out", "outputs")
        run.log_artifact(tmp_path / "out")
        run.log_dict({"k": "v"}, "config.json")
        run.log_artifact(tmp_path / "out" / "deep" / "a.bin", "checkpoints/epoch_0.pth")
    deliver()
    found = mine(store, "files")["files"]
    folder = Path(client(store).download_artifacts(found.info.run_id, ""))
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"checkpoints/epoch_0.pth", "outputs/deep/a.bin", "out/deep/a.bin", "config.json"}
    assert (folder / "out/deep/a.bin").read_bytes() == bytes(range(256)) * 1000


def test_inside_a_run_of_plain_mlflow(sqlite_store: str) -> None:
    """A stage inside the user's own `mlflow.start_run` is that run's child; a section writes on it; it is not ended."""
    import mlflow

    mlflow.set_tracking_uri(sqlite_store)
    try:
        with mlflow.start_run(run_name="theirs") as theirs:
            with stage("ours"):
                log_metric("inside", 1)
            with stage("section", nested=False, a=1):
                log_metric("on theirs", 2)
            trackdsl.log_param("p", 3)
            deliver()
            assert client(sqlite_store).get_run(theirs.info.run_id).info.status == "RUNNING"
    finally:
        mlflow.set_tracking_uri(None)
    outer = client(sqlite_store).get_run(theirs.info.run_id)
    (ours,) = [run for run in all_runs(sqlite_store) if run.info.run_name == "ours"]
    assert ours.data.tags["mlflow.parentRunId"] == theirs.info.run_id
    assert ours.info.experiment_id == theirs.info.experiment_id
    assert outer.data.params == {"section.a": "1", "p": "3"}
    assert outer.data.metrics["on theirs"] == 2
    assert outer.info.status == "FINISHED"


@pytest.mark.slow
def test_the_default_store_is_where_mlflow_puts_it(start: StartProgram, tmp_path: Path) -> None:
    """With nothing set, runs are in ./mlflow.db, and artifacts below ./mlruns/<experiment>/<run>/artifacts."""
    program = start(
        """
        import trackdsl
        with trackdsl.experiment("churn") as run:
            run.log_text("hello", "a.txt")
            print(run.run_id)
            print(run.url)
            print(trackdsl.flush(60))
        """,
        TRACKDSL_MODE="online",
    )
    code, out, err = program.finish()
    assert code == 0, err
    run_id, url, flushed = out.split()
    assert flushed == "True"
    (run,) = all_runs()
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert url.endswith(f"/#/experiments/{run.info.experiment_id}/runs/{run_id}")
    expected = Path.cwd() / "mlruns" / run.info.experiment_id / run_id / "artifacts"
    assert run.info.artifact_uri.removeprefix("file://") == str(expected)
    assert (expected / "a.txt").read_text() == "hello"


@pytest.mark.slow
def test_the_delivery_process_goes_away(start: StartProgram, tmp_path: Path, sqlite_store: str) -> None:
    """A moment after the last program has ended, no delivery process and no journal is left."""
    from tests.conftest import delivery_pids

    code, _, err = start("import trackdsl\nwith trackdsl.stage('s'): pass", TRACKDSL_MODE="online").finish()
    assert code == 0, err
    assert len(all_runs(sqlite_store)) == 1
    wait_until(lambda: not delivery_pids(tmp_path / "spool"), "the delivery process to end")
    assert not list((tmp_path / "spool" / "journals").iterdir())


@pytest.mark.slow
def test_many_programs_have_one_delivery_process(start: StartProgram, tmp_path: Path, sqlite_store: str) -> None:
    """Five programs at once share one delivery process, and every run arrives."""
    from trackdsl.store_format.heartbeat import DELIVERING, IDLE, read_heartbeat

    source = """
        import trackdsl
        with trackdsl.experiment("shared"):
            for n in range(20):
                with trackdsl.stage("s", n=n):
                    pass
    """
    programs = [start(source, TRACKDSL_MODE="online") for _ in range(5)]
    delivered = set()

    def finished() -> bool:
        beat = read_heartbeat(tmp_path / "spool")
        if beat is not None and beat.activity in (DELIVERING, IDLE):  # Others find the lock held, and go.
            delivered.add(beat.pid)
        return all(program.process.poll() is not None for program in programs)

    wait_until(finished, "the programs to end")
    for program in programs:
        code, _, err = program.finish()
        assert code == 0, err
    runs = all_runs(sqlite_store)
    assert len(runs) == 5 * 21
    assert len({run.data.tags["trackdsl.id"] for run in runs}) == len(runs)
    assert len(delivered) == 1
    log = (tmp_path / "spool" / "delivery.log").read_text()
    assert "WARNING" not in log, log


@pytest.mark.slow
def test_the_worker_runs_inside_the_program_too(start: StartProgram, tmp_path: Path, sqlite_store: str) -> None:
    """With `delivery="thread"` no process is started, and everything arrives before the program ends."""
    from tests.conftest import delivery_pids

    program = start(
        """
        import trackdsl
        trackdsl.configure(delivery="thread")
        with trackdsl.experiment("e"):
            for n in range(50):
                with trackdsl.stage("s", n=n) as run:
                    run.log_text("x", "x.txt")
        """,
        TRACKDSL_MODE="online",
    )
    code, _, err = program.finish()
    assert code == 0, err
    assert not delivery_pids(tmp_path / "spool")
    runs = all_runs(sqlite_store)
    assert len(runs) == 51
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.slow
def test_the_state_of_git_is_recorded(start: StartProgram, tmp_path: Path, sqlite_store: str) -> None:
    """Commit, branch, remote without credentials, and whether the tree is dirty come from the program's repository."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    (tmp_path / "program_0.py").write_text("")
    (tmp_path / ".gitignore").write_text("spool\nwork\n")
    for arguments in (
        ["init", "-q", "-b", "trunk"],
        ["remote", "add", "origin", "https://me:hunter2@example.com/x.git"],
        ["add", "program_0.py"],
        ["commit", "-q", "-m", "x"],
    ):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    start("import trackdsl\nwith trackdsl.stage('s'): pass").finish()
    assert sync().returncode == 0
    (run,) = all_runs(sqlite_store)
    tags = run.data.tags
    assert tags["mlflow.source.git.commit"] == commit
    assert tags["mlflow.source.git.branch"] == "trunk"
    assert tags["mlflow.source.git.repoURL"] == "https://example.com/x.git"
    assert call_of(tags)["git_dirty"] is True


def test_a_server_program_with_its_artifacts(start: StartProgram, shared_server: Server) -> None:
    """A whole program against a real server: exit waits until everything is there."""
    program = start(
        """
        import os, trackdsl
        @trackdsl.experiment(f"program-{os.getpid()}")
        def main():
            with trackdsl.stage("s", n=1) as run:
                run.log_metric("m", 2)
                run.log_text("t", "t.txt")
        main()
        """,
        TRACKDSL_MODE="online",
        TRACKDSL_TRACKING_URI=shared_server.uri,
    )
    code, _, err = program.finish()
    assert code == 0, err
    experiment_ = client(shared_server.uri).get_experiment_by_name(f"program-{program.pid}")
    runs = {run.info.run_name: run for run in client(shared_server.uri).search_runs([experiment_.experiment_id])}
    assert runs["s"].data.metrics == {"m": 2.0}
    assert runs["s"].data.tags["mlflow.parentRunId"] == runs["main"].info.run_id
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert _text(shared_server.uri, runs["s"], "t.txt") == "t"


#: Programs that use no public name of the package itself, as arguments of Python.
WITHOUT_PUBLIC_NAMES = {
    "a session": [
        "-c",
        "from trackdsl.session import start_logging; start_logging('churn', config={'run_name': 'it'})",
    ],
    "trackdsl run": ["-m", "trackdsl.cli", "run", "--name", "it", "-m", "this"],
    "a decorator's module": ["-c", "from trackdsl._decorate.decorators import stage\nwith stage('it'): pass"],
    "cells": [
        "-c",
        "from IPython.core.interactiveshell import InteractiveShell; shell = InteractiveShell(); "
        "shell.run_line_magic('load_ext', 'trackdsl'); shell.run_line_magic('experiment', 'churn'); "
        "shell.run_cell_magic('stage', 'it', 'x = 1')",
    ],
}


@pytest.mark.parametrize("program", WITHOUT_PUBLIC_NAMES)
def test_each_way_to_begin_a_run_starts_delivery(program: str, tmp_path: Path, sqlite_store: str) -> None:
    """Whichever module of the package a program imports first, its end leaves nothing to `trackdsl sync`."""
    command = [sys.executable, *WITHOUT_PUBLIC_NAMES[program]]
    try:
        done = subprocess.run(
            command, env={**os.environ, "TRACKDSL_MODE": "online"}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        wait_until(
            lambda: "it" in {run.info.run_name for run in all_runs(sqlite_store) if run.info.status == "FINISHED"},
            "the run to be delivered",
        )
    finally:
        end_delivery(tmp_path / "spool")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the fault of the garbage collector is one of Python 3.11")
@pytest.mark.parametrize("program", [name for name, (option, *_) in WITHOUT_PUBLIC_NAMES.items() if option == "-c"])
def test_each_way_to_begin_a_run_keeps_contexts_from_the_collector(program: str) -> None:
    """The callback of the garbage collector is there once a run has begun, whichever module is imported first."""
    _, code = WITHOUT_PUBLIC_NAMES[program]
    code += "\nimport gc\nprint([call.__module__ for call in gc.callbacks if hasattr(call, '__module__')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "trackdsl._core.gc_workaround" in done.stdout


def test_paths_that_a_server_can_never_store(start: StartProgram, shared_server: Server, tmp_path: Path) -> None:
    """A file below a file, and a file in the path of a folder, are refused once, and everything else arrives."""
    program = start(
        """
        import os, pathlib, trackdsl
        pathlib.Path("folder").mkdir()
        pathlib.Path("folder/b").write_text("in a folder")
        with trackdsl.experiment(f"paths-{os.getpid()}"):
            trackdsl.log_text("first", "a")
            trackdsl.log_text("below a file", "a/b")
            trackdsl.log_artifact("folder", "a")
            trackdsl.log_text("first", "c/d")
            trackdsl.log_text("instead of a folder", "c")
            trackdsl.log_text("last", "e/f")
        """,
        TRACKDSL_MODE="online",
        TRACKDSL_TRACKING_URI=shared_server.uri,
    )
    code, _, errors = program.finish()
    assert code == 0, errors
    assert "3 items were refused by MLflow" in errors, (tmp_path / "spool/delivery.log").read_text()
    assert sync().returncode == 0  # Nothing waits.
    (run,) = [run for run in all_runs(shared_server.uri) if run.info.run_name == f"paths-{program.pid}"]
    below = "MLflow refused it: 'a' is a file, so nothing can be stored below it"
    assert {key: tag for key, tag in run.data.tags.items() if key.startswith("trackdsl.omitted.")} == {
        "trackdsl.omitted.a/b": below,
        "trackdsl.omitted.a/folder/b": below,
        "trackdsl.omitted.c": "MLflow refused it: 'c' is a folder, so no file can be stored there",
    }
    for path, text in (("a", "first"), ("c/d", "first"), ("e/f", "last")):
        assert _text(shared_server.uri, run, path) == text


@given(key=st.text(max_size=300))
def test_keys_are_rewritten_reversibly(key: str) -> None:
    """MLflow accepts every rewritten key, and the original can be read back from it."""
    import posixpath
    import re

    escaped = _limits.escape_key(key)
    assert _limits.unescape_key(escaped) == key
    assert re.fullmatch(r"[/\w.\- :]+", escaped)
    assert posixpath.normpath(escaped) == escaped
    assert not escaped.startswith(("/", ".."))
    assert escaped != "."
    assert len(_limits.fit_key(key)) <= 250
    assert posixpath.normpath(_limits.fit_key(key)) == _limits.fit_key(key)


@given(keys=st.lists(st.text(alphabet="_x0145F[]/.a ", max_size=12), unique=True))
def test_rewritten_keys_never_collide(keys: list[str]) -> None:
    """Two keys that differ are two keys at MLflow too."""
    assert len({_limits.fit_key(key) for key in keys}) == len(keys)


@given(
    params=st.dictionaries(st.text("abc", min_size=1), st.text(max_size=5), max_size=250),
    tags=st.integers(0, 350),
    metrics=st.integers(0, 3500),
)
def test_batches_keep_to_the_limits_and_lose_nothing(params: dict[str, str], tags: int, metrics: int) -> None:
    """Split for requests, every item is in one part, in order, and each part is one that MLflow takes."""
    batch = Batch(params, {f"t{n}": "x" for n in range(tags)}, [("m", 0.0, n, n) for n in range(metrics)])
    parts = list(split(batch))
    assert all(len(p.params) <= 100 and len(p.tags) <= 100 and len(p.metrics) <= 1000 for p in parts)
    assert all(0 < len(p.params) + len(p.tags) + len(p.metrics) <= 1000 for p in parts)
    assert [point for part in parts for point in part.metrics] == batch.metrics
    assert {key: value for part in parts for key, value in part.params.items()} == params
    assert sum(len(part.tags) for part in parts) == tags


@given(
    events=st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 1), st.integers(0, 5), st.integers(0, 3)), max_size=60
    ),
    cut=st.integers(0, 60),
    taken=st.frozensets(st.integers(0, 60)),
)
def test_spacing_is_unique_and_the_same_after_a_crash(
    events: list[tuple[str, int, int, int]], cut: int, taken: frozenset[int]
) -> None:
    """Every point has a millisecond of its own that no other has, also if delivery resumes anywhere.

    Threads write their points in another order than they took the time.
    """
    time = 3
    timed: list[Any] = []
    for key, value, pause, early in events:
        time += pause // 4
        timed.append((b"r", key, 0, float(value), time - early, taken))
    whole = TimestampDedup([])
    expected = [whole.assign(*point) for point in timed]
    assert taken.isdisjoint(expected)
    identities = [(point[1], point[3], placed) for point, placed in zip(timed, expected, strict=True)]
    assert len(set(identities)) == len(identities)
    first = TimestampDedup([])
    for point in timed[:cut]:
        first.assign(*point)
    resumed = TimestampDedup(first.remembered(), first.now)
    assert [resumed.assign(*point) for point in timed[cut:]] == expected[cut:]


def test_progress_survives_a_torn_write(tmp_path: Path) -> None:
    """With one slot destroyed, the other one is read, which is at most one note older."""
    file = ProgressFile(tmp_path, write=True)
    for offset in range(5):
        progress = file.read()
        progress.offset = offset
        file.write(progress)
    file.close()
    content = bytearray((tmp_path / "progress").read_bytes())
    for slot in (0, 1):
        torn = content.copy()
        torn[slot * len(torn) // 2 + 10] ^= 255
        (tmp_path / "progress").write_bytes(torn)
        found = ProgressFile(tmp_path)
        assert found.read().offset in (3, 4)
        found.close()
    (tmp_path / "progress").write_bytes(bytes(len(content)))
    assert ProgressFile(tmp_path).read() == Progress()


def test_long_texts_name_their_file() -> None:
    """What is cut for MLflow is whole in a file, and a tag names the file."""
    pending = Pending()
    pending.add_param("p", "x" * 7000)
    assert len(pending.batch.params["p"]) == _limits.MAX_PARAM
    assert pending.texts == {"trackdsl/params/p.txt": "x" * 7000}
    assert pending.batch.tags == {
        "trackdsl.truncated.trackdsl/params/p.txt": "7000 characters, whole in trackdsl/params/p.txt"
    }
