"""Asking what was recorded: frames, conditions, trees, comparisons, histories, on real stores."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

import trackdsl
from tests.conftest import PATIENCE, Server, StartProgram, all_runs, client, deliver, end_delivery, examples, free_port
from trackdsl import ExperimentNotFound, QueryError, RunNotFound, TrackingServerUnreachable, experiment, stage
from trackdsl import settings as _settings
from trackdsl.delivery.database._schema import KNOWN_REVISIONS
from trackdsl.query import _mlflow_search, _runs
from trackdsl.query._conditions import compare as compare_values
from trackdsl.query._database import DatabaseReader, reader_for
from trackdsl.query._frame import frame_of, paths_of
from trackdsl.query._grammar import check_filter, language_of_mlflow, number_text
from trackdsl.query._mlflow_client import client_of, store_of
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundRun, Search
from trackdsl.query._runs import Question
from trackdsl.query._shown import short

#: Names and values that would end a quotation, a statement or a page in the wrong hands.
HOSTILE = (
    "it's",
    'say "hi"',
    "back\\slash",
    "'; DROP TABLE runs; --",
    "a\nb",
    "\x1b[31mred",
    "[red]x[/]",
    "🙂%_",
    "`tick`",
)


def record_zoo(uri: str, churn: str = "churn") -> None:
    """Runs of many kinds, in two experiments."""
    trackdsl.configure(tracking_uri=uri)
    for number, model in enumerate(("rf", "rf", "svm", "it's")):
        with experiment(churn, run_name=f"run-{number}", tags={"team": "a" if number % 2 else "b"}) as run:
            run.log_params(
                {"model": model, "lr": [0.1, 0.01, 1, 10][number], "epochs": 10 * number, "flag": number > 1}
            )
            run.log_input(pd.DataFrame({"x": [number]}), "training" if number else "test", name="d")
            run.log_metrics({"accuracy": [0.5, 0.95, math.nan, 0.9][number], "val/loss": 1.0 - number / 10})
            if number == 3:
                run.log_params({"layers[0]": 64, "only here": "yes", "hostile": "\n".join(HOSTILE)})
                run.log_metric("inf", math.inf)
    with experiment(f"{churn}-other", run_name="root") as root:
        for name in HOSTILE:
            with stage(name, value=name) as child, stage("leaf"):
                child.set_tag("mine", name)
        root.log_metric("epochs", 7)
        for step in range(5):
            root.log_metric("loss", 1 / (step + 1), step=step)


@pytest.fixture(scope="module")
def recorded(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the runs of `record_zoo`, and some that plain MLflow made."""
    folder = tmp_path_factory.mktemp("zoo")
    shutil.copy(empty_store, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    before = _settings.configured()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TRACKDSL_SPOOL", str(folder / "spool"))
        patch.setenv("TRACKDSL_MODE", "offline")
        record_zoo(uri)
        deliver()
    plain(uri)
    _settings.restore(before)
    return folder / "mlflow.db"


def plain(uri: str) -> None:
    """Runs that trackdsl knows nothing of: nested ones, one that runs still, one without anything."""
    mlflow = client(uri)
    experiment = mlflow.create_experiment("plain", artifact_location="/nowhere")
    root = mlflow.create_run(experiment, start_time=1000, run_name="theirs", tags={"odd'key`": "x"})
    child = mlflow.create_run(
        experiment, start_time=2000, run_name="inner", tags={"mlflow.parentRunId": root.info.run_id}
    )
    mlflow.log_param(child.info.run_id, "model", "rf")
    mlflow.set_terminated(child.info.run_id, "FAILED", 5000)
    gone = mlflow.create_run(
        experiment, start_time=3000, run_name="gone", tags={"mlflow.parentRunId": root.info.run_id}
    )
    mlflow.delete_run(gone.info.run_id)


@pytest.fixture
def zoo(recorded: Path) -> str:
    """The store of `recorded`, as the configured one."""
    uri = f"sqlite:///{recorded}"
    trackdsl.configure(tracking_uri=uri)
    return uri


def names(frame: Any) -> list[str]:
    """Which runs are in a frame."""
    return list(frame["name"])


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


CONDITIONS: list[tuple[dict[str, Any], list[str]]] = [
    ({"accuracy__gt": 0.9}, ["run-1"]),
    ({"accuracy__ge": 0.9}, ["run-1", "run-3"]),
    ({"accuracy__ne": 0.5}, ["run-1", "run-2", "run-3"]),
    ({"accuracy__lt": 0.6, "model": "rf"}, ["run-0"]),
    ({"accuracy": 0.95}, ["run-1"]),
    ({"accuracy__in": [0.5, 0.95]}, ["run-0", "run-1"]),
    ({"accuracy__lt": math.inf}, ["run-0", "run-1", "run-3"]),
    ({"accuracy__lt": 10**400}, ["run-0", "run-1", "run-3"]),
    ({"val/loss__le": 0.8}, ["run-2", "run-3"]),
    ({"metrics__val/loss__le": 0.8}, ["run-2", "run-3"]),
    ({"model": "rf"}, ["run-0", "run-1"]),
    ({"model": "it's"}, ["run-3"]),
    ({"model__ne": "rf"}, ["run-2", "run-3"]),
    ({"model__in": ["svm", "it's"]}, ["run-2", "run-3"]),
    ({"model__like": "r%"}, ["run-0", "run-1"]),
    ({"model__ilike": "RF"}, ["run-0", "run-1"]),
    ({"model__contains": "'"}, ["run-3"]),
    ({"model__startswith": "s"}, ["run-2"]),
    ({"hostile__contains": "'; DROP TABLE runs; --"}, ["run-3"]),
    ({"hostile__contains": "🙂%_"}, ["run-3"]),
    ({"hostile": "\n".join(HOSTILE)}, ["run-3"]),
    ({"epochs": 10}, ["run-1"]),
    ({"epochs": "10"}, ["run-1"]),
    ({"epochs": 10.0}, ["run-1"]),
    ({"epochs__gt": 5, "epochs__lt": 25}, ["run-1", "run-2"]),
    ({"lr": 1}, ["run-2"]),
    ({"params__lr__lt": 0.05}, ["run-1"]),
    ({"flag": True}, ["run-2", "run-3"]),
    ({"flag": "False"}, ["run-0", "run-1"]),
    ({"team": "a"}, ["run-1", "run-3"]),
    ({"tags__team": "b", "model": "rf"}, ["run-0"]),
    ({"layers[0]": 64}, ["run-3"]),
    ({"only here": "yes"}, ["run-3"]),
    ({"params__only here__ne": "no"}, ["run-3"]),
    ({"metrics__nobody": 1}, []),
    ({"status": "FINISHED", "name": "run-2"}, ["run-2"]),
    ({"status__in": ["FAILED", "KILLED"]}, []),
    ({"name__like": "run-%"}, ["run-0", "run-1", "run-2", "run-3"]),
    ({"parent": None}, ["run-0", "run-1", "run-2", "run-3"]),
    ({"duration__ge": 0}, ["run-0", "run-1", "run-2", "run-3"]),
    ({"start__lt": "2020-01-01"}, []),
    ({"start__gt": datetime(2020, 1, 1, tzinfo=UTC)}, ["run-0", "run-1", "run-2", "run-3"]),
    ({"where": "metrics.accuracy > 0.6", "model": "rf"}, ["run-1"]),
    ({"where": "params.`only here` = 'yes'"}, ["run-3"]),
]


@pytest.mark.parametrize(("conditions", "expected"), CONDITIONS, ids=repr)
def test_conditions(zoo: str, conditions: dict[str, Any], expected: list[str]) -> None:
    """A keyword finds the runs that it describes, through the tables and through MLflow's client alike."""
    assert sorted(names(trackdsl.runs("churn", **conditions))) == expected
    arguments = dict(conditions)
    asked = Question.of(PagedReader(zoo), "churn", arguments.pop("where", None), None, arguments)
    assert sorted(run.name for run in asked.ask(None)) == expected


def test_a_name_that_is_a_metric_here_and_a_parameter_there(zoo: str) -> None:
    """A bare name finds runs by either; a prefix says which."""
    both = ["churn", "churn-other"]
    assert names(trackdsl.runs(both, epochs__in=[7, 10], order_by="name")) == ["root", "run-1"]
    assert names(trackdsl.runs(both, metrics__epochs__gt=0)) == ["root"]
    assert names(trackdsl.runs(both, params__epochs__gt=0, order_by="name")) == ["run-1", "run-2", "run-3"]
    odd: dict[str, Any] = {"odd'key`": "x"}
    assert names(trackdsl.runs("plain", **odd)) == ["theirs"]


def test_what_cannot_be_asked(zoo: str) -> None:
    """A wrong name, filter, operator, order or value is an error that says what to write instead."""
    known = trackdsl.runs("churn")["run_id"]

    def wrong(**arguments: Any) -> QueryError:
        with pytest.raises(QueryError) as caught:
            trackdsl.runs(arguments.pop("experiment", "churn"), **arguments)
        return caught.value

    error = wrong(experiment="chrun")
    assert isinstance(error, ExperimentNotFound)
    assert error.suggestion == "churn"
    assert wrong(acuracy__gt=0.9).suggestion == "accuracy"
    assert wrong(accuracy__gte=0.9).suggestion == "accuracy__ge"
    assert wrong(accuracy__greater=0.9).suggestion is None
    assert wrong(order_by="acuracy DESC").suggestion == "accuracy"
    assert wrong(order_by=3).argument == wrong(order_by=["accuracy", "DESC"]).argument == "order_by"
    assert wrong(oder_by="accuracy").suggestion == "order_by"
    assert wrong(order_by="params.modle").suggestion == "params.model"
    assert wrong(order_by="attributes.start_tme").suggestion == "attributes.start_time"
    assert "sort_values('duration')" in str(wrong(order_by="duration"))
    assert "`trackdsl ls --max 0 --json | jq '.runs | sort_by(.duration)'`" in str(wrong(order_by="duration"))
    assert wrong(status="finished").suggestion == "FINISHED"
    assert "OR" in str(wrong(where="metrics.accuracy > 0.9 OR metrics.accuracy < 0.1"))
    assert wrong(where="metrics.accuracy == 1").suggestion == "metrics.accuracy = 1"
    assert wrong(where="accuracy > 0.9").suggestion == "metrics.accuracy"
    assert wrong(where="metrcs.accuracy > 0.9").suggestion == "metrics"
    assert wrong(where="status=FAILED").suggestion == "status='FAILED'"
    assert wrong(where="metrics.accuracy > 0.9 AND params.model = rf").suggestion is not None
    for where in (
        "params.model = rf",
        "metrics.accuracy > 'x'",
        "(",
        "'",
        "x = 'a'; DROP TABLE runs",
        "metrics.a LIKE 'x'",
    ):
        assert wrong(where=where).argument == "where"
    assert "not 3" in str(wrong(where=3))
    assert "not by 3" in str(wrong(experiment=3))
    assert wrong(tracking_uri=3).argument == "tracking_uri"
    for ask in (lambda: trackdsl.best("churn", 3), lambda: trackdsl.history(known[0], 3)):  # type: ignore[arg-type]
        with pytest.raises(QueryError, match="by its name, such as 'loss', not by 3"):
            ask()
    for name, missing in (("nosuch", "there is no run 'nosuch'"), ("run-1", "has no artifact 'x.json'")):
        with pytest.raises(trackdsl.ArtifactError, match=missing):
            trackdsl.load_artifact(name, "x.json")
    assert repr(trackdsl.compare(list(known[:2]))) == repr(trackdsl.compare(*known[:2]))
    assert "number" in str(wrong(accuracy="high"))
    assert "numbers" in str(wrong(model__gt="rf"))
    assert "list" in str(wrong(model__in="rf"))
    assert "object" in str(wrong(model=object()))
    assert "time" in str(wrong(start__gt="yesterday"))
    assert wrong(max_results=-1).argument == "max_results"
    assert len(known) == 4


def test_deleted_and_empty_experiments(sqlite_store: str) -> None:
    """A deleted experiment is reported with the way back; one without runs gives an empty frame."""
    mlflow = client(sqlite_store)
    gone = mlflow.create_experiment("gone")
    mlflow.delete_experiment(gone)
    mlflow.create_experiment("empty")
    with pytest.raises(ExperimentNotFound, match=f"restore --experiment-id {gone}"):
        trackdsl.runs("gone")
    frame = trackdsl.runs("empty", accuracy__gt=0.9, order_by="accuracy DESC")
    assert (len(frame), next(iter(frame.columns))) == (0, "run_id")
    with pytest.raises(QueryError, match="There are none"):
        trackdsl.best("empty", "accuracy")


_NAMES = st.sampled_from(["accuracy", "val/loss", "epochs", "inf", "nobody"])
_TEXTS = st.sampled_from(["rf", "svm", "it", "%r%", "_f", "RF", "10", "a", ""])
_FILTERS = st.one_of(
    st.builds(
        lambda name, sign, value: f"metrics.`{name}` {sign} {value}",
        _NAMES,
        st.sampled_from([">", ">=", "<", "<=", "=", "!="]),
        st.sampled_from([0, 0.5, 0.95, -1.0, 1e-05, 7]),
    ),
    st.builds(
        lambda kind, sign, value: f"{kind} {sign} '{value}'",
        st.sampled_from(["params.model", "params.epochs", "tags.team", "tag.`mlflow.runName`", "attributes.run_name"]),
        st.sampled_from(["=", "!=", "LIKE", "ILIKE"]),
        _TEXTS,
    ),
    st.sampled_from(["attributes.status = 'FINISHED'", "start_time > 2000", "status != 'FAILED'"]),
)
_ORDERS = st.lists(
    st.sampled_from(
        ["accuracy DESC", "accuracy", "metrics.inf", "params.lr DESC", "tags.team", "start ASC", "name", "status DESC"]
    ),
    max_size=3,
    unique_by=lambda text: text.split()[0],
)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(filters=[], order=[], most=None)
@given(filters=st.lists(_FILTERS, max_size=3), order=_ORDERS, most=st.none() | st.integers(0, 5))
def test_the_tables_and_the_client_give_the_same(
    zoo: str, filters: list[str], order: list[str], most: int | None
) -> None:
    """Whatever the question, a frame from the tables is exactly what MLflow's client gives."""
    quick, slow = reader_for(zoo), PagedReader(zoo)
    assert isinstance(quick, DatabaseReader)
    frames = []
    for reader in (quick, through_mlflow(zoo), slow):
        asked = Question.of(reader, None, " AND ".join(filters) or None, order, {})
        found = asked.ask(most)
        frames.append(frame_of(found, asked.names, paths_of(found, reader), numbers=True))
    assert_frame_equal(frames[0], frames[2])
    assert_frame_equal(frames[1], frames[2])


def through_mlflow(uri: str) -> DatabaseReader:
    """The reader of tables whose version is not known, which uses MLflow's connections."""
    mlflow = client_of(uri)
    return DatabaseReader(uri, _mlflow_search.MlflowTables(store_of(mlflow)), mlflow)


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


@given(value=st.floats() | st.integers(), text=st.text(max_size=8))
def test_what_is_pushed_to_mlflow_is_what_is_meant(value: float, text: str) -> None:
    """MLflow reads back numbers in a filter as they are; comparisons are Python's."""
    try:
        written = number_text(value)
    except OverflowError:
        written = None
    if written is not None:
        check_filter(f"metrics.a > {written}")
        assert float(language_of_mlflow().parse_search_filter(f"metrics.a > {written}")[0]["value"]) == float(value)
    assert compare_values(str(value), "eq", value) == (value == value)
    assert compare_values(text, "eq", text)
    assert compare_values(text, "contains", text[1:3])
    assert compare_values(text, "like", "%")


def test_another_version_of_mlflow(zoo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If MLflow lacks what its filters and unknown tables need, its public client gives the same frame."""
    from mlflow.store.tracking import sqlalchemy_store

    def moved(*_: Any) -> Any:
        raise AttributeError("SqlRun has no attribute run_uuid")

    asked: dict[str, Any] = {"where": "attributes.run_id NOT IN ('x')", "order_by": "accuracy DESC"}
    expected = trackdsl.runs(**asked)
    with monkeypatch.context() as patch:
        patch.setattr(_mlflow_search, "_statement", moved)
        assert_frame_equal(trackdsl.runs(**asked), expected)
    clauses: Any = sqlalchemy_store._get_orderby_clauses
    with monkeypatch.context() as patch:
        patch.setattr(sqlalchemy_store, "_get_orderby_clauses", lambda orders, session, *more: clauses(orders, session))
        assert_frame_equal(trackdsl.runs(**asked), expected)
        patch.delitem(KNOWN_REVISIONS, revision_at(zoo))
        assert type(reader_for(zoo)) is PagedReader
        assert_frame_equal(trackdsl.runs(**asked), expected)


def revision_at(uri: str) -> str:
    """The version of the tables of a SQLite store."""
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        return str(database.execute("SELECT version_num FROM alembic_version").fetchone()[0])


@pytest.mark.parametrize("where", ["datasets.name = 'd'", "dataset.context = 'training'", "datasets.digest LIKE '%'"])
def test_filters_on_datasets(zoo: str, where: str) -> None:
    """Runs are found by their datasets, each once, also in an order of one's own."""
    found = [
        [run.name for run in Question.of(reader, None, where, None, {}).ask(None)]
        for reader in (reader_for(zoo), PagedReader(zoo))
    ]
    assert found[0] == found[1]
    # Older versions of MLflow fail at an order beside such a filter.
    assert list(trackdsl.runs(where=where, order_by="accuracy DESC")["name"])[:2] == ["run-1", "run-3"]


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


@pytest.mark.parametrize("reader", [reader_for, PagedReader])
def test_roots_first(zoo: str, reader: Any) -> None:
    """Runs without a parent come before all others, however late those began, and not where an order is asked for."""
    asked = Question.of(reader(zoo), None, None, None, {})
    newest_first = asked.ask(None)
    found = [run.run_id for run in asked.ask(None, roots_first=True)]
    roots = [run.run_id for run in newest_first if run.parent is None]
    assert found == [*roots, *(run.run_id for run in newest_first if run.parent is not None)]
    assert found != [run.run_id for run in newest_first]
    for most in (1, len(roots), len(roots) + 2):
        assert [run.run_id for run in asked.ask(most, roots_first=True)] == found[:most]
    ordered = Question.of(asked.reader, None, None, "start", {})
    oldest_first = [run.run_id for run in ordered.ask(None)]
    assert [run.run_id for run in ordered.ask(None, roots_first=True)] == oldest_first


@pytest.mark.parametrize(
    ("asked", "right"),
    [
        ("accuracy DSC", "accuracy DESC"),
        ("metrics.accuracy dec", "metrics.accuracy DESC"),
        ("start descending", "start DESC"),
        ("accuracy asec", "accuracy ASC"),
        ("-accuracy", "accuracy DESC"),
        ("desc accuracy", "accuracy DESC"),
        ("accuracy DESC, lr", "['accuracy DESC', 'lr']"),
    ],
)
def test_orders_that_are_nearly_right(zoo: str, asked: str, right: str) -> None:
    """Another spelling of ASC or DESC is not part of a name: the error gives the order that was meant."""
    with pytest.raises(QueryError) as caught:
        trackdsl.runs("churn", order_by=asked)
    assert caught.value.suggestion == right
    assert right in str(caught.value)


@pytest.mark.parametrize(
    ("once", "twice"),
    [
        (["accuracy DESC", "name"], ["accuracy DESC", "metrics.accuracy", "name"]),
        (["start"], ["start", "attributes.start_time DESC"]),
        (["start DESC"], ["start DESC", "created"]),
        (["params.lr"], ["params.lr", "params.`lr` DESC", "params.lr"]),
    ],
)
def test_an_order_by_one_field_twice(zoo: str, once: list[str], twice: list[str]) -> None:
    """A field that is named again is not an error and changes nothing: its first direction counts."""
    for reader in (reader_for(zoo), PagedReader(zoo)):
        expected, found = (
            [run.run_id for run in Question.of(reader, None, None, order, {}).ask(None)] for order in (once, twice)
        )
        assert found == expected


def test_at_a_server(shared_server: Server) -> None:
    """At a tracking server, everything gives what the same runs give from a database."""
    name = f"served-{os.getpid()}"
    record_zoo(shared_server.uri, name)
    deliver()
    frame = trackdsl.runs(name, order_by="name")
    assert names(frame) == ["run-0", "run-1", "run-2", "run-3"]
    assert list(frame["params.lr"]) == [0.1, 0.01, 1.0, 10.0]
    assert names(trackdsl.runs(name, accuracy__gt=0.9)) == ["run-1"]
    assert names(trackdsl.runs(name, hostile__contains="'; DROP")) == ["run-3"]
    assert trackdsl.best(name, "accuracy").name == "run-1"
    root = trackdsl.runs(f"{name}-other", name="root")["run_id"][0]
    found = trackdsl.tree(root)
    assert [run.name for run in found.walk()] == ["root", *(one for child in HOSTILE for one in (child, "leaf"))]
    assert trackdsl.tree(found.children[1].children[0].run_id, whole=True) == found
    assert trackdsl.history(root, "loss")["value"].tolist() == [1 / (step + 1) for step in range(5)]
    assert len(trackdsl.compare(*frame["run_id"][:2])) > 0
    database = f"sqlite:///{shared_server.folder}/srv.db"
    assert_frame_equal(trackdsl.runs(name), trackdsl.runs(name, tracking_uri=database))


@pytest.mark.slow
def test_what_was_just_recorded_is_there(start: StartProgram, sqlite_store: str, tmp_path: Path) -> None:
    """A program that asks for its own runs finds them, the one that is open included, by its handle too."""
    program = start(
        """
        import sys, trackdsl
        assert not {"pandas", "mlflow", "trackdsl.query"} & set(sys.modules)
        with trackdsl.experiment("now") as run:
            run.log_metric("loss", 0.5, step=3)
            with trackdsl.stage("inner"):
                pass
            print(list(trackdsl.runs("now", order_by="start")["status"]))
            print([one.name for one in trackdsl.tree(run).walk()], trackdsl.history(run, "loss")["step"].tolist())
        print(list(trackdsl.runs("now", order_by="start")["status"]))
        """,
        TRACKDSL_MODE="online",
    )
    code, out, err = program.finish()
    end_delivery(tmp_path / "spool")
    assert code == 0, err
    assert out.splitlines() == ["['RUNNING', 'FINISHED']", "['now', 'inner'] [3]", "['FINISHED', 'FINISHED']"]


def test_what_is_not_delivered_is_reported(sqlite_store: str, caplog: pytest.LogCaptureFixture) -> None:
    """Offline, what was recorded is not at MLflow: the log says so, and a handle of such a run is an error."""
    with experiment("later") as run:
        pass
    assert len(trackdsl.runs()) == 0
    assert "trackdsl sync" in caplog.text
    with pytest.raises(RunNotFound, match="not at MLflow yet"):
        trackdsl.tree(run)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql+pymysql"])
def test_a_database_that_is_not_there(scheme: str) -> None:
    """If no database server listens, that is reported at once; MLflow itself would try for minutes."""
    with pytest.raises(TrackingServerUnreachable, match="no database answers at") as caught:
        trackdsl.runs(tracking_uri=f"{scheme}://ann:hunter2@127.0.0.1:{free_port()}/runs")
    assert "hunter2" not in str(caught.value)


def test_a_database_without_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is not installed is reported with the command that installs it."""
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        uri = f"mysql://127.0.0.1:{listening.getsockname()[1]}/runs"
        with pytest.raises(QueryError, match="pip install 'mysqlclient'"):
            trackdsl.runs(tracking_uri=uri)


def test_no_store(tmp_path: Path) -> None:
    """A query makes no database, changes no other one, waits for no server, and shows no password."""
    with pytest.raises(QueryError, match="does not exist"):
        trackdsl.runs()
    assert not list(Path.cwd().iterdir())
    (tmp_path / "notes.db").write_text("these are notes\n" * 100)
    with pytest.raises(QueryError, match=r"cannot be read as a database.* If it is not one, give --tracking-uri"):
        trackdsl.runs(tracking_uri=f"sqlite:///{tmp_path}/notes.db")
    with pytest.raises(QueryError, match="is a folder, and a SQLite database is a file; give --tracking-uri"):
        trackdsl.runs(tracking_uri=f"sqlite:///{tmp_path}")
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE mine (x)").connection.close()
    with pytest.raises(QueryError, match="is not an MLflow database"):
        trackdsl.runs(tracking_uri=f"sqlite:///{tmp_path}/other.db")
    with pytest.raises(TrackingServerUnreachable) as caught:
        trackdsl.runs(tracking_uri=f"http://me:hunter2@127.0.0.1:{free_port()}")
    assert "hunter2" not in str(caught.value)
    from trackdsl.testing import capture_runs

    with capture_runs(), pytest.raises(QueryError, match="captured"):
        trackdsl.runs()


@pytest.mark.slow  # SQLite waits five seconds for the other program.
def test_a_database_that_another_program_keeps_locked(zoo: str) -> None:
    """A query of a locked database says why it fails, and what to do."""
    with contextlib.closing(sqlite3.connect(zoo.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(QueryError, match=r"is in use by another program: .*locked\. Close that program, or wait"):
            trackdsl.runs(tracking_uri=zoo)


def test_a_database_that_is_replaced(sqlite_store: str, empty_store: Path) -> None:
    """After a database file was replaced, queries read the new one, also those that MLflow answers."""
    by_mlflow = "attributes.run_id NOT IN ('x')"
    with stage("first"):  # In the default experiment, which the other file has too.
        pass
    deliver()
    assert len(trackdsl.runs()) == len(trackdsl.runs(where=by_mlflow)) == 1
    os.unlink("mlflow.db")
    shutil.copy(empty_store, "mlflow.db")
    assert len(trackdsl.runs()) == len(trackdsl.runs(where=by_mlflow)) == 0


def test_importing_brings_nothing() -> None:
    """`import trackdsl` imports neither pandas nor MLflow nor the query modules; their names are there nevertheless."""
    program = (
        "import sys, trackdsl; print(sorted({'pandas', 'mlflow', 'numpy', 'trackdsl.query'} & set(sys.modules)));"
        "trackdsl.runs, trackdsl.tree, trackdsl.compare, trackdsl.history, trackdsl.best;"
        "print(sorted({'pandas', 'mlflow', 'trackdsl.query'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['trackdsl.query']"]


#: Asks a store with the runs of `record_zoo` for everything, in one process: its arguments are the tracking URI and the
#: names of modules that must not be imported.
ASKS = """
import importlib.util, json, sys
from click.testing import CliRunner
import trackdsl
from trackdsl.cli import main

uri, *unwanted = sys.argv[1:]
for arguments, code in (
    (["ls", "churn"], 0),
    (["ls", "--json", "--where", "params.model = 'rf' AND status = 'FINISHED'", "--order-by", "accuracy DESC"], 0),
    (["ls", "--where", "tags.trackdsl.call.function LIKE '%'"], 0),
    (["show", "run-1"], 0),
    (["tree", "root", "--json"], 0),
    (["trace", "root"], 0),
    (["report", "root", "--output", "root.html"], 0),
    (["compare", "run-0", "run-1"], 0),
    (["changes", "run-1", "--since", "run-0"], 0),
    (["export", "churn", "--output", "churn.json"], 0),
    (["open", "run-1"], 1),
    (["show", "run"], 1),
):
    result = CliRunner().invoke(main, [*arguments, "--tracking-uri", uri])
    assert result.exit_code == code, (arguments, result.output, result.exception)
    assert code == 0 or "did you mean" in result.output or "is not a server" in result.output, result.output
trackdsl.configure(tracking_uri=uri)
assert len(trackdsl.runs("churn", epochs__gt=5, order_by="params.lr")) == 3
assert trackdsl.best("churn", "accuracy").name == "run-1"
assert len(list(trackdsl.tree("root").walk())) == 19
assert len(trackdsl.history("root", "loss")) == 5
assert len(trackdsl.compare("run-0", "run-1")) > 0
trackdsl.changes("run-1", "run-0")
print(sorted(set(unwanted) & set(sys.modules)))
assert importlib.util.find_spec("requests") is not None
import requests.adapters, trackdsl._server.http
print(requests.adapters.HTTPAdapter.send.__module__)
"""


@pytest.mark.parametrize("after", [-1.0, 60.0], ids=["slow", "quick"])
def test_a_bar_does_not_change_what_is_read(after: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """If reading takes long, a progress bar follows it from then on, and each run comes once, in order."""
    monkeypatch.setattr(_runs, "_BAR_AFTER", after)
    monkeypatch.delitem(sys.modules, "tqdm", raising=False)
    found: Any = iter(range(100))
    assert list(_runs._with_bar(found)) == list(range(100))
    assert ("tqdm" in sys.modules) == (after < 0)


def asked_in_a_process(uri: str, folder: Path, *unwanted: str) -> list[str]:
    """The lines that `ASKS` prints."""
    command = [sys.executable, "-c", ASKS, uri, *unwanted]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_is_read_without_mlflow(zoo: str, tmp_path: Path) -> None:
    """The commands and functions that read a SQLite store import neither MLflow nor SQLAlchemy nor `requests`.

    Where something imports `requests` later, also after a look whether there is such a module, its requests end.
    """
    printed = asked_in_a_process(zoo, tmp_path, "mlflow", "sqlalchemy", "requests")
    assert printed == ["[]", "trackdsl._server.http"]
