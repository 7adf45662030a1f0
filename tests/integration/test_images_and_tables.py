"""Images and growing tables on real stores, and appended to by several processes."""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trackdsl
from tests.conftest import all_runs, client, deliver
from tests.drawn_programs import forked
from tests.memory_store import MemoryStore, deliver_to
from tests.unit.test_images_and_streams import recorded
from tests.unit.test_tables import rows_at
from trackdsl import configure, stage, steps
from trackdsl._core import events
from trackdsl._runs import lifecycle as _lifecycle
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.journal import _target
from trackdsl.journal._spool import journals
from trackdsl.testing import capture_runs


@pytest.fixture
def spool(no_pauses: None, tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_a_series_of_images(store: str) -> None:
    """With a key, the files and the tag are named as by `MlflowClient.log_image`, with the step of the loop around."""
    configure(tracking_uri=store)
    array = np.arange(600, dtype=np.uint8).reshape(10, 20, 3)
    with stage("s") as run:
        for _ in steps(range(2)):
            run.log_image(array, key="val/a: b")
        run.log_image(array, "one/first.png")
        trackdsl.log_image(array, key="plain", step=7, timestamp=1_700_000_000_123, synchronous=True)
    deliver()
    (found,) = (r for r in all_runs(store) if r.data.tags.get("trackdsl.id") == run.id)
    mlflow, run_id = client(store), found.info.run_id
    mlflow.log_image(run_id, array, key="plain", step=8)

    def parts_of(path: str) -> tuple[str, ...]:
        name = path.replace("%", "+")  # MLflow 3.1 joins the parts so, and its UI reads both.
        match = re.fullmatch(r"images/(.+)\+step\+(\d+)\+timestamp\+\d{13}\+[0-9a-z-]{36}(\+compressed)?(\.\w+)", name)
        assert match is not None, path
        return tuple(part or "" for part in match.groups())

    kinds = [("", ".png"), ("+compressed", ".webp")]
    series = [("plain", "7"), ("plain", "8"), ("val~a_x003A_ b", "0"), ("val~a_x003A_ b", "1")]
    files = [file.path for file in mlflow.list_artifacts(run_id, "images")]
    assert sorted(map(parts_of, files)) == sorted((*one, *kind) for one in series for kind in kinds)
    assert len([path for path in files if "plain+step+7+timestamp+1700000000123+" in path]) == 2
    assert found.data.tags["mlflow.loggedImages"] == "True"
    image = pytest.importorskip("PIL.Image")
    (whole,) = (path for path in files if parts_of(path) == ("plain", "7", "", ".png"))
    (small,) = (path for path in files if parts_of(path) == ("plain", "7", "+compressed", ".webp"))
    assert np.array_equal(image.open(mlflow.download_artifacts(run_id, whole)), array)
    assert image.open(mlflow.download_artifacts(run_id, small)).size == (256, 128)
    assert np.array_equal(image.open(mlflow.download_artifacts(run_id, "one/first.png")), array)


def test_inputs() -> None:
    """Data is recorded with its context, under the given name, or its own, or a default name."""
    data = pytest.importorskip("mlflow.data")
    array = np.arange(6.0).reshape(3, 2)
    with capture_runs() as captured, stage("s") as run:
        run.log_input(data.from_numpy(array, name="own"), "training")
        run.log_input(data.from_numpy(array, name="own"), name="other")
        trackdsl.log_input(data.from_numpy(array, name="own"), context="eval")
        run.log_input(object(), name="nothing")
        found = [(event.name, event.context) for event, _ in recorded(captured, events.Input)]
    assert found == [("own", "training"), ("other", None), ("own", "eval")]
    assert "object" in captured.one("s").tags["trackdsl.omitted.nothing"]


@pytest.mark.parametrize("path", ["answers.json", "deep/er/answers.parquet"])
def test_a_table_grows(store: str, path: str) -> None:
    """Rows of several calls, with other columns, are in one table that `mlflow.load_table` reads."""
    mlflow = pytest.importorskip("mlflow")
    configure(tracking_uri=store)
    with stage("s") as run:
        run.log_table({"q": ["a", "b"], "score": [1.5, math.nan]}, path)
        run.log_table([{"q": "c", "new": 7}], path)
        trackdsl.log_table({"x": 1}, "other.json")
    deliver()
    with stage("t") as other:  # A table of the same path in another run is another table.
        other.log_table({"q": "z"}, path)
    deliver()
    (found,) = (r for r in all_runs(store) if r.data.tags.get("trackdsl.id") == run.id)
    client(store)
    frame = mlflow.MlflowClient().load_table(found.info.experiment_id, path, run_ids=[found.info.run_id])
    assert list(frame.columns) == ["q", "score", "new"]
    assert frame["q"].tolist() == ["a", "b", "c"]
    assert frame["score"].isna().tolist() == [False, True, True]
    assert frame["new"].tolist()[2] == 7
    assert json.loads(found.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": path, "type": "table"},
        {"path": "other.json", "type": "table"},
    ]


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_rows_join_those_of_plain_mlflow(store: str, suffix: str) -> None:
    """A table that `mlflow.log_table` began grows, also in a second delivery, and its own tables stay listed."""
    mlflow = pytest.importorskip("mlflow")
    configure(tracking_uri=store)
    mlflow.set_tracking_uri(store)
    with mlflow.start_run() as plain:
        mlflow.log_table({"a": [1], "b": ["x"]}, f"theirs.{suffix}")
        mlflow.log_table({"a": [1]}, f"t.{suffix}")
        trackdsl.log_table({"a": [2, 3]}, f"t.{suffix}")
        deliver()
        _lifecycle._adopted.clear()  # As in another process: the journal that named this run is gone.
        mlflow.log_table({"a": [4]}, f"t.{suffix}")
        trackdsl.log_table({"a": [5]}, f"t.{suffix}")
        deliver()
    run = client(store).get_run(plain.info.run_id)
    frame = client(store).load_table(run.info.experiment_id, f"t.{suffix}", run_ids=[run.info.run_id])
    assert frame["a"].tolist() == [1, 2, 3, 4, 5]
    assert [entry["path"] for entry in json.loads(run.data.tags["mlflow.loggedArtifacts"])] == [
        f"theirs.{suffix}",
        f"t.{suffix}",
    ]


def test_images_in_a_table(sqlite_store: str) -> None:
    """An image in a cell becomes two files and a reference to them, as `mlflow.log_table` writes it."""
    image = pytest.importorskip("PIL.Image").new("RGB", (8, 4))
    with stage("s") as run:
        run.log_table({"n": [1, 2], "image": [image, image]}, "deep/t.json")
    deliver()
    (found,) = all_runs()
    frame = client().load_table(found.info.experiment_id, "deep/t.json", run_ids=[found.info.run_id])
    first, second = frame["image"]
    assert first == second
    assert first["type"] == "image"
    listed = {file.path for file in client().list_artifacts(found.info.run_id, "table_images/deep/t")}
    assert listed == {first["filepath"], first["compressed_filepath"]}


def test_the_infinite_is_read_back(sqlite_store: str) -> None:
    """Infinity, which JSON has not, is the same number again in `mlflow.load_table`."""
    with stage("s") as run:
        run.log_table({"a": [1.0, math.inf, -math.inf]}, "t.json")
    deliver()
    (found,) = all_runs()
    frame = client().load_table(found.info.experiment_id, "t.json", run_ids=[found.info.run_id])
    assert frame["a"].tolist() == [1.0, math.inf, -math.inf]


@pytest.mark.slow
@pytest.mark.usefixtures("each_kind_of_store")
def test_a_thousand_rows_are_one_upload(spool: Path) -> None:
    """A thousand rows, one at a time in one stretch, are one upload, and nothing is left in the spool."""
    with stage("s") as run:
        for index in range(1000):
            run.log_table({"a": index}, "t.json")
    _target.close_all()
    store = MemoryStore()
    written: list[str] = []
    store.before = lambda method, *_: written.append(method)
    deliver_to(store, spool)
    assert rows_at(store.named("s")) == [[index] for index in range(1000)]
    assert written.count("write_artifact") == 1
    assert not list(spool.glob("tables/*"))


@pytest.mark.usefixtures("each_kind_of_store")
def test_forked_processes_append_to_one_table(spool: Path) -> None:
    """Children that append to the table of their parent's run lose nothing of each other's."""
    with stage("s") as run:
        run.log_table({"a": "parent"}, "t.json")
        for name in ("first", "second"):
            forked(lambda name=name: run.log_table({"a": name}, "t.json"))  # type: ignore[misc]
    _target.close_all()
    store = MemoryStore()
    deliver_to(store, spool)
    assert sorted(rows_at(store.named("s"))) == [["first"], ["parent"], ["second"]]


@pytest.mark.usefixtures("each_kind_of_store")
def test_tables_wait_for_their_store_and_hold_up_nothing(spool: Path) -> None:
    """While the artifact store is away, metrics arrive; the rows follow, and the journal stays until they have."""
    store = MemoryStore()

    def away(method: str, *_: Any) -> None:
        if method in ("read_artifact", "write_artifact"):
            raise Unavailable("no artifacts now")

    store.before = away
    with stage("s") as run:
        run.log_table({"a": 1}, "t.json")
        run.log_metric("m", 1)
    _target.close_all()
    worker = Worker(spool, store.open)
    for _ in range(5):
        worker.round()
    assert len(store.named("s").points) == 1
    assert not worker.idle()
    worker.close()
    store.before = lambda *_: None
    deliver_to(store, spool)
    assert rows_at(store.named("s")) == [[1]]
    assert not list(journals(spool))


@pytest.mark.usefixtures("each_kind_of_store")
def test_what_is_no_table_is_not_overwritten(spool: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where another file has the table's path, it stays, and a tag and the log say that rows are left out."""
    with stage("s") as run:
        run.log_text("precious", "t.json")
        run.log_table({"a": 1}, "t.json")
    _target.close_all()
    store = MemoryStore()
    with caplog.at_level(logging.WARNING, "trackdsl"):
        deliver_to(store, spool)
    assert store.named("s").files["t.json"] == "precious"
    assert "refused" in store.named("s").tags["trackdsl.omitted.t.json"]
    assert "rows of the table 't.json' are left out" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("each_kind_of_store")
def test_the_tag_that_lists_tables_may_be_full(spool: Path) -> None:
    """What MLflow's tag cannot hold is in another one; all tables are there, and the list can still be read."""
    with stage("s") as run:
        for index in range(100):
            run.log_table({"a": index}, f"{'long' * 20}{index}.json")
    _target.close_all()
    store = MemoryStore()
    deliver_to(store, spool)
    held = store.named("s")
    listed = {entry["path"] for entry in json.loads(held.tags["mlflow.loggedArtifacts"])}
    omitted = {tag for tag in held.tags if tag.startswith("trackdsl.omitted.mlflow.loggedArtifacts")}
    assert len(held.files) == 100
    assert 50 < len(listed) < 100
    assert len(listed) + len(omitted) == 100
