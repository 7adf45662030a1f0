"""System metrics: what a run uses of its machine, sampled by the delivery process while it is open."""

from __future__ import annotations

import contextlib
import os
import sys
import types
from pathlib import Path

import pytest

import trackdsl
from tests.conftest import (
    StartProgram,
    all_runs,
    deliver,
    delivery_pids,
    end_delivery,
    points,
    sync,
    wait_until,
)
from tests.memory_store import MemoryStore
from trackdsl import OptionError, SettingsError, experiment, settings, stage
from trackdsl._core.readings import Readings
from trackdsl.delivery.journals import _stretch_size
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.store._errors import Unavailable

#: What every machine that the tests run on has.
EVERYWHERE = {
    "system/cpu_utilization_percentage",
    "system/system_memory_usage_megabytes",
    "system/system_memory_usage_percentage",
    "system/disk_usage_percentage",
    "system/disk_available_megabytes",
    "system/network_receive_megabytes",
    "system/network_transmit_megabytes",
    "system/process_cpu_percentage",
    "system/process_memory_megabytes",
    "system/process_disk_read_megabytes",
    "system/process_disk_write_megabytes",
}

PROGRAM = """
import os, sys, time
import trackdsl

with trackdsl.experiment("sampled", system_metrics=0.2):
    print("open", flush=True)
    sys.stdin.readline()
    with trackdsl.stage("inside"):
        pass
    with trackdsl.stage("asked", system_metrics=0.1):
        print("asked", flush=True)
        sys.stdin.readline()
with trackdsl.experiment("not sampled"):
    pass
"""


def noted(run: str) -> int:
    """How many points of CPU use a run has at MLflow by now."""
    if not Path("mlflow.db").exists():
        return 0
    found = [each for each in all_runs() if each.info.run_name == run]
    return len(points(found[0], "system/cpu_utilization_percentage")) if found else 0


@pytest.mark.slow
def test_runs_are_sampled_while_they_are_open(start: StartProgram, sqlite_store: str, tmp_path: Path) -> None:
    """Points come while a run is open, also from the next delivery process when one is killed; stages if asked."""
    program = start(PROGRAM, TRACKDSL_MODE="online", TRACKDSL_TRACKING_URI=sqlite_store)
    assert program.say() == "open"
    wait_until(lambda: noted("sampled") >= 2, "two samples")
    end_delivery(tmp_path / "spool")
    before = noted("sampled")
    trackdsl.delivery.ensure_running(tmp_path / "spool")
    wait_until(lambda: delivery_pids(tmp_path / "spool"), "another delivery process")
    wait_until(lambda: noted("sampled") >= before + 2, "two samples more")
    program.resume()
    assert program.say() == "asked"
    wait_until(lambda: noted("asked") >= 2, "samples of the stage")
    program.resume()
    code, _, errors = program.finish()
    assert code == 0, errors
    assert sync(TRACKDSL_TRACKING_URI=sqlite_store).returncode == 0
    runs = {run.info.run_name: run for run in all_runs()}
    assert set(runs["sampled"].data.metrics) >= EVERYWHERE
    assert set(runs["asked"].data.metrics) >= EVERYWHERE
    assert not runs["inside"].data.metrics
    assert not runs["not sampled"].data.metrics
    memory = runs["sampled"].data.metrics["system/process_memory_megabytes"]
    assert 10 < memory < 2000
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_what_was_over_before_is_not_made_up(sqlite_store: str) -> None:
    """A run that had ended before it could be sampled has no system metrics."""
    with experiment("offline", system_metrics=True):
        pass
    deliver()
    (run,) = all_runs()
    assert not run.data.metrics


def test_samples_wait_for_their_run(no_pauses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sampled while a store was away arrives from the first sample on, also in several stretches."""
    monkeypatch.setattr(_stretch_size, "_STRETCH", 5)
    store = MemoryStore()
    store.before = away
    spool = settings.spool()
    assert spool is not None
    worker = Worker(spool, store.open)

    def samples() -> int:
        with contextlib.suppress(Unavailable):
            worker.round()
        return max(
            (run.count for each in worker._streams._sampler._samplings for run in each._runs.values()), default=0
        )

    with experiment("first") as first:
        for step in range(20):
            first.log_metric("m", step)
        with stage("second", system_metrics=0.1):
            wait_until(lambda: samples() >= 2, "two samples")
            store.before = lambda *_: None
            wait_until(lambda: not worker.round(), "everything to be read")
            steps = [point[3] for point in store.named("second").points if "cpu" in point[0]]
            assert {0, 1} <= set(steps)
    worker.close()


def test_a_killed_program_that_was_sampled(no_pauses: None, start: StartProgram) -> None:
    """The run of a program that is killed while it is sampled ends as killed."""
    program = start("""
        import os, signal
        from trackdsl import experiment
        with experiment("killed", system_metrics=0.1):
            print("open", flush=True)
            input()
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert program.say() == "open"
    store = MemoryStore()
    spool = settings.spool()
    assert spool is not None
    worker = Worker(spool, store.open)

    def sampled() -> bool:
        worker.round()
        return any(run.points for run in store.runs.values())

    def over() -> bool:
        worker.round()
        return store.named("killed").status == "KILLED"

    try:
        wait_until(sampled, "a sample")
        worker._streams._sampler.stop()  # It does not see the death first.
        program.resume()
        program.finish()
        wait_until(over, "the end of the run")
    finally:
        worker.close()


def away(*_: object) -> None:
    raise Unavailable("away")


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, 0.0),
        ({"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true"}, 10.0),
        ({"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "True", "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "3"}, 3.0),
        ({"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true", "TRACKDSL_SYSTEM_METRICS": "no"}, 0.0),
        ({"TRACKDSL_SYSTEM_METRICS": "2.5"}, 2.5),
        ({"TRACKDSL_SYSTEM_METRICS": "0.0001"}, 0.1),
    ],
)
def test_who_asks_for_it(variables: dict[str, str], seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's switch and interval count after ours; a number is seconds, and never too few."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert settings.system_metrics() == seconds


def test_mlflows_own_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mlflow.enable_system_metrics_logging()` is for root runs of trackdsl's too."""
    import mlflow

    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    mlflow.enable_system_metrics_logging()
    with experiment("e") as run:
        with stage("inside"):
            pass
        assert run.target.writer is not None
        notes = (run.target.writer.directory / "sampled").read_text()
    assert notes == f"o {run.id} 10.0\n"


@pytest.mark.parametrize("wrong", ["often", -1, float("nan"), "0"])
def test_what_is_no_interval(wrong: object) -> None:
    """An interval that is none is refused where it is given."""
    if wrong == "0":
        assert settings.checked("system_metrics", wrong, "x") == 0.0
        return
    with pytest.raises(SettingsError, match="a number of seconds"):
        trackdsl.configure(system_metrics=wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="a number of seconds"):
        stage("s", system_metrics=wrong)  # type: ignore[call-overload]


def test_a_reading_counts_what_happened_since(tmp_path: Path) -> None:
    """What a program writes, and the time it keeps a CPU busy, shows in the next reading."""
    readings = Readings(os.getpid())
    with open(tmp_path / "large", "wb") as file:
        file.write(os.urandom(20_000_000))
        file.flush()
        os.fsync(file.fileno())
    busy = os.times().user + 0.3
    while os.times().user < busy:
        sum(range(1000))
    found = readings.read()
    assert set(found) >= EVERYWHERE
    assert found["system/process_disk_write_megabytes"] >= 20
    assert found["system/process_cpu_percentage"] > 5
    assert 0 <= found["system/cpu_utilization_percentage"] <= 100
    assert "system/process_cpu_percentage" not in Readings(2**22 + 1).read()


def test_graphics_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each card that NVML knows is read; a fake replaces NVML, as the machine has no card."""

    class NVMLError(Exception): ...

    def power(_: object) -> int:
        raise NVMLError("not on this card")

    nvml = types.ModuleType("pynvml")
    members = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda number: number,
        "nvmlDeviceGetMemoryInfo": lambda number: types.SimpleNamespace(used=(number + 1) * 10**9, total=4 * 10**9),
        "nvmlDeviceGetUtilizationRates": lambda number: types.SimpleNamespace(gpu=40 + number),
        "nvmlDeviceGetPowerUsage": power,
    }
    for name, member in members.items():
        setattr(nvml, name, member)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = {key: value for key, value in Readings(os.getpid()).read().items() if "gpu" in key}
    assert found == {
        "system/gpu_0_memory_usage_percentage": 25.0,
        "system/gpu_0_memory_usage_megabytes": 1000.0,
        "system/gpu_0_utilization_percentage": 40,
        "system/gpu_1_memory_usage_percentage": 50.0,
        "system/gpu_1_memory_usage_megabytes": 2000.0,
        "system/gpu_1_utilization_percentage": 41,
    }
