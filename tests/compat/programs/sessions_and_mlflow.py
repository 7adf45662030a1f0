"""A program that calls tracelet's way and MLflow's own functions beside it; run in an empty folder."""

from pathlib import Path

import mlflow
import mlflow.pytorch
import torch

import trackdsl.compat.tracelet as tracelet

tracelet.start_logging("clash", config={"experiment_name": "Shared Experiment"}).run_id
try:
    mlflow.create_experiment("Shared Experiment")
except mlflow.exceptions.MlflowException as error:
    Path("error.txt").write_text(str(error))
tracelet.stop_logging()

mlflow.pytorch.autolog()
exp = tracelet.start_logging(exp_name="models", project="project-a")
exp.log_metric("final_accuracy", 0.9)
mlflow.log_metric("by_mlflow", 2.0)
mlflow.pytorch.log_model(
    pytorch_model=torch.nn.Linear(2, 1),
    artifact_path="model",
    registered_model_name="ImageClassifier",
    pip_requirements=["torch"],
    serialization_format="pickle",  # MLflow 3.17 asks for an example of the input otherwise; trackdsl does not
)
exp.log_model(torch.nn.Linear(2, 1), "own", registered_model_name="OwnClassifier")
tracelet.stop_logging()
