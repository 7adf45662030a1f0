"""Both sinks leave equal rows in database servers, and what a column cannot hold is dealt with alike."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

import trackdsl
from tests.conftest import client, examples
from tests.equal_stores import PROGRAM, DrawnProgram, delivered_both_ways
from tests.integration.test_database_sink import record_everything
from trackdsl import experiment, stage
from trackdsl.delivery.mlflow_client._sqlite_creation import release
from trackdsl.store_format.limits import unescape_key


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def uri(request: pytest.FixtureRequest) -> str:
    """A database of its own, with its tables made, on a server of each kind."""
    database = request.getfixturevalue(f"{request.param}_database")
    made: str = database.fresh(f"rows_{os.urandom(3).hex()}")
    mlflow = client(made)
    mlflow.search_experiments()
    release(mlflow)  # MLflow would keep the artifact folder of the present working directory.
    return made


def test_both_sinks_leave_equal_rows(uri: str, tmp_path: Path) -> None:
    """From the same journals, the two sinks leave equal stores, but for the ids of runs."""
    ours, theirs = delivered_both_ways(record_everything, uri, tmp_path)

    assert len(ours["runs"]) == 6
    for table, rows in theirs.items():
        assert rows, table
        assert ours[table] == rows, table


@pytest.mark.usefixtures("no_pauses")
@hypothesis_settings(deadline=None, max_examples=examples(20))
@given(operations=PROGRAM)
def test_both_sinks_leave_equal_rows_of_any_program(uri: str, operations: list[Any]) -> None:
    """Drawn programs leave equal rows too: odd numbers and texts, resumed and killed runs, several processes."""
    with tempfile.TemporaryDirectory() as folder:
        trackdsl.configure(spool=f"{folder}/spool")
        ours, theirs = delivered_both_ways(lambda: DrawnProgram().perform(operations), uri, Path(folder))
    assert ours == theirs


@pytest.mark.usefixtures("no_pauses")
def test_both_sinks_deal_alike_with_what_columns_cannot_hold(uri: str, tmp_path: Path) -> None:
    """Names and datasets that do not fit a column lose no run, with either sink."""

    def record() -> None:
        with experiment("n" * 300):
            pass
        with experiment("a\0b"):
            pass
        with experiment("odd"), stage("long") as run:
            run.set_tag("mlflow.runName", "r" * 400)
            run.log_input("s" * 70_000, "c" * 600, name="d" * 600)
            run.log_input("text", name="d\0")
            run.log_params({f"p{number}": "🚀" * 6000 for number in range(150)})
            for number in range(300):
                run.set_tag(f"t{number}", "🚀" * 8000)

    ours, theirs = delivered_both_ways(record, uri, tmp_path)
    assert len(ours["runs"]) == 4
    assert ours == theirs


@pytest.mark.usefixtures("no_pauses")
def test_keys_that_a_collation_takes_for_one_all_arrive(uri: str, tmp_path: Path) -> None:
    """Keys that a collation takes for equal (`ß` as `s` or `ss`, all letters beyond 65,536) all arrive."""
    keys = ["ß", "\u017f", "s", "ss", "SS", "ø", "o", "\u0661", "1", "\U0001d400", "\U0001d401"]

    def record() -> None:
        with experiment("collation") as run:
            run.log_params(dict.fromkeys(keys, 1))
            run.set_tags(dict.fromkeys(keys, "1"))
            run.log_metrics(dict.fromkeys(keys, 1.0))

    ours, theirs = delivered_both_ways(record, uri, tmp_path)
    for table in ("params", "tags", "metrics", "latest_metrics"):
        found = {unescape_key(row["key"]) for row in ours[table]}
        assert found >= set(keys), table
    assert ours == theirs
