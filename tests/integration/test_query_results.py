"""Frames, trees, comparisons and histories of recorded runs, and which run a text means."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trackdsl
from tests.conftest import all_runs, client
from tests.run_zoo import HOSTILE, names, through_mlflow
from trackdsl import QueryError, RunNotFound, experiment
from trackdsl.query._database import reader_for
from trackdsl.query._frame import frame_of
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundRun, Search
from trackdsl.query._shown import short


def test_the_frame(zoo: str) -> None:
    """Every run is a row, with what MLflow holds of it: names, times, parents, paths, values and their types."""
    frame = trackdsl.runs("churn", order_by="name")
    assert names(frame) == ["run-0", "run-1", "run-2", "run-3"]
    held = {run.info.run_id: run for run in all_runs(zoo)}
    for row in frame.to_dict("records"):
        run = held[row["run_id"]]
        assert (row["id"], row["name"]) == (run.data.tags["trackdsl.id"], run.info.run_name)
        assert row["start"] == pd.Timestamp(run.info.start_time, unit="ms", tz="UTC")
        assert row["duration"] == (run.info.end_time - run.info.start_time) / 1000
        assert {
            k[7:]: v for k, v in row.items() if k.startswith("params.") and not pd.isna(v)
        }.keys() == run.data.params.keys()
        assert {k[5:]: v for k, v in row.items() if k.startswith("tags.") and not pd.isna(v)} == run.data.tags
    assert list(frame["params.lr"]) == [0.1, 0.01, 1.0, 10.0]
    assert (frame["params.epochs"].dtype, frame["params.flag"].dtype) == ("int64", "bool")
    assert frame["params.model"][3] == "it's"
    assert list(frame["metrics.accuracy"][[0, 1, 3]]) == [0.5, 0.95, 0.9]
    assert math.isnan(frame["metrics.accuracy"][2])
    assert frame["metrics.inf"][3] == held[frame["run_id"][3]].data.metrics["inf"] > 1e308
    assert set(frame["status"]) == {"FINISHED"}
    assert frame["experiment"].unique().tolist() == ["churn"]
    columns = list(frame.columns)
    assert columns[:9] == ["run_id", "id", "name", "experiment", "status", "start", "duration", "parent", "path"]
    assert columns.index("tags.team") < columns.index("tags.trackdsl.id") < columns.index("tags.mlflow.user")
    texts = trackdsl.runs("churn", order_by="name", numbers=False)
    assert list(texts["params.lr"]) == ["0.1", "0.01", "1", "10"]


def test_which_runs(zoo: str) -> None:
    """One experiment, several, an id, or all of them; newest first; deleted runs never; parents and paths of each."""
    everything = trackdsl.runs()
    assert len(everything) == 4 + 19 + 2
    assert "gone" not in names(everything)
    assert everything["start"].is_monotonic_decreasing
    assert len(trackdsl.runs(["churn", "plain"])) == 6
    experiment = client(zoo).get_experiment_by_name("churn").experiment_id
    assert len(trackdsl.runs(experiment)) == 4
    assert names(trackdsl.runs("churn", order_by=["accuracy DESC"], max_results=2)) == ["run-1", "run-3"]
    assert names(trackdsl.runs("churn", max_results=0)) == []
    by_path = everything.set_index("path")
    assert by_path.loc["theirs/inner", "parent"] == by_path.loc["theirs", "run_id"]
    assert by_path.loc["root/it's/leaf", "parent"] == by_path.loc["root/it's", "run_id"]
    assert pd.isna(by_path.loc["theirs", "duration"])
    assert by_path.loc["theirs/inner", "duration"] == 3.0
    # A parent that is not a row itself is found too.
    assert list(trackdsl.runs("plain", name="inner")["path"]) == ["theirs/inner"]
    assert trackdsl.runs("churn", accuracy__gt=2).columns[:3].tolist() == ["run_id", "id", "name"]


_PARAMS = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.sampled_from(["007", "1.50", "+1", "1_0", "nan", "", "é"])
)


@given(values=st.lists(st.none() | _PARAMS, min_size=1, max_size=5))
def test_a_column_of_numbers_gives_its_text_back(values: list[Any]) -> None:
    """Parameters become numbers or truth values only where the text can be had from them, and gaps stay gaps."""
    texts = [None if value is None else str(value) for value in values]
    runs = [_run({} if text is None else {"p": text}) for text in texts]
    for numbers in (True, False):
        frame = frame_of(runs, {}, {}, numbers=numbers)
        column = frame.get("params.p", pd.Series([None] * len(texts), dtype=object))
        assert list(column.isna()) == [text is None for text in texts]
        for text, value in zip(texts, column, strict=True):
            if text is not None:
                # Integers beside fractions, or beside gaps, are floats.
                assert text in (str(value), f"{value:.0f}" if isinstance(value, float) else "")


def _run(params: dict[str, str]) -> FoundRun:
    return FoundRun("0" * 32, "r", "0", "FINISHED", 0, 0, params, {}, {})


def test_readers_agree_on_everything_else(zoo: str) -> None:
    """Runs by id, by its beginning, by name; trees, histories and names are the same in both ways."""
    quick, third, slow = reader_for(zoo), through_mlflow(zoo), PagedReader(zoo)
    everywhere = tuple(one.id for one in slow.experiments())
    root, theirs = (
        next(run for run in quick.search(Search(everywhere)) if run.name == one) for one in ("root", "theirs")
    )
    assert [run.name for run in slow.descendants(theirs)] == ["inner"]  # Not the one that is deleted.
    for ask in (
        lambda reader: reader.experiments(),
        lambda reader: reader.experiments(deleted=True),
        lambda reader: reader.with_ids([root.run_id, "0" * 32, "it's"]),
        lambda reader: reader.with_id(root.id or ""),
        lambda reader: reader.beginning_with(root.run_id[:6], 3),
        lambda reader: reader.named("it's", 3),
        lambda reader: reader.named("run-1", 3),
        lambda reader: reader.named("\udc80", 3),
        lambda reader: sorted(reader.descendants(root), key=lambda run: run.run_id),
        lambda reader: [run.name for run in reader.descendants(theirs)],
        lambda reader: reader.history(root.run_id, "loss"),
        lambda reader: reader.keys(everywhere),
        lambda reader: [reader.has_key(kind, key, everywhere) for kind in ("metrics", "params", "tags")
                        for key in ("epochs", "model", "odd'key`", "no", "inf")],
    ):  # fmt: skip
        assert ask(quick) == ask(third) == ask(slow)
    assert len(quick.descendants(root)) == 18


def test_best(zoo: str) -> None:
    """The best run has the largest or smallest value, NaN never; where no run has the metric, others are named."""
    found = trackdsl.best("churn", "accuracy")
    assert (found.name, found.value, found.params["model"], found.experiment) == ("run-1", 0.95, "rf", "churn")
    assert trackdsl.best("churn", "accuracy", "min").name == "run-0"
    assert trackdsl.best("churn", "accuracy", mode="max", model="it's").value == 0.9
    assert "run-1" in repr(found)
    with pytest.raises(QueryError, match="did you mean `accuracy`") as caught:
        trackdsl.best("churn", "acuracy")
    assert "val/loss" in str(caught.value)
    with pytest.raises(QueryError, match="passes the conditions"):
        trackdsl.best("churn", "accuracy", name="run-2")
    with pytest.raises(QueryError, match="'max' or 'min'"):
        trackdsl.best("churn", "accuracy", "most")


def test_tree(zoo: str) -> None:
    """A tree holds a run and all runs below it in the order they began, and walks through them."""
    found = trackdsl.tree("root")
    assert [run.name for run in found.walk()] == ["root", *(name for one in HOSTILE for name in (one, "leaf"))]
    assert [len(child.children) for child in found.children] == [1] * len(HOSTILE)
    assert found.metrics["loss"] == 0.2
    assert found.children[0].params == {"value": "it's"}
    leaf = found.children[0].children[0]
    assert trackdsl.tree(leaf.run_id).children == ()
    assert trackdsl.tree(leaf.run_id, whole=True) == found
    assert trackdsl.tree(leaf.id, whole=True).run_id == found.run_id
    theirs = trackdsl.tree("theirs")
    assert ([run.name for run in theirs.walk()], theirs.duration) == (["theirs", "inner"], None)
    assert trackdsl.tree(client(zoo).get_run(theirs.run_id)) == theirs
    assert trackdsl.tree("inner", whole=True) == theirs


def test_the_picture_of_a_tree(zoo: str) -> None:
    """A printed tree has a line for each run, without control characters; in a notebook it folds, as plain text."""
    lines = str(trackdsl.tree("root")).splitlines()
    assert len(lines) == 19
    assert lines[0].startswith("root  FINISHED  ")
    assert "epochs 7" in lines[0]
    assert lines[1].startswith("├── it's  FINISHED")
    assert lines[-1].startswith("    └── leaf")
    assert any(r"├── \x1b[31mred" in line for line in lines)
    assert any("├── [red]x[/]" in line for line in lines)
    page = trackdsl.tree("root")._repr_html_()
    assert page.count("<details open ") == page.count("</details>") == 1 + len(HOSTILE)
    assert "<script" not in page
    assert "say &quot;hi&quot;" in page
    assert "\x1b" not in page


@pytest.mark.slow
def test_a_deep_tree_and_a_circle(sqlite_store: str) -> None:
    """A tree of a thousand levels, and parents in a circle, are printed."""
    mlflow = client(sqlite_store)
    engine = mlflow._tracking_client.store.engine
    from mlflow.store.tracking.dbmodels.models import SqlRun, SqlTag
    from sqlalchemy import insert

    ids = [f"{number:032x}" for number in range(1100)]
    rows = [{"run_uuid": id_, "name": id_[-4:], "experiment_id": 0, "status": "FINISHED", "start_time": 1,
             "lifecycle_stage": "active", "source_type": "LOCAL"} for id_ in ids]  # fmt: skip
    above = [*ids[:1], *ids[:-1]]  # The first is its own parent.
    tags = [{"run_uuid": id_, "key": "mlflow.parentRunId", "value": up} for id_, up in zip(ids, above, strict=True)]
    with engine.begin() as connection:
        connection.execute(insert(SqlRun), rows)
        connection.execute(insert(SqlTag), tags)
    found = trackdsl.tree(ids[1], whole=True)
    assert sum(1 for _ in found.walk()) == 1100
    assert found._repr_html_().count("<details open ") == 1099
    assert len(str(found).splitlines()) == 1100


def test_runs_of_several_stores(tmp_path: Path) -> None:
    """Runs that two stores have cannot be compared; the message names both, without a password."""
    with experiment("one", tracking_uri=f"sqlite:///{tmp_path}/one.db") as first:
        pass
    with experiment("two", tracking_uri="http://user:hunter22@localhost:1") as second:
        pass
    with pytest.raises(QueryError, match=r"several stores: .*one.db and http://.*localhost:1") as caught:
        trackdsl.compare(first, second)
    assert "hunter22" not in str(caught.value)


def test_compare(zoo: str) -> None:
    """Only what differs is listed, by kind: parameters, metrics, source, own tags; with `all` everything is."""
    ids = trackdsl.runs("churn", order_by="name")["run_id"]
    found = trackdsl.compare(ids[0], ids[1])
    frame = found.frame
    assert list(frame.columns) == ["run-0", "run-1"]
    assert frame.loc[("params", "lr")].tolist() == ["0.1", "0.01"]
    assert frame.loc[("metrics", "accuracy")].tolist() == [0.5, 0.95]
    assert frame.loc[("tags", "team")].tolist() == ["b", "a"]
    assert ("params", "model") not in frame.index
    assert not any(name.startswith(("mlflow.", "trackdsl.")) for kind, name in frame.index if kind == "tags")
    whole = trackdsl.compare(ids[0], ids[1], all=True)
    assert whole.frame.loc[("params", "model")].tolist() == ["rf", "rf"]
    assert ("source", "entry point") in whole.frame.index
    assert (len(whole), whole.same) == (len(found) + found.same, 0)
    same = trackdsl.compare(ids[2], ids[2])
    assert (len(same), same.labels[0]) == (0, f"run-2 {short(ids[2])}")  # NaN is not a difference.
    assert "No differences" in str(same)
    third = trackdsl.compare("run-0", "run-1", "run-3")
    assert third.frame.loc[("params", "only here")].tolist() == [None, None, "yes"]
    text = str(trackdsl.compare("run-0", "run-3"))
    assert r"it's\nsay" in text
    assert "\x1b" not in text
    assert "<table>" in third._repr_html_()
    with pytest.raises(QueryError, match="two runs"):
        trackdsl.compare(ids[0])


def test_history(zoo: str) -> None:
    """The points of a metric are in the order they were logged; several metrics are one below the other."""
    frame = trackdsl.history("root", "loss")
    assert frame["step"].tolist() == list(range(5))
    assert frame["value"].tolist() == [1 / (step + 1) for step in range(5)]
    assert list(frame.columns) == ["step", "value", "time"]
    both = trackdsl.history("root", "loss", "epochs")
    assert both["metric"].tolist() == ["loss"] * 5 + ["epochs"]
    assert math.isnan(trackdsl.history("run-2", "accuracy")["value"][0])
    with pytest.raises(QueryError, match="did you mean `loss`"):
        trackdsl.history("root", "los")
    with pytest.raises(QueryError, match="names of metrics"):
        trackdsl.history("root")


@pytest.mark.slow
def test_a_long_history(sqlite_store: str) -> None:
    """More points than one page of MLflow's holds come in order, each once, by both ways."""
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric
    from sqlalchemy import insert

    mlflow = client(sqlite_store)
    run_id = mlflow.create_run("0", run_name="long").info.run_id
    last = {"run_uuid": run_id, "key": "loss", "is_nan": False}
    points = [{**last, "value": float(n), "timestamp": n // 100, "step": n} for n in range(30_000)]
    with mlflow._tracking_client.store.engine.begin() as connection:
        connection.execute(insert(SqlMetric), points[::-1])
        connection.execute(insert(SqlLatestMetric), points[-1:])
    frame = trackdsl.history("long", "loss")
    assert frame["value"].tolist() == frame["step"].tolist() == list(range(30_000))
    assert sorted(point.step for point in PagedReader(sqlite_store).history(run_id, "loss")) == list(range(30_000))


def test_which_run_is_meant(zoo: str) -> None:
    """A run is found by its ids, the beginning of one, or its name; what fits none is an error."""
    frame = trackdsl.runs("churn", name="run-1")
    run_id, own = frame["run_id"][0], frame["id"][0]
    for text in (run_id, own, short(run_id), "run-1"):
        assert trackdsl.tree(text).run_id == run_id
    with pytest.raises(RunNotFound, match="matches several runs"):  # Ids of one program begin alike.
        trackdsl.tree(run_id[:8])
    for text in ("nobody", "'; DELETE FROM runs; --", "0" * 32):
        with pytest.raises(RunNotFound, match="no run"):
            trackdsl.tree(text)
    with pytest.raises(QueryError, match="is not a run"):
        trackdsl.tree(3)


def test_the_newest_of_a_name(zoo: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where a name fits several runs the one that began last is meant, and one line of the log says which."""
    leaves = trackdsl.runs(name="leaf")
    assert len(leaves) > 1
    newest = leaves.sort_values(["start", "id"])["run_id"].iloc[-1]
    for _ in range(2):
        assert trackdsl.tree("leaf").run_id == newest
    assert trackdsl.compare("leaf", "run-1").runs[0] == newest
    (line,) = [record.getMessage() for record in caplog.records if "leaf" in record.getMessage()]
    assert newest in line
    assert "`trackdsl ls`" in line
    ids = [id_[:4] for id_ in leaves["run_id"]]
    assert all(trackdsl.tree(id_).run_id.startswith(id_) for id_ in ids if ids.count(id_) == 1)


@pytest.mark.parametrize("name", ["twin", "a 'twin' and \"another\""])
def test_the_newest_of_many_that_began_at_once(empty_store: Path, tmp_path: Path, name: str) -> None:
    """Among many runs of a name that began in the same millisecond, the one recorded last counts."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    trackdsl.configure(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    mlflow = client(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = mlflow.create_experiment("twins")
    made = [
        mlflow.create_run(
            experiment, start_time=5000, run_name=name, tags={"trackdsl.id": f"{number:032x}"}
        ).info.run_id
        for number in range(30)
    ]
    mlflow.create_run(experiment, start_time=4000, run_name=name, tags={"trackdsl.id": "f" * 32})
    assert trackdsl.tree(name).run_id == made[-1]
