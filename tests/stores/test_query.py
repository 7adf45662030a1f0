"""Asking real databases: what is read straight from their tables is what MLflow's client gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pandas.testing import assert_frame_equal

import trackdsl
from tests.conftest import deliver
from tests.integration.test_query_conditions import CONDITIONS
from tests.run_zoo import HOSTILE, asked_in_a_process, record_zoo, through_mlflow
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
    "metrics.`val/loss` != 0.9 AND metrics.epochs > 0",
    "attributes.status ILIKE 'finish%' AND start_time > 1",
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
def test_a_database_is_read_as_mlflow_reads_it(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Filters, orders, conditions, trees, histories and hostile values are the same by tables and by client.

    The commands and functions that read them import no MLflow.
    """
    database: Database = request.getfixturevalue(f"{kind}_database")
    uri = database.fresh(f"asked_{kind}")
    record_zoo(uri)
    deliver()
    quick, slow = reader_for(uri), PagedReader(uri)
    assert isinstance(quick, DatabaseReader)
    for where in FILTERS:
        for order in ORDERS:
            frames = []
            for reader in (quick, through_mlflow(uri), slow):
                asked = Question.of(reader, None, where or None, order, {})
                found = asked.ask(None)
                frames.append(frame_of(found, asked.names, paths_of(found, reader), numbers=True))
            assert_frame_equal(frames[0], frames[2])
            assert_frame_equal(frames[1], frames[2])
    for conditions, expected in CONDITIONS:
        arguments: dict[str, Any] = dict(conditions)
        assert sorted(trackdsl.runs("churn", **arguments)["name"]) == expected, conditions
    assert [run.name for run in trackdsl.tree("root").walk()] == [
        "root",
        *(n for one in HOSTILE for n in (one, "leaf")),
    ]
    assert trackdsl.history("root", "loss")["step"].tolist() == list(range(5))
    assert trackdsl.best("churn", "accuracy").name == "run-1"
    assert asked_in_a_process(uri, tmp_path, "mlflow")[0] == "[]"
