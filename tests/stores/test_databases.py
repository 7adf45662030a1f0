"""Databases that several machines write to, and processes that are killed while they do."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import (
    StartProgram,
    client,
    deliver,
    end_delivery,
    kill_delivery,
    points,
    runs_made,
    sync,
    wait_until,
)
from tests.services import Database
from tests.stores import contract
from trackdsl import experiment, stage

RUNS, POINTS = 40, 120
PROGRAM = f"""
    import sys
    from trackdsl import experiment, stage

    with experiment(sys.argv[1]):
        for number in range({RUNS}):
            with stage(f"part-{{number}}", number=number) as run:
                for step in range({POINTS}):
                    run.log_metric("loss", step / 3, step=step)
                run.set_tag("one", number)
                run.log_text(f"text {{number}}", "text.txt")
"""


@pytest.fixture(params=["postgresql", "mariadb"])
def database(request: pytest.FixtureRequest) -> Database:
    """A database server, of each kind."""
    found: Database = request.getfixturevalue(f"{request.param}_database")
    return found


def _check_parts(uri: str, name: str, programs: int = 1) -> None:
    """Every run of `PROGRAM` is there once, with all it has."""
    mlflow = client(uri)
    runs = mlflow.search_runs([mlflow.get_experiment_by_name(name).experiment_id], max_results=1000)
    assert len({run.data.tags["trackdsl.id"] for run in runs}) == len(runs)
    parts = [run for run in runs if run.data.params]
    assert len(runs) - len(parts) == programs
    assert Counter(run.data.params["number"] for run in parts) == {str(n): programs for n in range(RUNS)}
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in parts:
        assert run.data.tags["one"] == run.data.params["number"]
        assert points(run, "loss", uri) == [(step, step / 3) for step in range(POINTS)]
    for run in parts[:: RUNS // 4]:
        (file,) = mlflow.list_artifacts(run.info.run_id)
        assert (file.path, file.is_dir) == ("text.txt", False)


@pytest.mark.long
def test_kills_of_delivery_lose_nothing_and_double_nothing(
    database: Database, start: StartProgram, tmp_path: Path
) -> None:
    """Delivery that is killed three times in the middle ends with every run, point and file there once."""
    name = contract.fresh_name("killed")
    spool = tmp_path / "spool"
    code, _, errors = start(PROGRAM, name, TRACKDSL_TRACKING_URI=database.uri).finish()
    assert code == 0, errors
    for made in (2, 11, 23):
        kill_delivery(spool, database.uri, made)
    assert runs_made(spool) < RUNS
    done = sync()
    assert done.returncode == 0, done.stderr
    _check_parts(database.uri, name)


@pytest.mark.long
def test_machines_share_a_fresh_database(database: Database, start: StartProgram, tmp_path: Path) -> None:
    """Four machines at once make the tables and the experiment of an empty database, and all their runs arrive."""
    name = contract.fresh_name("machines")
    uri = database.fresh(f"fresh_{os.urandom(3).hex()}")
    spools = [tmp_path / f"machine-{number}" for number in range(4)]
    try:
        programs = [
            start(PROGRAM, name, TRACKDSL_TRACKING_URI=uri, TRACKDSL_MODE="online", TRACKDSL_SPOOL=str(spool))
            for spool in spools
        ]
        for program in programs:
            code, _, errors = program.finish()
            assert code == 0, errors
        for spool in spools:  # On a busy machine programs leave the rest to delivery.
            wait_until(lambda spool=spool: not list((spool / "journals").iterdir()), "everything to be delivered")
    finally:
        for spool in spools:
            end_delivery(spool)
    _check_parts(uri, name, programs=len(spools))
    for spool in spools:
        log = (spool / "delivery.log").read_text()
        assert "WARNING trackdsl" not in log, log
        assert "delivery waits" not in log, log


#: Keys that MySQL treats as equal, and strings that some databases reject.
KEYS = {"lr": 1, "LR": 2, "Lr ": 3, "é": 4, "e": 5, "layer_x0041_": 6}
TEXTS = {"emoji": "🚀 ünï 日本語", "nul": "a\0b", "quotes": "'; DROP TABLE runs; -- \\ %s {} $1"}


def _record_odd_things(name: str, part: int) -> None:
    with experiment(name, tags={"Team": "a", "team": "b", "nul": "x\0y", "😀": "smile"}), stage(f"odd-{part}") as run:
        run.log_params(KEYS | TEXTS)
        run.log_metrics({key: float(value) for key, value in KEYS.items()})
        run.set_tags(KEYS | TEXTS)
        for step in range(1200):
            run.log_metric("LOSS", step, step=step)
            run.log_metric("loss", -step, step=step)


def _by_original(fields: dict[str, Any]) -> dict[str, Any]:
    from trackdsl.store_format.limits import unescape_key

    return {unescape_key(key): value for key, value in fields.items()}


@pytest.mark.parametrize("served", [False, True])
def test_keys_and_texts_that_a_database_does_not_take(
    database: Database, request: pytest.FixtureRequest, served: bool
) -> None:
    """Keys that a database takes for one, or does not store, are all there under names that lead back to them."""
    name = contract.fresh_name("odd")
    uri = database.uri
    if served:
        from tests.stores.conftest import TRACKING_STORES, Ask

        which = (
            "server with allowed hosts, mariadb and gcs"
            if "mysql" in uri
            else "server of four workers, postgresql and s3"
        )
        uri = TRACKING_STORES[which](Ask(request.getfixturevalue, request.getfixturevalue("services"), {})).uri
    contract.use(uri)
    _record_odd_things(name, 0)
    deliver()
    runs = contract.runs_of(uri, name)
    odd = runs["odd-0"]
    nul = "a\0b" if "mysql" in database.uri else "a\\x00b"
    texts = {key: str(value) for key, value in (KEYS | TEXTS).items()} | {"nul": nul}
    assert _by_original(odd.data.params) == texts
    assert {key: value for key, value in _by_original(odd.data.tags).items() if key in texts} == texts
    assert {key: value for key, value in _by_original(odd.data.metrics).items() if key in KEYS} == KEYS
    original = {"LOSS": 1, "loss": -1}
    for key in odd.data.metrics:
        if (sign := original.get(_by_original({key: 0}).popitem()[0])) is not None:
            assert points(odd, key, uri) == [(step, float(sign * step)) for step in range(1200)]
    if "mysql" not in database.uri:
        assert set(odd.data.params) >= {"lr", "LR", "Lr ", "é", "e"}  # Nothing is renamed without need.
        assert contract.files_of(uri, odd) == {f"trackdsl/{kind}/nul.txt": b"a\0b" for kind in ("params", "tags")}
    tags = _by_original(runs["root"].data.tags)
    assert (tags["Team"], tags["team"]) == ("a", "b")
    assert tags["nul"] in ("x\0y", "x\\x00y")
    assert not any("refused" in tag for run in runs.values() for tag in run.data.tags)


def test_a_database_that_is_away_holds_up_no_other_store(sqlite_store: str, tmp_path: Path) -> None:
    """Runs for a database that does not answer wait, and say why, while those of another store arrive."""
    from tests.conftest import free_port

    port = free_port()
    contract.use(f"postgresql://me:hunter2@127.0.0.1:{port}/runs")
    with stage("waits"):
        pass
    contract.use(sqlite_store)
    with stage("arrives"):
        pass
    done = sync(timeout=60)
    assert done.returncode == 1
    assert f"the database at 127.0.0.1:{port} cannot be reached" in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert [run.info.run_name for run in client(sqlite_store).search_runs(["0"])] == ["arrives"]
