"""Asking real databases: what is read straight from their tables is what MLflow's client gives."""

from __future__ import annotations

from typing import Any

import pytest
from pandas.testing import assert_frame_equal

import trackdsl
from tests.conftest import client, deliver
from tests.integration.test_query import CONDITIONS, HOSTILE, record_zoo
from tests.services import Database
from trackdsl.query._database import DatabaseReader, reader_for
from trackdsl.query._frame import frame_of, paths_of
from trackdsl.query._paged import PagedReader
from trackdsl.query._runs import Question

FILTERS = (
    "",
    "params.model = 'rf'",
    "params.model = 'RF'",
    "params.model ILIKE 'R%'",
    "tags.team != 'a' AND metrics.accuracy > 0.1",
    "metrics.accuracy != 0.5",
    "attributes.run_name LIKE 'run%' AND status = 'FINISHED'",
    "datasets.name = 'd' AND metrics.accuracy > 0.1",
)
ORDERS: tuple[list[str], ...] = (
    [],
    ["accuracy DESC"],
    ["params.lr", "start"],
    ["tags.team", "metrics.inf DESC", "name"],
)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_database_is_read_as_mlflow_reads_it(kind: str, request: pytest.FixtureRequest) -> None:
    """Filters, orders, conditions, trees, histories and hostile values: the same by tables and by client."""
    database: Database = request.getfixturevalue(f"{kind}_database")
    uri = database.fresh(f"asked_{kind}")
    record_zoo(uri)
    deliver()
    mlflow = client(uri)
    quick, slow = reader_for(mlflow), PagedReader(mlflow)
    assert isinstance(quick, DatabaseReader)
    for where in FILTERS:
        for order in ORDERS:
            frames = []
            for reader in (quick, slow):
                asked = Question.of(reader, None, where or None, order, {})
                found = asked.ask(None)
                frames.append(frame_of(found, asked.names, paths_of(found, reader), numbers=True))
            assert_frame_equal(*frames)
    for conditions, expected in CONDITIONS:
        words: dict[str, Any] = dict(conditions)
        assert sorted(trackdsl.runs("churn", **words)["name"]) == expected, conditions
    assert [run.name for run in trackdsl.tree("root").walk()] == [
        "root",
        *(n for one in HOSTILE for n in (one, "leaf")),
    ]
    assert trackdsl.history("root", "loss")["step"].tolist() == list(range(5))
    assert trackdsl.best("churn", "accuracy").name == "run-1"
