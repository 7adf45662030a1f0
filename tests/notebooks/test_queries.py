"""What queries and commands show of cells that were executed again, and `%trackdsl` in a kernel that delivers."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import deliver, run_command
from tests.notebooks.kernels import Kernel
from trackdsl.query._database import reader_for
from trackdsl.query._paged import PagedReader
from trackdsl.query._runs import Question

BY = "trackdsl.superseded_by"


@pytest.fixture
def executed_again(store: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A root with two executions of the cell `fit`, the older one delivered before it was superseded."""
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", store)
    name = f"again-{uuid.uuid4()}"  # Tests share a server.
    runs = []
    with trackdsl.experiment(name, run_name=f"root-{name}"):
        for acc in (0.9, 0.5):
            with trackdsl.stage("fit") as run:
                run.log_metric("acc", acc)
                with trackdsl.stage("inner") as inner, trackdsl.stage("deep"):
                    inner.log_metric("acc", acc)
            deliver(store)
            runs.append(run)
        runs[0].set_tag(BY, runs[1].id)
    deliver(store)
    return store, name, runs


def test_superseded_runs_are_left_out(executed_again: Any) -> None:
    """`runs`, `best`, `tree` leave superseded runs out with all below them, unless they are asked for."""
    store, again, (older, newer) = executed_again
    shown = trackdsl.runs(again)
    assert sorted(shown["name"]) == ["deep", "fit", "inner", f"root-{again}"]
    assert set(shown[shown["name"] == "fit"]["id"]) == {newer.id}
    assert len(trackdsl.runs(again, superseded=True)) == 7
    assert list(trackdsl.runs(again, max_results=2, order_by="acc DESC")["metrics.acc"]) == [0.5, 0.5]
    assert trackdsl.best(again, "acc").value == 0.5
    assert trackdsl.best(again, "acc", superseded=True).value == 0.9
    assert [run.name for run in trackdsl.tree(f"root-{again}").walk()] == [f"root-{again}", "fit", "inner", "deep"]
    assert len(list(trackdsl.tree(f"root-{again}", superseded=True).walk())) == 7
    assert trackdsl.tree(older).id == older.id
    older.set_tag(BY, "")
    deliver(store)
    assert len(trackdsl.runs(again)) == 7


def test_a_name_means_a_run_that_counts(executed_again: Any) -> None:
    """`compare` takes a name for the newest run that counts; an id may name any run."""
    store, again, (older, newer) = executed_again
    for run in (older, newer):
        run.set_tag("mlflow.runName", f"fit-{again}")
    newer.set_tag(BY, "undone")
    older.set_tag(BY, "")
    deliver(store)
    ids = {run.id: run.run_id for run in trackdsl.runs(again, superseded=True).itertuples()}
    assert trackdsl.compare(f"fit-{again}", newer).runs == (ids[older.id], ids[newer.id])
    assert trackdsl.compare(f"fit-{again}", older, superseded=True).runs == (ids[newer.id], ids[older.id])


def test_both_readers_agree(executed_again: Any) -> None:
    """The tables of a database and MLflow's client give the same runs, in the same order."""
    store, again, _ = executed_again
    found = [
        [run.run_id for run in Question.of(reader, again, None, None, {}, superseded=all_).ask(most)]
        for all_ in (False, True)
        for most in (None, 3)
        for reader in (reader_for(store), PagedReader(store))
    ]
    assert found[0::2] == found[1::2]
    assert [len(each) for each in found] == [4, 4, 3, 3, 7, 7, 3, 3]


def test_commands_leave_them_out(executed_again: Any) -> None:
    """`trackdsl ls` and `trackdsl tree` leave superseded runs out, unless `--superseded` is given."""
    store, again, _ = executed_again
    counts = [
        len(json.loads(run_command("ls", again, "--json", "--tracking-uri", store, *more).stdout)["runs"])
        for more in ((), ("--superseded",))
    ]
    assert counts == [4, 7]
    trees = [
        run_command("tree", f"root-{again}", "--tracking-uri", store, *more).stdout.count("fit")
        for more in ((), ("--superseded",))
    ]
    assert trees == [1, 2]


@pytest.mark.slow
def test_commands_of_the_notebook(tmp_path: Path, sqlite_store: str) -> None:
    """`tree`, `status`, `last` and `compare` show this notebook's runs, or say that there are none."""
    kernel = Kernel(tmp_path, TRACKDSL_TRACKING_URI=sqlite_store, TRACKDSL_MODE="online")
    try:
        kernel.ok("%load_ext trackdsl")
        for command in ("last", "compare", "undo"):
            assert kernel.ok(f"%trackdsl {command}").strip() == "No cell of this notebook is a stage yet."
        assert kernel.ok("%trackdsl tree").strip() == "This notebook has no runs yet."
        kernel.ok("%experiment churn")
        kernel.ok("%%stage load\nrows = 3", cell="a")
        once = "The cell of 'load' was executed once, so there is no earlier run."
        assert kernel.ok("%trackdsl compare").strip() == once
        for lr in (1, 2):
            kernel.ok(f"%%stage fit lr={lr} --metrics acc\nacc = lr / 4", cell="b")
        shown = kernel.run("%trackdsl tree")
        assert shown.texts[-1].count("fit") == shown.texts[-1].count("load") == 1
        assert "text/html" in str(shown.messages)
        assert "acc 0.5" in shown.texts[-1]
        last = kernel.run("%trackdsl last")
        assert last.text.startswith("fit  FINISHED")
        assert "<div" in last.messages[-1]["content"]["data"]["text/html"]
        compared = kernel.ok("%trackdsl compare")
        assert "lr" in compared
        assert "0.25" in compared
        kernel.ok("import trackdsl; trackdsl.flush(60)")
        assert "Nothing is waiting" in kernel.ok("%trackdsl status")
        kernel.ok("%trackdsl undo")
        assert "acc 0.25" in kernel.ok("%trackdsl tree") == kernel.ok("%trackdsl")
        kernel.manager.shutdown_kernel()
    finally:
        kernel.end()


def test_hosts_with_differences(kernel: Kernel) -> None:
    """In Colab and Databricks, loading prints what is not known there and where runs go; elsewhere nothing."""
    load = "%reload_ext trackdsl"
    assert kernel.ok(load, cell="c") == ""
    kernel.ok("import os; os.environ['COLAB_RELEASE_TAG'] = 'x'; kept = os.environ.pop('TRACKDSL_TRACKING_URI', None)")
    try:
        printed = kernel.ok(load)
        assert printed.startswith("trackdsl in Colab: The ids of cells are not known")
        assert "sqlite:///mlflow.db in " in printed
        assert "ids of cells" not in kernel.ok(load, cell="c")
        kernel.ok("os.environ['TRACKDSL_TRACKING_URI'] = 'https://me:hunter2-hunter2@host'")
        assert "hunter2" not in kernel.ok(load)
    finally:
        kernel.ok("del os.environ['COLAB_RELEASE_TAG']; os.environ.pop('TRACKDSL_TRACKING_URI', None)")
        kernel.ok("kept and os.environ.update(TRACKDSL_TRACKING_URI=kept)")
