"""A program that uses plain MLflow beside trackdsl: nested runs, steps, files, facts about the run."""

import platform
import socket
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import mlflow
from mlflow.entities import RunStatus

from trackdsl import current_run, experiment, flush, log_metric, stage

# A run around runs, all opened by MLflow, with a stage of trackdsl's in one of them.
with mlflow.start_run(run_name="full-pipeline") as parent:
    mlflow.log_param("pipeline_version", "v1.0")
    with mlflow.start_run(run_name="preprocessing", nested=True):
        mlflow.log_param("scaling", "standard")
        mlflow.log_param("feature_count", 20)
        with stage("scale"):
            log_metric("rows", 7)
    with mlflow.start_run(run_name="training", nested=True):
        mlflow.log_param("model_type", "RandomForest")
        mlflow.log_metric("train_accuracy", 0.95)
    with mlflow.start_run(run_name="evaluation", nested=True):
        mlflow.log_metric("test_accuracy", 0.93)
        mlflow.log_metric("f1_score", 0.92)
    mlflow.log_metric("pipeline_duration", 120.5)
    Path("parent.txt").write_text(parent.info.run_id)

# Inside a run of trackdsl's: what only logs lands on it, and what is opened there is its child.
with experiment("scoped", run_name="scope") as scope:
    for epoch in range(10):
        mlflow.log_metric("train_loss", 1 / (epoch + 1), step=epoch)
        mlflow.log_metric("val_loss", 2 / (epoch + 1), step=epoch)
        mlflow.log_metric("learning_rate", 0.1 * 0.5**epoch, step=epoch)
    with mlflow.start_run(run_name="opened-inside", nested=True):
        mlflow.log_metric("inner", 1)

with experiment("files", run_name="files"):
    Path("model.pkl").write_bytes(b"a pickle")
    Path("output_dir/deep").mkdir(parents=True)
    Path("output_dir/deep/one.txt").write_text("one")
    mlflow.log_artifact("model.pkl")
    mlflow.log_artifacts("output_dir", artifact_path="outputs")
    mlflow.log_dict({"key": "value"}, "config.json")
    mlflow.log_text("Model training completed", "status.txt")
    figure, axes = plt.subplots()
    axes.plot([1, 2, 3], [4, 5, 6])
    mlflow.log_figure(figure, "plot.png")

# Facts, in a run of MLflow's own and in one of trackdsl's.
with mlflow.start_run(run_name="facts") as run:
    facts = [run.info.run_id, run.info.experiment_id, run.info.start_time]
    mlflow.set_tags({"team": "ml-team", "priority": "high", "model_version": "v2.0", "git_commit": "abc123"})
    mlflow.log_param("python_version", platform.python_version())
    mlflow.log_param("system", platform.system())
with stage("facts of a stage") as ours:
    active = mlflow.active_run()
    facts += [active.info.run_id, active.info.experiment_id, active.info.start_time, ours.run_id]
    assert current_run() is ours
    mlflow.set_tags({"team": "ml-team"})
Path("facts.txt").write_text(repr([*facts, RunStatus.to_string(RunStatus.FINISHED)]))


def send_to_itself(megabytes: int) -> None:
    """Send this much over the network, to this process."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as sender,
        server.accept()[0] as receiver,
    ):
        for _ in range(20 * megabytes):
            sender.sendall(bytes(50_000))
            receiver.recv(50_000, socket.MSG_WAITALL)


# System metrics, switched on by MLflow's own function.
mlflow.enable_system_metrics_logging()
mlflow.set_system_metrics_sampling_interval(0.2)
with mlflow.start_run(run_name="system of MLflow"):
    send_to_itself(megabytes=3)
    time.sleep(1.5)  # Several samples; it leaves the CPU to others.
with experiment("system", run_name="system of trackdsl"):
    flush()  # Now delivery samples, and counts the traffic from here.
    send_to_itself(megabytes=3)
    time.sleep(1.5)
mlflow.disable_system_metrics_logging()
