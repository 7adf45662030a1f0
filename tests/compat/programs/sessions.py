"""A program that calls tracelet's way, from its first start to its last stop; run in an empty folder."""

import atexit
import datetime
import sys
from pathlib import Path

import trackdsl
import trackdsl.compat.tracelet as tracelet
from trackdsl.compat.tracelet import TraceletSettings

other_store, dead_server = sys.argv[1:]
errors: dict[str, str] = {}

# Where runs go, and what they are called.
tracelet.start_logging(exp_name="basic", project="project-a", backend="mlflow")
tracelet.stop_logging()
tracelet.start_logging("placed", config={"tracking_uri": other_store, "experiment_name": "Custom Experiments"})
tracelet.stop_logging()
tracelet.start_logging("after-placed", project="project-a")
tracelet.stop_logging()
settings = TraceletSettings(
    project="settled", backend=["mlflow"], mlflow_tracking_uri=other_store, mlflow_experiment_name="Settled Experiments"
)
tracelet.start_logging(exp_name="configured", settings=settings)
tracelet.stop_logging()
tracelet.start_logging(
    exp_name="four-keys",
    project="research",
    config={
        "tracking_uri": other_store,
        "experiment_name": "Four Keys",
        "run_name": "baseline-001",
        "tags": {"team": "research", "version": "v1.0", "project": "of the tags"},
    },
)
tracelet.stop_logging()

# An unreachable server, and the way out of it.
try:
    tracelet.start_logging(exp_name="lost", config={"tracking_uri": dead_server})
except Exception as error:
    errors["unreachable"] = type(error).__name__
    tracelet.start_logging(exp_name="fallback", project="project-a")
    trackdsl.log_metric("here", 1.0)
    tracelet.stop_logging()
for _ in range(2):
    tracelet.start_logging("joined", config={"experiment_name": "Shared Experiment"})
    tracelet.stop_logging()

# Files, under the names that they are given.
exp = tracelet.start_logging(exp_name="files", project="project-a")
for name in ("model.pth", "config.yaml", "train_data.csv"):
    Path(name).write_text(f"content of {name}")
exp.log_artifact("model.pth", "models/trained_model.pth")
exp.log_artifact("config.yaml", "configs/training_config.yaml")
exp.log_artifact("train_data.csv", "datasets/processed_train.csv")
tracelet.stop_logging()

# A loop, as in the training of a network.
exp = tracelet.start_logging(exp_name="loop", project="project-a")
exp.log_params({"learning_rate": 0.001, "batch_size": 32, "epochs": 100, "model": "resnet18"})
for epoch in range(100):
    exp.log_metric("train_loss", 1 / (epoch + 1), iteration=epoch)
    if epoch % 10 == 0:
        Path(f"checkpoint_{epoch}.pth").write_text(str(epoch))
        exp.log_artifact(f"checkpoint_{epoch}.pth", f"checkpoints/epoch_{epoch}.pth")
for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr_schedule/learning_rate"):
    exp.log_metric(name, 0.5, iteration=3)
exp.log_metric("final_accuracy", 0.9)
tracelet.stop_logging()


# A run for each trial, with the handle passed on.
def train(lr: float, experiment: trackdsl.Run) -> float:
    experiment.log_metric("inside", lr)
    return 1 - lr


for number in range(3):
    exp = tracelet.start_logging(
        exp_name=f"trial_{number}",
        project="sweep",
        config={"tags": {"optimization": "grid", "trial_number": str(number)}},
    )
    lr = 10.0 ** -(number + 1)
    exp.log_params({"lr": lr, "batch_size": 16, "trial_number": number})
    exp.log_metric("accuracy", train(lr, exp))
    tracelet.stop_logging()

now = datetime.datetime(2026, 1, 2, 3, 4, 5)
tracelet.start_logging(f"resnet50_{now:%Y%m%d_%H%M}", config={"tags": {"date": now.isoformat()}})
tracelet.stop_logging()

atexit.register(tracelet.stop_logging)
try:
    tracelet.start_logging("stopped-in-finally")
finally:
    tracelet.stop_logging()
tracelet.stop_logging()
tracelet.start_logging("stopped-at-exit")
Path("errors.txt").write_text(repr(errors))
