"""Conditions, filters and orders of `runs`, on a real store: the tables and MLflow's client give the same."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

import trackdsl
from tests.conftest import examples
from tests.run_zoo import HOSTILE, names, through_mlflow
from trackdsl import ExperimentNotFound, QueryError
from trackdsl.delivery.database._schema import KNOWN_REVISIONS
from trackdsl.query import _mlflow_search
from trackdsl.query._conditions import compare as compare_values
from trackdsl.query._database import DatabaseReader, reader_for
from trackdsl.query._frame import frame_of, paths_of
from trackdsl.query._grammar import check_filter, language_of_mlflow, number_text
from trackdsl.query._paged import PagedReader
from trackdsl.query._runs import Question

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
