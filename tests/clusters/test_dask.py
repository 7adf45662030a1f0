"""Dask: a task that is submitted in a stage is its child, on any worker and at any retry."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters.conftest import RunOnce
from tests.conftest import PATIENCE, Server, StartProgram, all_runs, delivery_pids, end_delivery, points, wait_until
from trackdsl import OptionError, stage
from trackdsl.store_format.call_tag import call_of

dask = pytest.importorskip("dask", reason="needs Dask: pip install 'trackdsl[dask]'")
pytest.importorskip("distributed", reason="needs Dask: pip install 'trackdsl[dask]'")

#: What lands below the stage of each name: name of the run, and its parameter `x`.
BELOW = {
    "submit": [("work", "1")],
    "map": [("work", "2"), ("work", "3")],
    "delayed": [("work", "4")],
    "compute": [("work", "5"), ("work", "6"), ("work", "7"), ("work", "8")],
    "persist": [("work", "10"), ("work", "9")],
    "futures": [("add", ""), ("work", "11"), ("work", "12")],
    "late": [("work", "5")],
    "forget": [("work", "13")],
    "async": [("work_async", "14")],
    "callback": [("called", "")],
    "run": [("work", "16"), ("work", "16"), ("work_async", "17"), ("work_async", "17")],
    "joblib": [("work", "18"), ("work", "19")],
    "bag": [("work", "1"), ("work", "2")],
    "array": [("block", ""), ("block", "")],
    "dataframe": [("block", ""), ("block", "")],
}


class Recorded:
    """What a program recorded, as MLflow holds it."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.reported = json.loads((folder / "reported.json").read_text())
        self.runs = all_runs(self.uri)

    def roots(self, name: str) -> list[Any]:
        return [run for run in self.runs if run.info.run_name == name and "mlflow.parentRunId" not in run.data.tags]

    def below(self, run: Any) -> list[Any]:
        return [child for child in self.runs if child.data.tags.get("mlflow.parentRunId") == run.info.run_id]

    def below_root(self, name: str) -> list[Any]:
        (root,) = self.roots(name)
        assert root.info.status == "FINISHED"
        return self.below(root)


@functools.cache
def recorded(folder: Path) -> Recorded:
    return Recorded(folder)


@pytest.fixture(params=["processes", "threads"])
def both(request: pytest.FixtureRequest, run_once: RunOnce) -> Recorded:
    """What a program recorded whose workers are processes, and one whose workers are threads of its own."""
    return recorded(run_once(f"dask-{request.param}", "dask_program.py", request.param))


@pytest.fixture
def processes(run_once: RunOnce) -> Recorded:
    return recorded(run_once("dask-processes", "dask_program.py", "processes"))


def shown(runs: list[Any]) -> list[tuple[str, str]]:
    assert all(run.info.status == "FINISHED" for run in runs)
    return sorted((run.info.run_name, run.data.params.get("x", "")) for run in runs)


def tags_of(runs: list[Any], *names: str) -> list[tuple[str, ...]]:
    return sorted(tuple(run.data.tags.get(f"trackdsl.{name}", "") for name in names) for run in runs)


@pytest.mark.parametrize("name", BELOW)
def test_what_is_submitted_in_a_stage_is_its_child(both: Recorded, name: str) -> None:
    """Every way to give work to a cluster makes children of the stage around it, with parameters and metrics."""
    below = both.below_root(name)
    assert shown(below) == BELOW[name]
    for run in below:
        if "x" in run.data.params:
            assert run.data.metrics["x"] == float(run.data.params["x"])


def test_nested_tasks_are_children_of_the_run_that_submits_them(both: Recorded) -> None:
    """A stage that submits from inside a task has its own children; a plain function passes on its submitter."""
    (outer,) = both.below_root("nested")
    assert shown(both.below(outer)) == [("work", "1"), ("work", "2")]
    # Through `worker_client`, and through a thread that the task starts.
    assert shown(both.below_root("from-plain")) == [("work", "3"), ("work", "4")]


def test_a_metric_of_a_plain_task_lands_on_the_submitter(both: Recorded) -> None:
    """What a task records outside any stage of its own goes to the run that submitted it, at the step of its loop."""
    (root,) = both.roots("plain")
    assert sorted(points(root, "plain", both.uri)) == [(0, 0.0), (1, 10.0), (2, 20.0)]


@pytest.mark.long  # The first test starts the cluster.
def test_methods_of_an_actor_belong_to_who_calls_them(both: Recorded) -> None:
    """A call of an actor is a child of the stage that makes it, not of the one that made the actor."""
    (calls,) = both.below_root("actor")
    assert tags_of(both.below(calls), "path") == [("actor/calls/grow",), ("actor/calls/grow_async",)]


def test_a_worker_serves_many_scopes(both: Recorded) -> None:
    """Nothing leaks from task to task: not of the scope before, nor of the one in which the cluster was started."""
    for name in ("one", "two", "three"):
        for root in both.roots(name):
            (child,) = both.below(root)
            assert child.data.tags["trackdsl.task"].startswith(name)
    roots = [run.data.tags.get("trackdsl.task", "")[:4] for run in both.roots("work")]
    # Those without a task were begun by `Client.run`, outside of any.
    assert sorted(roots) == ["", "", *["none"] * 5]
    assert both.below_root("maker") == []
    # These two ran at the same time.
    for name in ("meet-a", "meet-b"):
        (child,) = both.below_root(name)
        assert child.data.params["name"] == name


def test_dask_sees_the_function_as_it_was(both: Recorded) -> None:
    """Keys are named after the function, and a call that was made before is not made again."""
    assert both.reported == {"name": "work", "same": True, "pure": True}
    assert len(both.below_root("names")) == 1


def test_every_attempt_is_a_run(both: Recorded) -> None:
    """A task that is retried has a run for each attempt, tagged with its number and the task's key."""
    by_task: dict[str, list[Any]] = {}
    for run in both.below_root("retries"):
        by_task.setdefault(run.data.tags["trackdsl.task"], []).append(run)
    assert len(by_task) == 2
    for runs in by_task.values():
        status = {run.data.tags["trackdsl.attempt"]: run.info.status for run in runs}
        assert status == {"1": "FAILED", "2": "FAILED", "3": "FINISHED"}


def test_a_worker_that_is_killed(processes: Recorded) -> None:
    """The run of a worker that is killed is `KILLED`, the second attempt is another run, the submitter continues."""
    runs = processes.below_root("killed")
    status = {run.data.tags["trackdsl.attempt"]: run.info.status for run in runs}
    assert status == {"1": "KILLED", "2": "FINISHED"}
    assert len({run.data.tags["trackdsl.task"] for run in runs}) == 1


def test_a_result_that_is_lost_is_computed_again(processes: Recorded) -> None:
    """A task whose result died with its worker runs once more, as another attempt."""
    assert tags_of(processes.below_root("recomputed"), "attempt") == [("1",), ("2",)]


@pytest.mark.parametrize("scheduler", ["threads", "processes", "synchronous"])
def test_schedulers_without_a_cluster(processes: Recorded, scheduler: str) -> None:
    """Dask's own schedulers keep the scope as well."""
    assert shown(processes.below_root(scheduler)) == [("work", "1"), ("work", "2")]


def test_an_asynchronous_client(processes: Recorded) -> None:
    """Tasks of an event loop that submit at the same time have each their own children."""
    for x in ("1", "2"):
        assert shown(processes.below_root(f"task-{x}")) == [("work", x)]


def test_patches_go_with_the_last_scope() -> None:
    """If no worker runs in this process, the patches of Dask are removed when the last scope closes."""
    from distributed import Client
    from distributed.actor import Actor
    from distributed.worker import Worker

    patched = [(Client, "_graph_to_futures"), (Client, "run"), (Actor, "__getattr__"), (Worker, "execute")]
    before = [vars(owner)[name] for owner, name in patched]
    with stage("s"):
        assert all(vars(owner)[name] is not one for (owner, name), one in zip(patched, before, strict=True))
    assert [vars(owner)[name] for owner, name in patched] == before


CLIENT = """
    import os, sys, threading
    from pathlib import Path
    from distributed import Client
    from trackdsl import flush, log_metric, stage

    FOLDER = Path(sys.argv[1])

    @stage
    def work(x):
        log_metric("x", x)
        return x

    def knows():
        import sys

        return "trackdsl" in sys.modules

    def late(x):
        from trackdsl import log_metric

        log_metric("late", x)

    def plain(x):
        log_metric("plain", x)

    @stage
    def be_killed():
        if (FOLDER / "hangs").exists():
            return
        (FOLDER / "hangs").touch()
        threading.Event().wait()

    with Client(scheduler_file=str(FOLDER / "scheduler.json")) as client:
        client.wait_for_workers(2)
        workers = list(client.scheduler_info()["workers"])
        with stage("far"):
            # Before the first task, which may be plain functions that call plain MLflow.
            assert all(client.submit(knows, workers=worker, pure=False).result() for worker in workers)
            for x, worker in enumerate(workers):
                client.submit(late, x, workers=worker).result()
                client.submit(work, x, workers=worker).result()
                client.submit(plain, x, workers=worker).result()
            lost = client.submit(be_killed)
            print("hangs", flush=True)
            lost.result()
"""


class Machine:
    """A scheduler, or a worker with a spool and a name of its own, as it would be on another machine."""

    def __init__(self, folder: Path, name: str, *command: str) -> None:
        self.spool = folder / name
        command = (sys.executable, "-m", *command, "--scheduler-file", str(folder / "scheduler.json"), "--no-dashboard")
        if shutil.which("unshare") and not subprocess.run(["unshare", "--uts", "-r", "true"], check=False).returncode:
            command = ("unshare", "--uts", "-r", "sh", "-c", f'hostname {name}; exec "$@"', "sh", *command)
        self.named = command[0] == "unshare"
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("TRACKDSL_", "MLFLOW_"))}
        with (folder / f"{name}.log").open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env={**environment, "TRACKDSL_SPOOL": str(self.spool)}, stdout=log, stderr=log
            )

    def end(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(PATIENCE)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    """A scheduler and two workers, each a program of its own."""
    worker = ("distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path))
    started = [Machine(tmp_path, "scheduler", "distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1")]
    started += [Machine(tmp_path, f"machine-{number}", *worker) for number in range(2)]
    yield started
    for machine in reversed(started):
        machine.end(signal.SIGKILL)
        end_delivery(machine.spool)


def test_machines_that_share_no_disk(
    machines: list[Machine], shared_server: Server, start: StartProgram, tmp_path: Path
) -> None:
    """Each machine delivers from its own spool, and finds parents through the tracking server; one is lost."""
    name = {"TRACKDSL_EXPERIMENT_NAME": tmp_path.name}
    program = start(CLIENT, str(tmp_path), TRACKDSL_MODE="online", TRACKDSL_TRACKING_URI=shared_server.uri, **name)
    assert program.say() == "hangs"
    wait_until((tmp_path / "hangs").exists, "the task to begin")

    def runs() -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for run in all_runs(shared_server.uri):
            if run.data.tags.get("trackdsl.path", "").startswith("far"):
                found.setdefault(run.info.run_name, []).append(run)
        return found

    # The worker that has it is named by its delivery.
    (hanging,) = wait_until(lambda: runs().get("be_killed"), "the run that hangs")
    pid = call_of(hanging.data.tags)["pid"]
    (victim,) = [machine for machine in machines if machine.process.pid == pid]
    victim.end(signal.SIGKILL)
    assert program.finish()[0] == 0

    def settled() -> bool:
        found = runs()
        ended = all(run.info.status != "RUNNING" for group in found.values() for run in group)
        return ended and len(found["work"]) == 2 and len(found["be_killed"]) == 2

    wait_until(settled, "everything to be delivered")
    found = runs()
    (root,) = found["far"]
    assert root.info.status == "FINISHED"
    for metric in ("late", "plain"):
        assert sorted(value for _, value in points(root, metric, shared_server.uri)) == [0.0, 1.0]
    for run in found["work"] + found["be_killed"]:
        assert run.data.tags["mlflow.parentRunId"] == root.info.run_id
    status = {run.data.tags["trackdsl.attempt"]: run.info.status for run in found["be_killed"]}
    assert status == {"1": "KILLED", "2": "FINISHED"}
    assert shown(found["work"]) == [("work", "0"), ("work", "1")]
    assert len({call_of(run.data.tags)["pid"] for run in found["work"]}) == 2
    if machines[0].named:
        assert {call_of(run.data.tags)["host"] for run in found["work"]} == {"machine-0", "machine-1"}
    assert all(delivery_pids(machine.spool) for machine in machines[1:] if machine is not victim)


def test_a_decorator_above_dask_delayed_is_refused() -> None:
    """It would record a call that only notes what is to run."""
    with pytest.raises(OptionError, match=r"goes below @dask\.delayed"):
        stage(dask.delayed(lambda x: x))
