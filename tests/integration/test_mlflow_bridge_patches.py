"""How MLflow is patched for the runs of scopes: imported late, with other private names, replaced in a test, traced."""

from __future__ import annotations

import asyncio
import functools
import re
import threading
from pathlib import Path

import pytest

import trackdsl
from tests.conftest import StartProgram, all_runs, client, wait_until
from tests.plain_mlflow import artifacts, run_threads
from trackdsl import stage

mlflow = pytest.importorskip("mlflow")


def traced(uri: str) -> dict[str, str]:
    """The name of each trace, and the run that it is attached to."""
    mlflow.flush_trace_async_logging()
    # Of MLflow 3.1 beside a newer OpenTelemetry the spans cannot be read; what a trace is attached to can.
    found = client(uri).search_traces(experiment_ids=["0"], include_spans=False)
    return {
        trace.info.tags["mlflow.traceName"]: trace.info.request_metadata.get("mlflow.sourceRun", "") for trace in found
    }


def test_traces(here: str) -> None:
    """Traces and spans attach to the run of the scope around them, in tasks and threads that run at once."""
    ids: dict[str, str] = {}
    mlflow.set_tracking_uri(here)

    async def one(name: str) -> None:
        with stage(name) as run:
            await asyncio.sleep(0)
            with mlflow.start_span(name):
                await asyncio.sleep(0)
            ids[name] = run.run_id

    async def both() -> None:
        await asyncio.gather(one("task0"), one("task1"))

    def thread(name: str, barrier: threading.Barrier) -> None:
        with stage(name) as run:
            barrier.wait()
            mlflow.trace(lambda: barrier.wait(), name=name)()
            ids[name] = run.run_id

    asyncio.run(both())
    barrier = threading.Barrier(2)
    run_threads(*(functools.partial(thread, f"thread{i}", barrier) for i in range(2)))
    with stage("s"), mlflow.start_run(run_name="plain") as plain:
        with mlflow.start_span("plain"):
            pass
        ids["plain"] = plain.info.run_id
    assert wait_until(lambda: traced(here) == ids and ids, "the traces")
    assert len(set(ids.values())) == 5


IMPORTED_INSIDE = """
    import os, subprocess, sys, trackdsl

    OTHER = "import sys, mlflow, trackdsl\\nwith trackdsl.attach(sys.argv[1]): mlflow.log_metric('attached', 1)"

    @trackdsl.stage
    def work(x):
        assert "mlflow" not in sys.modules
        import mlflow
        from mlflow import log_metric, start_run
        log_metric("m", x)
        with start_run(run_name="plain"):
            log_metric("m", 2 * x)
        pid = os.fork()
        if pid == 0:
            log_metric("forked", x)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        mlflow.log_param("written", "plain")
        trackdsl.log_params({"written": "ours", "other": 1})
        with start_run(run_name="open"):
            pid = os.fork()
            if pid == 0:
                log_metric("forked", x)
                mlflow.end_run("FAILED")
                log_metric("ended", x)
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
            assert mlflow.MlflowClient().get_run(mlflow.active_run().info.run_id).info.status == "RUNNING"
        subprocess.run([sys.executable, "-c", OTHER, trackdsl.capture().to_text()], check=True)

    work(3)
"""


@pytest.mark.slow
def test_mlflow_imported_inside_a_scope(start: StartProgram, sqlite_store: str) -> None:
    """MLflow may be imported first inside a scope; other processes write to the same runs, and end none of them."""
    program = start(IMPORTED_INSIDE, TRACKDSL_MODE="online")
    code, _, err = program.finish()
    assert code == 0, err
    runs = {run.info.run_name: run for run in all_runs(sqlite_store)}
    assert runs["work"].data.metrics == {"m": 3, "forked": 3, "ended": 3, "attached": 1}
    # Here a process delivers, which hears of what plain MLflow has written only when it is refused the same.
    assert runs["work"].data.params == {"x": "3", "written": "plain", "other": "1"}
    assert runs["work"].data.tags["trackdsl.param.later.written"] == "ours"
    assert "trackdsl.refused.written" not in runs["work"].data.tags
    assert runs["plain"].data.metrics == {"m": 6}
    assert runs["plain"].data.tags["mlflow.parentRunId"] == runs["work"].info.run_id
    assert runs["open"].data.metrics == {"forked": 3}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


WAITING = """
    import sys, time, trackdsl

    starts = []

    def hear(event, args):
        if event == "subprocess.Popen" and "trackdsl.delivery" in args[1]:
            starts.append(args)

    sys.addaudithook(hear)
    begun = time.monotonic()
    with trackdsl.stage("waits") as run:
        run.wait_for_mlflow(120)
    print(len(starts), time.monotonic() - begun)
"""


@pytest.mark.slow
def test_waiting_starts_no_crowd(start: StartProgram, sqlite_store: str) -> None:
    """Waiting for a run checks at most once a second whether a delivery process has to be started."""
    code, out, err = start(WAITING, TRACKDSL_MODE="online").finish()
    assert code == 0, err
    starts, seconds = out.split()
    assert 1 <= int(starts) <= 2 + float(seconds)
    assert {run.info.status for run in all_runs(sqlite_store)} == {"FINISHED"}


#: Gives every private name that the bridge knows another one, before MLflow is executed.
RENAMED = """
    import sys, importlib.abc, importlib.machinery

    NAMES = {
        "mlflow.tracking.fluent": ["_active_run_stack", "_get_latest_active_run"],
        "mlflow.tracking._tracking_service.utils": ["MLFLOW_TRACKING_URI"],
        "mlflow.utils.autologging_utils": ["_training_sessions"],
    }

    class Renamed(importlib.machinery.SourceFileLoader):
        def get_code(self, fullname):
            text = self.get_source(fullname)
            for name in NAMES[fullname]:
                assert name in text
                text = text.replace(name, name + "_2")
            text = text.replace("import MLFLOW_ENABLE_WORKSPACES, MLFLOW_TRACKING_URI_2",
                "import MLFLOW_ENABLE_WORKSPACES, MLFLOW_TRACKING_URI as MLFLOW_TRACKING_URI_2")
            text = text.replace("import MLFLOW_TRACKING_URI_2",
                "import MLFLOW_TRACKING_URI as MLFLOW_TRACKING_URI_2")
            return compile(text, self.path, "exec")

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            spec = None
            if name in NAMES:
                spec = importlib.machinery.PathFinder.find_spec(name, path)
                spec.loader = Renamed(name, spec.origin)
            elif name in ("mlflow.tracing.processor.base_mlflow", "mlflow.tracing.utils", "mlflow.spark.autologging",
                          "mlflow.tracking._model_registry.fluent"):
                spec = importlib.machinery.PathFinder.find_spec(name, path)
                spec.loader = Users(name, spec.origin)
            return spec

    class Users(importlib.machinery.SourceFileLoader):
        def get_code(self, fullname):
            text = self.get_source(fullname).replace("_get_latest_active_run", "_get_latest_active_run_2")
            return compile(text, self.path, "exec")

    sys.meta_path.insert(0, Finder())
    import threading, contextvars, asyncio, mlflow, trackdsl
    from mlflow import log_metric, start_run
    mlflow.set_tracking_uri(URI)

    async def task(name):
        with trackdsl.stage(name):
            await asyncio.sleep(0)
            mlflow.log_param("of", name)
            mlflow.log_params({"q": 1})
            mlflow.set_tag("t", name)
            mlflow.set_tags({"u": name})
            await asyncio.sleep(0)
            with start_run(run_name=name + "-plain"):
                log_metric("m", 1)
                trackdsl.log_metric("n", 1)
                with trackdsl.stage(name + "-child"):
                    mlflow.log_metrics({"x": 1})
            mlflow.end_run()
            mlflow.log_text("text", "a.txt")
            assert mlflow.active_run().info.run_id == trackdsl.current_run().run_id

    async def both():
        await asyncio.gather(task("a"), task("b"))

    with trackdsl.stage("root"):
        asyncio.run(both())
        thread = threading.Thread(target=contextvars.copy_context().run, args=[log_metric, "thread", 1])
        thread.start()
        thread.join()
    assert mlflow.active_run() is None
    trackdsl.flush()
"""


@pytest.mark.slow
def test_without_the_private_names(start: StartProgram, sqlite_store: str) -> None:
    """Where MLflow's private names have moved, the main calls land right by public ways, and one line says so."""
    program = start(RENAMED.replace("URI)", f"{sqlite_store!r})", 1), TRACKDSL_MODE="online")
    code, _, err = program.finish()
    assert code == 0, err
    assert err.count("does not know this version of MLflow") == 1
    for name in ("_active_run_stack", "_get_latest_active_run", "MLFLOW_TRACKING_URI", "_training_sessions"):
        assert name in err
    runs = {run.info.run_name: run for run in all_runs(sqlite_store)}
    names = {run.info.run_id: name for name, run in runs.items()}
    parents = {name: names.get(run.data.tags.get("mlflow.parentRunId")) for name, run in runs.items()}
    assert parents == {
        "root": None, "a": "root", "b": "root", "a-plain": "a", "b-plain": "b", "a-child": "a-plain",
        "b-child": "b-plain",
    }  # fmt: skip
    for name in ("a", "b"):
        assert runs[name].data.params == {"of": name, "q": "1"}
        assert (runs[name].data.tags["t"], runs[name].data.tags["u"]) == (name, name)
        assert artifacts(sqlite_store, runs[name]) == {"a.txt"}
        assert (runs[f"{name}-plain"].data.metrics, runs[f"{name}-child"].data.metrics) == ({"m": 1, "n": 1}, {"x": 1})
    assert runs["root"].data.metrics == {"thread": 1}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_active_runs_are_plain_values(here: str) -> None:
    """What `active_run` gives can be copied and pickled as MLflow's own, without anything of ours in it."""
    import copy
    import pickle

    with stage("s") as run, mlflow.start_run(run_name="opened") as opened:
        for active, id_ in ((opened, opened.info.run_id), (mlflow.active_run(), opened.info.run_id)):
            assert pickle.loads(pickle.dumps(active)).info.run_id == copy.deepcopy(active).info.run_id == id_
        mlflow.end_run()
        active = mlflow.active_run()
        for same in (pickle.loads(pickle.dumps(active)), copy.deepcopy(active)):
            assert type(same) is mlflow.ActiveRun
            assert same.info.run_id == run.run_id
            assert same.data.tags["trackdsl.id"] == run.id
        assert b"trackdsl.mlflow_bridge" not in pickle.dumps(active.info)
        assert dict(active.info)["run_name"] == "s"
        assert active.info == active.info == mlflow.active_run().info
        assert mlflow.get_run(run.run_id).info == active.info


def test_substitutes_for_mlflow(start: StartProgram) -> None:
    """An object that replaces MLflow in a test is left alone, and nothing is logged."""
    program = start("""
        import sys, types, trackdsl
        sys.modules["mlflow"] = types.ModuleType("mlflow")
        with trackdsl.stage("s"):
            import mlflow
        assert not vars(mlflow).get("start_run")
    """)
    assert program.finish() == (0, "", "")


def test_private_names_are_in_one_module() -> None:
    """No other module of the bridge uses a name of MLflow's that begins with an underscore."""
    folder = Path(trackdsl.__file__).parent / "mlflow_bridge"
    pattern = re.compile(
        r"\bmlflow(\.\w+)*\._[a-z]|from mlflow\S* import .*\b_"
        r"|_run_stack|_latest_active|_training_sessions|_session_stack|MLFLOW_TRACKING_URI"
    )
    users = {path.name for path in folder.glob("*.py") if pattern.search(path.read_text())}
    assert users == {"_private.py"}


def test_functions_stay_what_they_are(here: str) -> None:
    """The wrapped functions of MLflow's keep their names and signatures, pickle, and know wrong arguments."""
    import inspect
    import pickle

    for name in ("active_run", "start_run", "end_run", "set_experiment"):
        function = getattr(mlflow, name)
        assert function is getattr(mlflow.tracking.fluent, name)
        assert pickle.loads(pickle.dumps(function)) is function
        assert inspect.signature(function) == inspect.signature(function.__wrapped__)
    with stage("s"), pytest.raises(TypeError, match="bogus"):
        mlflow.start_run(bogus=1)


def test_the_parts_that_wait_for_delivery_themselves_exist() -> None:
    """Each part of trackdsl whose own reads of MLflow do not wait is a module: a moved one would wait for itself."""
    from importlib.util import find_spec

    from trackdsl.mlflow_bridge._own_writes import OURS

    assert [name for name in OURS if find_spec(name.rstrip(".")) is None] == []
