"""MLflow's own functions beside trackdsl, row by row: nested runs, steps, files, system metrics, facts about runs."""

from __future__ import annotations

import ast
import platform
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.compat.recorded import Recorded, run_program
from tests.conftest import once
from trackdsl._config.spec import SETTINGS


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Recorded:
    pytest.importorskip("matplotlib")

    def make(folder: Path) -> None:
        shutil.copy(empty_store, folder / "mlflow.db")
        run_program("plain_mlflow.py", folder)

    folder = once(tmp_path_factory, "plain-mlflow", make)
    return Recorded(folder, f"sqlite:///{folder}/mlflow.db")


@pytest.fixture(scope="session")
def facts(recorded: Recorded) -> list[Any]:
    return list(ast.literal_eval((recorded.folder / "facts.txt").read_text()))


def parent_of(recorded: Recorded, name: str) -> str | None:
    """The name of the run around a run."""
    id_ = recorded.run(name).data.tags.get("mlflow.parentRunId")
    return None if id_ is None else str(recorded.client.get_run(id_).info.run_name)


def test_r73_a_parent_with_a_handle(recorded: Recorded) -> None:
    """The handle of the outer run has its id, and the run is a root."""
    assert (recorded.folder / "parent.txt").read_text() == recorded.run("full-pipeline").info.run_id
    assert parent_of(recorded, "full-pipeline") is None


def test_r74_nested_children(recorded: Recorded) -> None:
    """Three nested runs are its children, a stage inside one is its grandchild; inside a scope they nest too."""
    for name in ("preprocessing", "training", "evaluation"):
        assert parent_of(recorded, name) == "full-pipeline"
    assert parent_of(recorded, "scale") == "preprocessing"
    assert parent_of(recorded, "opened-inside") == "scope"


def test_r75_parameters_of_each_child(recorded: Recorded) -> None:
    """Each child has its own parameters."""
    assert recorded.run("preprocessing").data.params == {"scaling": "standard", "feature_count": "20"}
    assert recorded.run("training").data.params == {"model_type": "RandomForest"}


def test_r76_metrics_of_each_child(recorded: Recorded) -> None:
    """Each child has its own metrics, and so has the stage."""
    assert recorded.run("training").data.metrics == {"train_accuracy": 0.95}
    assert recorded.run("evaluation").data.metrics == {"test_accuracy": 0.93, "f1_score": 0.92}
    assert recorded.run("scale").data.metrics == {"rows": 7}


def test_r77_a_parameter_of_the_parent(recorded: Recorded) -> None:
    """The outer run has its own parameter alone."""
    assert recorded.run("full-pipeline").data.params == {"pipeline_version": "v1.0"}


def test_r78_a_metric_after_the_children(recorded: Recorded) -> None:
    """What is logged after the children have ended lands on the outer run."""
    assert recorded.run("full-pipeline").data.metrics == {"pipeline_duration": 120.5}


def test_r79_steps(recorded: Recorded) -> None:
    """`step=` is the step of a point, inside a scope of trackdsl's too."""
    assert [step for step, _ in recorded.points("scope", "train_loss")] == list(range(10))


def test_r80_losses_of_each_epoch(recorded: Recorded) -> None:
    """Both losses have a point for each epoch."""
    assert recorded.points("scope", "train_loss") == [(epoch, 1 / (epoch + 1)) for epoch in range(10)]
    assert recorded.points("scope", "val_loss") == [(epoch, 2 / (epoch + 1)) for epoch in range(10)]


def test_r81_the_learning_rate(recorded: Recorded) -> None:
    """The learning rate has a point for each epoch."""
    assert recorded.points("scope", "learning_rate") == [(epoch, 0.1 * 0.5**epoch) for epoch in range(10)]


def test_r82_a_history_to_draw(recorded: Recorded) -> None:
    """The history of a metric is what a line is drawn of: steps that go up, and times that do not go back."""
    history = recorded.client.get_metric_history(recorded.run("scope").info.run_id, "train_loss")
    assert len({point.step for point in history}) == len(history) == 10
    assert [point.timestamp for point in history] == sorted(point.timestamp for point in history)


def test_r98_a_file(recorded: Recorded) -> None:
    """A file is there under its own name."""
    assert recorded.text("files", "model.pkl") == "a pickle"


def test_r99_a_folder(recorded: Recorded) -> None:
    """A folder is there with all below it."""
    assert recorded.text("files", "outputs/deep/one.txt") == "one"


def test_r100_a_dictionary(recorded: Recorded) -> None:
    """A dictionary is a JSON file."""
    assert ast.literal_eval(recorded.text("files", "config.json")) == {"key": "value"}


def test_r101_text(recorded: Recorded) -> None:
    """Text is a file."""
    assert recorded.text("files", "status.txt") == "Model training completed"


def test_r102_a_figure(recorded: Recorded) -> None:
    """A figure is a picture."""
    from mlflow import artifacts

    path = artifacts.download_artifacts(f"{recorded.run('files').info.artifact_uri}/plot.png")
    assert Path(path).read_bytes().startswith(b"\x89PNG")


SYSTEMS = ("system of MLflow", "system of trackdsl")


def test_r103_mlflows_switch(recorded: Recorded) -> None:
    """MLflow's switch is for its own runs and for root runs of trackdsl's; not for what ran before it."""
    for name in SYSTEMS:
        assert any(key.startswith("system/") for key in recorded.run(name).data.metrics)
    assert not any(key.startswith("system/") for key in recorded.run("scope").data.metrics)
    assert SETTINGS["system_metrics"].variables[-1] == "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"


@pytest.mark.parametrize("name", SYSTEMS)
def test_r104_processor(recorded: Recorded, name: str) -> None:
    """Use of the CPUs, in percent."""
    assert 0 <= recorded.run(name).data.metrics["system/cpu_utilization_percentage"] <= 100


@pytest.mark.parametrize("name", SYSTEMS)
def test_r105_memory(recorded: Recorded, name: str) -> None:
    """Use of memory, in megabytes and percent; trackdsl records that of the program too."""
    metrics = recorded.run(name).data.metrics
    assert metrics["system/system_memory_usage_megabytes"] > 0
    assert 0 < metrics["system/system_memory_usage_percentage"] < 100
    if name == "system of trackdsl":
        assert metrics["system/process_memory_megabytes"] > 10


def test_r106_graphics_cards(recorded: Recorded) -> None:
    """Use of each GPU; without one there are no such metrics, and no error."""
    from trackdsl._core.readings import _gpus

    cards = {key.split("_")[1] for key in recorded.run("system of trackdsl").data.metrics if "system/gpu_" in key}
    assert len(cards) == len(_gpus())


def test_r107_disk(recorded: Recorded) -> None:
    """What is read from and written to disk, which MLflow does not record, and the room there."""
    metrics = recorded.run("system of trackdsl").data.metrics
    assert {"system/disk_usage_percentage", "system/process_disk_write_megabytes"} <= set(metrics)
    psutil = pytest.importorskip("psutil")
    if psutil.disk_io_counters() is not None:
        assert {"system/disk_read_megabytes", "system/disk_write_megabytes"} <= set(metrics)


@pytest.mark.parametrize("name", SYSTEMS)
def test_r108_network(recorded: Recorded, name: str) -> None:
    """The traffic on the network, in megabytes; during both runs the program sends three to itself."""
    metrics = recorded.run(name).data.metrics
    assert metrics["system/network_receive_megabytes"] >= 3
    assert metrics["system/network_transmit_megabytes"] >= 3


def test_r109_as_run(recorded: Recorded, facts: list[Any]) -> None:
    """The name after `as` is the run: MLflow's own, and a stage's by its handle."""
    assert facts[0] == recorded.run("facts").info.run_id
    assert facts[6] == facts[3] == recorded.run("facts of a stage").info.run_id


def test_r110_facts_about_the_run(recorded: Recorded, facts: list[Any]) -> None:
    """Id, experiment and start are known inside the run, as the store has them."""
    for name, values in (("facts", facts[:3]), ("facts of a stage", facts[3:6])):
        info = recorded.run(name).info
        assert values == [info.run_id, info.experiment_id, info.start_time]


def test_r111_tags(recorded: Recorded) -> None:
    """Several tags at once, in a run of MLflow's and in a stage."""
    wanted = {"team": "ml-team", "priority": "high", "model_version": "v2.0", "git_commit": "abc123"}
    assert recorded.run("facts").data.tags.items() >= wanted.items()
    assert recorded.run("facts of a stage").data.tags["team"] == "ml-team"


def test_r112_the_environment(recorded: Recorded) -> None:
    """Python's version and the system as parameters."""
    wanted = {"python_version": platform.python_version(), "system": platform.system()}
    assert recorded.run("facts").data.params == wanted


def test_r113_status(recorded: Recorded, facts: list[Any]) -> None:
    """Runs of trackdsl's have the statuses that MLflow has."""
    assert {run.info.status for run in recorded.runs} == {facts[-1]}


def test_r114_nothing_else(recorded: Recorded) -> None:
    """The program leaves exactly these runs, each once."""
    assert sorted(run.info.run_name for run in recorded.runs) == sorted(
        [
            "full-pipeline", "preprocessing", "scale", "training", "evaluation", "scope", "opened-inside", "files",
            "facts", "facts of a stage", *SYSTEMS,
        ]
    )  # fmt: skip
