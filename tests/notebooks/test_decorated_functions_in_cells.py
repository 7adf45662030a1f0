"""Decorated functions that cells define: redefined, reloaded, sent to other processes; loops and sessions of cells."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from tests.conftest import all_runs, deliver
from tests.notebooks.kernels import Kernel
from trackdsl._decorate.source import site_of

MODULE = "from trackdsl import stage\n\n@stage\ndef load(rows):\n    return rows * {}\n"


@pytest.fixture
def prepared(delivering: Kernel) -> Kernel:
    """The kernel with what the cells use."""
    delivering.ok("from trackdsl import experiment, log_metric, stage, start_logging")
    return delivering


@pytest.mark.slow
def test_a_function_that_a_cell_redefines(prepared: Kernel, sqlite_store: str) -> None:
    """A function that a cell redefines stays the same stage, with another source."""
    for factor in (1, 2, 2):
        prepared.ok(f"@stage\ndef fit(lr):\n    return lr * {factor}\nfit(0.1);")
    prepared.manager.shutdown_kernel()
    deliver(sqlite_store)
    calls = [json.loads(run.data.tags["trackdsl.call"]) for run in all_runs(sqlite_store)]
    assert {call["function"] for call in calls} == {"__main__.fit"}
    assert {run.info.run_name for run in all_runs(sqlite_store)} == {"fit"}
    assert len({call["source_hash"] for call in calls}) == 2, calls


def test_a_reloaded_function(kernel: Kernel, tmp_path: Path) -> None:
    """`%autoreload` brings the new code, and it is tracked as before."""
    (tmp_path / "my_steps.py").write_text(MODULE.format(1))
    kernel.ok(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n%load_ext autoreload\n%autoreload 2")
    try:
        kernel.ok("import my_steps\nfrom my_steps import load")
        assert kernel.value("[load(3), my_steps.load(3)]") == [3, 3]
        (tmp_path / "my_steps.py").write_text(MODULE.format(100))
        assert kernel.value("[load(3), my_steps.load(3)]") == [300, 300]
    finally:
        kernel.ok("%autoreload 0\nsys.path.pop(0); del sys.modules['my_steps']")
    assert [run.name for run in kernel.recorded()] == ["load"] * 4


def test_the_source_of_a_reloaded_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reload, the hash is that of the source which the file has now."""
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "reloaded_steps.py"
    path.write_text(MODULE.format(1))
    module = importlib.import_module("reloaded_steps")
    before = site_of(module.load)
    path.write_text(MODULE.format(1000))
    assert site_of(importlib.reload(module).load)[2] != before[2]


POOLS = {
    "dask": "from distributed import Client\n"
    "with Client(n_workers=1, threads_per_worker=1, dashboard_address=None) as client:\n"
    "    found = client.gather(client.map(fit, range(3)))",
    "fork": "import concurrent.futures as f, multiprocessing as m\n"
    "with f.ProcessPoolExecutor(2, m.get_context('fork')) as pool: found = list(pool.map(fit, range(3)))",
    "loky": "from joblib import Parallel, delayed\nfound = Parallel(2)(delayed(fit)(n) for n in range(3))",
    "cloudpickle": "import cloudpickle, pathlib, subprocess, sys\n"
    "pathlib.Path('f').write_bytes(cloudpickle.dumps(fit))\n"
    'code = \'import cloudpickle; fit = cloudpickle.load(open("f", "rb")); print([fit(n) for n in range(3)])\'\n'
    "found = eval(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout)",
}


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS)
def test_functions_of_cells_in_other_processes(prepared: Kernel, sqlite_store: str, pool: str) -> None:
    """cloudpickle sends a decorated function that a cell defines, whose runs are below the run that sent it."""
    if pool == "dask":
        pytest.importorskip("distributed")
    prepared.ok("@stage\ndef fit(n):\n    log_metric('n', n)\n    return n")
    prepared.ok(f"with experiment('e'):\n    {POOLS[pool].replace(chr(10), chr(10) + '    ')}")
    assert prepared.value("found") == [0, 1, 2]
    prepared.manager.shutdown_kernel()
    deliver(sqlite_store)
    runs = all_runs(sqlite_store)
    fits = [run for run in runs if run.info.run_name == "fit"]
    assert sorted(run.data.metrics["n"] for run in fits) == [0, 1, 2]
    (root,) = [run for run in runs if run.info.run_name == "e"]
    if pool != "cloudpickle":  # A program of its own knows no run around it.
        assert {run.data.tags["mlflow.parentRunId"] for run in fits} == {root.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.parametrize("stage", [False, True])
@pytest.mark.parametrize("threads", [False, True])
def test_one_bar(kernel: Kernel, threads: bool, stage: bool) -> None:
    """A loop draws one bar, also in a thread; none where the card of the cell shows its progress."""
    kernel.ok("import threading\nfrom trackdsl import steps\ndef loop():\n    for _ in steps(range(3), 'epoch'): pass")
    call = "thread = threading.Thread(target=loop); thread.start(); thread.join()" if threads else "loop()"
    answer = kernel.run(f"%%stage fit\n{call}" if stage else call)
    assert answer.status == "ok"
    streams = "".join(one["content"]["text"] for one in answer.messages if one["msg_type"] == "stream")
    assert streams.count("3/3") == (0 if stage else 1), streams
    assert "Warning" not in streams
    if stage:
        assert "epoch 3/3" in answer.texts[-1]


@pytest.mark.slow
def test_a_session_across_cells(prepared: Kernel, sqlite_store: str) -> None:
    """A session stays the root of stages in later cells, also of those that await, until the kernel ends."""
    prepared.ok(
        "import asyncio\nasync def fit():\n    await asyncio.sleep(0)\n    with stage('fit'): log_metric('m', 1)"
    )
    prepared.ok("run = start_logging('churn')")
    prepared.ok("with stage('load'): pass")
    prepared.ok("await asyncio.gather(fit(), fit())")
    prepared.ok("with stage('last'):\n    await asyncio.sleep(0)")
    prepared.ok("%load_ext trackdsl")
    prepared.ok("%%stage magic --quiet\nawait asyncio.sleep(0)\nwith stage('inner'): await asyncio.sleep(0)")
    prepared.manager.shutdown_kernel()
    deliver(sqlite_store)
    runs = {run.info.run_name: run for run in all_runs(sqlite_store)}
    assert len(all_runs(sqlite_store)) == 7
    below = {name: runs[name].data.tags["mlflow.parentRunId"] for name in ("load", "fit", "last", "magic")}
    assert set(below.values()) == {runs["churn"].info.run_id}
    assert runs["inner"].data.tags["mlflow.parentRunId"] == runs["magic"].info.run_id
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
