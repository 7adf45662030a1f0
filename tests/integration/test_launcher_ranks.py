"""Processes that a launcher starts together are children of one root run."""

from __future__ import annotations

import os
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartProgram, all_runs, client, end_delivery, free_port, sync
from trackdsl import experiment, stage
from trackdsl._runs import launch as _launch
from trackdsl.errors import OptionError, SettingsError
from trackdsl.store_format.call_tag import call_of
from trackdsl.testing import capture_runs

SLURM = {"SLURM_JOB_ID": "71", "SLURM_STEP_ID": "0", "SLURM_NODEID": "0"}
TORCHRUN = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "a1"}
PROGRAM = """
    import os, sys
    from trackdsl import current_run, experiment, log_metric, stage

    @stage
    def load(rows):
        log_metric("rows", rows)

    @experiment("churn")
    def pipeline(lr, what=""):
        load(3)
        if what == "fail":
            raise ValueError("no")
        if what == "kill":
            os.kill(os.getpid(), 9)

    pipeline(0.1, *sys.argv[1:])
"""


def slurm(rank: int, size: int = 2, **more: str) -> dict[str, str]:
    return {**SLURM, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NTASKS": str(size), **more}


def torchrun(rank: int, size: int = 2, **more: str) -> dict[str, str]:
    return {**TORCHRUN, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), **more}


@pytest.fixture(autouse=True)
def no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests themselves run as no rank."""
    for name in (*_launch._READ, _launch.MARK):
        monkeypatch.delenv(name, raising=False)


LAUNCHES = {
    "torchrun": (torchrun(1, LOCAL_WORLD_SIZE="2", GROUP_RANK="0"), (1, 2, 1, "0", 1)),
    "torchrun, again": (torchrun(1, TORCHELASTIC_RESTART_COUNT="2", GROUP_RANK="3"), (1, 2, 1, "3", 3)),
    "hand-made": ({"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, (3, 4, None, None, 1)),
    "Lightning": ({"LOCAL_RANK": "1", "WORLD_SIZE": "2", "NODE_RANK": "0", "MASTER_PORT": "1"}, (1, 2, 1, "0", 1)),
    "SLURM": (slurm(2, 4), (2, 4, 2, "0", 1)),
    "SLURM, requeued": (slurm(2, 4, SLURM_RESTART_COUNT="1"), (2, 4, 2, "0", 2)),
    "SLURM, a step of fewer": (slurm(0, 8, SLURM_STEP_NUM_TASKS="4"), (0, 4, 0, "0", 1)),
    "Open MPI": (
        {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0",
         "PMIX_NAMESPACE": "prterun-a-1@1"}, (1, 2, 0, None, 1),
    ),
    "MPICH, Intel MPI": ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1"}, (1, 2, 1, None, 1)),
    "MVAPICH": ({"MV2_COMM_WORLD_RANK": "0", "MV2_COMM_WORLD_SIZE": "2", "PBS_JOBID": "9"}, (0, 2, None, None, 1)),
    "Horovod": (
        {"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2", "HOROVOD_GLOO_RENDEZVOUS_PORT": "9"}, (1, 2, None, None, 1)
    ),
    "torchrun in SLURM": (slurm(0, 2) | torchrun(3, 8), (3, 8, 3, None, 1)),
    "mpirun in a script of SLURM": (
        slurm(0, 8) | {"OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8"}, (5, 8, None, None, 1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAUNCHES)
def test_what_launchers_say(name: str) -> None:
    """Rank, size, local rank, node and attempt are read from what each launcher puts into the environment."""
    environment, (*expected, attempt) = LAUNCHES[name]
    expected[3] = expected[3] or os.uname().nodename
    launch = _launch.read(environment)
    assert launch is not None
    assert [launch.rank, launch.size, launch.local_rank, launch.node, launch.attempt] == [*expected, attempt]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        torchrun(0, 1),
        {"RANK": "gold", "WORLD_SIZE": "2"},
        {"RANK": "3", "WORLD_SIZE": "4"},
        {"RANK": "5", "WORLD_SIZE": "2", "MASTER_PORT": "1"},
        {"LOCAL_RANK": "1", "WORLD_SIZE": "2"},
        slurm(0, 1),
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"},
        slurm(0, 4, SLURM_STEP_ID="4294967290"),
        slurm(0, 4, SLURM_STEP_NUM_TASKS="1"),
        {**slurm(0, 4), "SLURM_STEP_ID": "", "SLURM_JOB_NAME": "interactive"},
        {**slurm(0, 4), "SLURM_STEP_ID": "", "ENVIRONMENT": "BATCH"},
    ],
)
def test_what_is_no_launch(environment: dict[str, str]) -> None:
    """A single process, a job's shell or script, and variables of other tools are not a launch."""
    assert _launch.read(environment) is None


def test_a_prompt_is_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook or a prompt in a job is not a rank, whatever the environment says."""
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert _launch.read(slurm(0, 4)) is None


def test_keys_distinguish_launches() -> None:
    """All ranks of a launch have one key; another job, step, attempt, master or size has another."""
    launches = [
        (slurm(rank, 4, **more), index)
        for rank in range(4)
        for index, more in enumerate([{}, {"SLURM_JOB_ID": "8"}, {"SLURM_STEP_ID": "1"}, {"SLURM_RESTART_COUNT": "1"}])
    ] + [
        (torchrun(rank, 4, **more), 10 + index)
        for rank in range(4)
        for index, more in enumerate([{}, {"MASTER_PORT": "2"}, {"TORCHELASTIC_RESTART_COUNT": "1"}])
    ]
    keys: dict[int, set[str]] = {}
    for environment, index in launches:
        launch = _launch.read(environment)
        assert launch is not None
        keys.setdefault(index, set()).add(launch.key)
    assert all(len(found) == 1 for found in keys.values())
    assert len(set.union(*keys.values())) == len(keys)


def tree(runs: list[Any]) -> dict[str, str]:
    """The status of each run by its path, after a check of each run's parent."""
    by_id = {run.info.run_id: run for run in runs}
    found = {}
    for run in runs:
        path = run.data.tags["trackdsl.path"]
        parent = by_id.get(run.data.tags.get("mlflow.parentRunId"))
        assert (parent.data.tags["trackdsl.path"] if parent else "") == path.rpartition("/")[0]
        assert path not in found
        found[path] = run.info.status
    return found


def finish(*programs: Any) -> None:
    for program in programs:
        code, _, err = program.finish(300)
        assert not err, (code, err)


#: What ranks 0 and 1 do, and how their root ends.
ENDS = [("", "", "FINISHED"), ("", "fail", "FAILED"), ("kill", "", "KILLED"), ("kill", "fail", "FAILED")]


@pytest.mark.slow
def test_ranks_are_children_of_one_root(start: StartProgram, sqlite_store: str) -> None:
    """Two tasks of a step of SLURM have one root, with the parameters and a status that is true of both.

    With `separate` each has one of its own, with `main` the first one alone.
    """
    programs = [
        start(PROGRAM, what, **slurm(rank, SLURM_JOB_ID=str(job)))
        for job, ends in enumerate(ENDS)
        for rank, what in ((1, ends[1]), (0, ends[0]))
    ] + [start(PROGRAM, how, **slurm(rank), TRACKDSL_RANKS=how) for how in ("separate", "main") for rank in (0, 1)]
    resumed = client().create_run("0", run_name="pipeline", tags={"trackdsl.path": "pipeline"}).info.run_id
    programs += [start(PROGRAM, **slurm(rank, SLURM_JOB_ID="9"), MLFLOW_RUN_ID=resumed) for rank in (0, 1)]
    for program in programs:
        program.finish()
    assert sync().returncode == 0
    runs = all_runs()

    def launch_of(run: Any) -> str | None:
        while run is not None and "trackdsl.launch" not in run.data.tags:
            run = next((one for one in runs if one.info.run_id == run.data.tags.get("mlflow.parentRunId")), None)
        return None if run is None else str(run.data.tags["trackdsl.launch"])

    meant = {"": "FINISHED", "fail": "FAILED", "kill": "KILLED"}
    for job, (first, second, status) in enumerate(ENDS):
        of_job = [run for run in runs if launch_of(run) == f"slurm {job}.0"]
        assert tree(of_job) == {
            "pipeline": status,
            "pipeline/rank-0": meant[first],
            "pipeline/rank-0/load": "FINISHED",
            "pipeline/rank-1": meant[second],
            "pipeline/rank-1/load": "FINISHED",
        }
        by_path = {run.data.tags["trackdsl.path"]: run for run in of_job}
        root = by_path["pipeline"]
        assert root.data.params == {"lr": "0.1", "what": first}
        assert root.data.tags["trackdsl.world_size"] == "2"
        assert root.info.end_time is not None
        names = ("rank", "local_rank", "world_size", "node")
        assert [by_path["pipeline/rank-1"].data.tags[f"trackdsl.{name}"] for name in names] == [*"1120"]
    of_job = [run for run in runs if launch_of(run) == "slurm 9.0"]
    assert {run.info.run_name: run.info.status for run in of_job if run.data.tags["mlflow.parentRunId"] == resumed} == {
        "rank-0": "FINISHED",
        "rank-1": "FINISHED",
    }
    (root,) = (run for run in runs if run.info.run_id == resumed)
    runs.remove(root)
    assert (root.info.status, root.data.params["lr"]) == ("FINISHED", "0.1")
    alone = Counter(run.data.tags["trackdsl.path"] for run in runs if launch_of(run) is None)
    assert alone == {"pipeline": 3, "pipeline/load": 3}
    assert Counter(run.data.params["what"] for run in runs if run.data.params.get("what") in ("separate", "main")) == {
        "separate": 2,
        "main": 1,
    }


MAIN = """
    import os, sys, tempfile, multiprocessing, subprocess
    import mlflow, numpy as np
    import trackdsl
    from trackdsl import current_run, experiment, log_metric, log_table, log_text, stage, steps, track_returns

    @stage
    @track_returns("model", "score")
    def fit(data):
        log_text("text", "notes.txt")
        log_table({"a": [1]}, "t.json")
        current_run().log_input(data, name="d")
        return {"weights": data}, 0.5

    def child(context):
        with trackdsl.attach(context), stage("child"):
            log_metric("inner", 1)

    if __name__ == "__main__":
        mlflow.set_tracking_uri(sys.argv[1])
        with experiment("e", run_name="main") as run:
            for i in steps(range(2)):
                run.log_metric("loss", i)
            model, score = fit(np.ones(3))
            mlflow.log_metric("plain", 1.0)  # Waits longer for the run than `run_id` does.
            assert len(run.run_id) == 32
            assert run.url
            mlflow.log_params({"p": 1})
            mlflow.set_tag("t", "x")
            mlflow.log_text("hello", "plain.txt")
            with mlflow.start_run(run_name="nested", nested=True) as inner:
                mlflow.log_metric("deep", 2.0)
            client = mlflow.MlflowClient()
            client.log_metric(run.run_id, "by_id", 3.0)
            assert client.get_run(run.run_id).data.metrics["plain"] == 1.0
            assert mlflow.active_run().info.run_id
            process = multiprocessing.get_context("spawn").Process(target=child, args=(trackdsl.capture(),))
            process.start()
            process.join()
            tool = "from trackdsl import stage\\nwith stage('tool'): pass"
            subprocess.run([sys.executable, "-c", tool], check=True)
        session = trackdsl.start_logging("session")
        session.log_metric("m", 1)
        trackdsl.stop_logging()
        print("whole", score)
"""


@pytest.mark.long
@pytest.mark.slow
def test_main_alone_records(start: StartProgram, sqlite_store: str) -> None:
    """With `ranks="main"` rank 0 records as if it were alone; the same code runs on the others and records nothing."""
    for rank in (1, 0):
        program = start(MAIN, sqlite_store, **slurm(rank), TRACKDSL_RANKS="main", TRACKDSL_MODE="online")
        code, out, err = program.finish(300)
        assert (code, out.strip()) == (0, "whole 0.5"), err
        assert sync().returncode == 0
        found = Counter(run.info.run_name for run in all_runs())
        assert found == ({} if rank else dict.fromkeys(["main", "fit", "nested", "child", "tool", "session"], 1))
    assert next(run for run in all_runs() if run.info.run_name == "main").data.metrics["by_id"] == 3.0


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a host of another name")
def test_two_hosts_deliver_at_once(start: StartProgram, sqlite_store: str, tmp_path: Path) -> None:
    """Ranks of two hosts, each with a spool and a delivery process of its own, come to one root at a real store."""
    program = """
        import ctypes, os, socket
        assert ctypes.CDLL(None).unshare(0x04000000) == 0  # CLONE_NEWUTS
        socket.sethostname("node" + os.environ["SLURM_NODEID"])
        from trackdsl import experiment, flush, log_metric

        @experiment("churn")
        def pipeline(lr=0.1):
            log_metric("loss", 0.5)

        input()
        pipeline()
        assert flush(240)
    """
    spools = [tmp_path / f"spool{node}" for node in range(2)]
    try:
        programs = [
            start(
                program,
                TRACKDSL_MODE="online",
                TRACKDSL_SPOOL=str(spools[rank % 2]),
                TRACKDSL_TRACKING_URI=sqlite_store,
                **slurm(rank, 4, SLURM_NODEID=str(rank % 2)),
            )
            for rank in range(4)
        ]
        for each in programs:
            each.resume()
        for each in programs:
            code, _, err = each.finish(300)
            assert code == 0, err
    finally:
        for spool in spools:
            end_delivery(spool)
    runs = all_runs()
    assert tree(runs) == dict.fromkeys(["pipeline", *(f"pipeline/rank-{rank}" for rank in range(4))], "FINISHED")
    tags = [run.data.tags for run in runs if run.info.run_name != "pipeline"]
    hosts = {each["trackdsl.rank"]: call_of(each)["host"] for each in tags}
    assert hosts == {"0": "node0", "1": "node1", "2": "node0", "3": "node1"}
    (root,) = (run for run in runs if run.info.run_name == "pipeline")
    assert root.data.params == {"lr": "0.1"}


@pytest.mark.long
@pytest.mark.slow
def test_torchrun(start: StartProgram, sqlite_store: str, tmp_path: Path) -> None:
    """Each launch by torchrun has one root, and each attempt after a failure has its own."""
    pytest.importorskip("torch")
    program = """
        import os, sys, time
        import trackdsl

        @trackdsl.experiment("ddp")
        def train(what, lr=0.1):
            if what == "again" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
                if os.environ["RANK"] == "0":
                    open("rank-0-began", "w").close()
                    time.sleep(300)  # Until it is ended, because the other rank failed.
                while not os.path.exists("rank-0-began"):
                    time.sleep(0.01)
                raise ValueError("the first time")
            if what != "sum":
                return
            import torch.distributed
            torch.distributed.init_process_group("gloo")
            value = torch.ones(1)
            torch.distributed.all_reduce(value)
            trackdsl.log_metric("sum", value.item())
            torch.distributed.destroy_process_group()

        train(*sys.argv[1:])
    """
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(program))
    launch = """
        import sys
        from torch.distributed.run import main
        main(sys.argv[1:])
    """
    port = str(free_port())
    for what in ("sum", "again"):
        code, _, err = start(
            launch, "--nproc-per-node", "2", "--max-restarts", "1", "--master-port", port, str(path), what
        ).finish(300)
        assert code == 0, err
    assert sync().returncode == 0
    runs = sorted(all_runs(), key=lambda run: run.info.start_time)
    found = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert [run.info.run_name for run in found] == ["train"] * 3
    children = {run.info.run_id: [one for one in runs if one.data.tags.get("mlflow.parentRunId") == run.info.run_id]
                for run in found}  # fmt: skip
    for root in found:
        ranks = children[root.info.run_id]
        assert sorted(run.data.tags["trackdsl.rank"] for run in ranks) == ["0", "1"]
        if root.data.params["what"] == "sum":
            assert [run.data.metrics["sum"] for run in ranks] == [2.0, 2.0]
    assert [run.info.status for run in found] == ["FINISHED", "FAILED", "FINISHED"]
    assert [run.data.tags.get("trackdsl.attempt") for run in found] == [None, None, "2"]


@pytest.mark.slow
def test_many_roots_and_what_is_no_rank(start: StartProgram, sqlite_store: str) -> None:
    """The n-th root of a name is shared by the n-th roots of all ranks; processes that a rank starts are not ranks."""
    program = """
        import os, subprocess, sys, multiprocessing
        from trackdsl import experiment, stage

        def helper():
            with stage("helper"):
                pass

        @experiment("e")
        def fit(): ...

        if __name__ == "__main__":
            if os.environ["RANK"] == "1":
                with stage("alone"):
                    pass
            fit()
            with stage("evaluate"):
                pass
            fit()
            subprocess.run([sys.executable, "-c", "from trackdsl import stage\\nwith stage('tool'): pass"], check=True)
            for method in ("fork", "spawn"):
                process = multiprocessing.get_context(method).Process(target=helper)
                process.start()
                process.join()
    """
    finish(*(start(program, **torchrun(rank)) for rank in (0, 1)))
    assert sync().returncode == 0
    runs = all_runs()
    roots = {run.info.run_id: run.info.run_name for run in runs if "mlflow.parentRunId" not in run.data.tags}
    assert Counter(roots.values()) == {"fit": 2, "evaluate": 1, "alone": 1, "tool": 2, "helper": 4}
    children = Counter(
        (roots[parent], run.info.run_name) for run in runs if (parent := run.data.tags.get("mlflow.parentRunId"))
    )
    assert children == {
        ("fit", "rank-0"): 2, ("fit", "rank-1"): 2, ("evaluate", "rank-0"): 1, ("evaluate", "rank-1"): 1,
        ("alone", "rank-1"): 1,
    }  # fmt: skip
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.slow
def test_ranks_that_a_rank_starts_itself(start: StartProgram, sqlite_store: str) -> None:
    """Where rank 0 starts the program for the other ranks, as Lightning does, these are its children, and tagged so."""
    program = """
        import os, subprocess, sys
        from trackdsl import experiment

        @experiment("e")
        def main():
            if "LOCAL_RANK" not in os.environ:
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29517", NODE_RANK="0", WORLD_SIZE="2")
                os.environ["LOCAL_RANK"] = "0"
                subprocess.run([sys.executable, *sys.argv], env={**os.environ, "LOCAL_RANK": "1"}, check=True)

        main()
    """
    finish(start(program))
    assert sync().returncode == 0
    runs = {run.data.tags.get("trackdsl.rank"): run for run in all_runs()}
    assert set(runs) == {None, "1"}
    tags = runs["1"].data.tags
    assert tags["mlflow.parentRunId"] == runs[None].info.run_id
    assert (tags["trackdsl.local_rank"], tags["trackdsl.world_size"], tags["trackdsl.node"]) == ("1", "2", "0")


def test_the_setting_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that does not exist is refused, with a suggestion, wherever it can be given."""
    import trackdsl

    with pytest.raises(OptionError, match="did you mean `main`"):
        experiment("e", ranks="mein")  # type: ignore[call-overload]
    with pytest.raises(SettingsError, match="children, main, separate"):
        trackdsl.configure(ranks="all")
    monkeypatch.setenv("TRACKDSL_RANKS", "childs")
    with pytest.raises(SettingsError, match="did you mean `children`"):
        trackdsl.settings.ranks()


def test_captured_runs_are_those_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`capture_runs` shows what the process does by itself, also if the tests are launched as ranks."""
    for name, value in torchrun(1).items():
        monkeypatch.setenv(name, value)
    with capture_runs() as captured, stage("fit"):
        pass
    assert [run.path for run in captured.runs] == ["fit"]
    monkeypatch.setenv("TRACKDSL_RANKS", "main")
    with capture_runs() as captured, stage("fit"):
        pass
    assert [run.path for run in captured.runs] == ["fit"]
