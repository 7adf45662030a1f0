"""A store with runs of many kinds, and a program that asks it for everything."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

import trackdsl
from tests.conftest import PATIENCE, client
from trackdsl import experiment, stage
from trackdsl.query import _mlflow_search
from trackdsl.query._database import DatabaseReader
from trackdsl.query._mlflow_client import client_of, store_of

#: Names and values that would end a quotation, a statement or a page in the wrong hands.
HOSTILE = (
    "it's",
    'say "hi"',
    "back\\slash",
    "'; DROP TABLE runs; --",
    "a\nb",
    "\x1b[31mred",
    "[red]x[/]",
    "🙂%_",
    "`tick`",
)


def record_zoo(uri: str, churn: str = "churn") -> None:
    """Runs of many kinds, in two experiments."""
    trackdsl.configure(tracking_uri=uri)
    for number, model in enumerate(("rf", "rf", "svm", "it's")):
        with experiment(churn, run_name=f"run-{number}", tags={"team": "a" if number % 2 else "b"}) as run:
            run.log_params(
                {"model": model, "lr": [0.1, 0.01, 1, 10][number], "epochs": 10 * number, "flag": number > 1}
            )
            run.log_input(pd.DataFrame({"x": [number]}), "training" if number else "test", name="d")
            run.log_metrics({"accuracy": [0.5, 0.95, math.nan, 0.9][number], "val/loss": 1.0 - number / 10})
            if number == 3:
                run.log_params({"layers[0]": 64, "only here": "yes", "hostile": "\n".join(HOSTILE)})
                run.log_metric("inf", math.inf)
    with experiment(f"{churn}-other", run_name="root") as root:
        for name in HOSTILE:
            with stage(name, value=name) as child, stage("leaf"):
                child.set_tag("mine", name)
        root.log_metric("epochs", 7)
        for step in range(5):
            root.log_metric("loss", 1 / (step + 1), step=step)


def record_by_plain_mlflow(uri: str) -> None:
    """Runs that trackdsl knows nothing of: nested ones, one that runs still, one without anything."""
    mlflow = client(uri)
    experiment = mlflow.create_experiment("plain", artifact_location="/nowhere")
    root = mlflow.create_run(experiment, start_time=1000, run_name="theirs", tags={"odd'key`": "x"})
    child = mlflow.create_run(
        experiment, start_time=2000, run_name="inner", tags={"mlflow.parentRunId": root.info.run_id}
    )
    mlflow.log_param(child.info.run_id, "model", "rf")
    mlflow.set_terminated(child.info.run_id, "FAILED", 5000)
    gone = mlflow.create_run(
        experiment, start_time=3000, run_name="gone", tags={"mlflow.parentRunId": root.info.run_id}
    )
    mlflow.delete_run(gone.info.run_id)


def names(frame: Any) -> list[str]:
    """Which runs are in a frame."""
    return list(frame["name"])


def through_mlflow(uri: str) -> DatabaseReader:
    """The reader of tables whose version is not known, which uses MLflow's connections."""
    mlflow = client_of(uri)
    return DatabaseReader(uri, _mlflow_search.MlflowTables(store_of(mlflow)), mlflow)


#: Asks a store with the runs of `record_zoo` for everything, in one process: its arguments are the tracking URI and the
#: names of modules that must not be imported.
ASKS = """
import importlib.util, json, sys
from click.testing import CliRunner
import trackdsl
from trackdsl.cli import main

uri, *unwanted = sys.argv[1:]
for arguments, code in (
    (["ls", "churn"], 0),
    (["ls", "--json", "--where", "params.model = 'rf' AND status = 'FINISHED'", "--order-by", "accuracy DESC"], 0),
    (["ls", "--where", "tags.trackdsl.call.function LIKE '%'"], 0),
    (["show", "run-1"], 0),
    (["tree", "root", "--json"], 0),
    (["trace", "root"], 0),
    (["report", "root", "--output", "root.html"], 0),
    (["compare", "run-0", "run-1"], 0),
    (["changes", "run-1", "--since", "run-0"], 0),
    (["export", "churn", "--output", "churn.json"], 0),
    (["show", "run"], 1),
    *([] if uri.startswith("http") else [(["open", "run-1"], 1)]),
):
    result = CliRunner().invoke(main, [*arguments, "--tracking-uri", uri])
    assert result.exit_code == code, (arguments, result.output, result.exception)
    assert code == 0 or "did you mean" in result.output or "is not a server" in result.output, result.output
trackdsl.configure(tracking_uri=uri)
assert len(trackdsl.runs("churn", epochs__gt=5, order_by="params.lr")) == 3
assert trackdsl.best("churn", "accuracy").name == "run-1"
assert len(list(trackdsl.tree("root").walk())) == 19
assert len(trackdsl.history("root", "loss")) == 5
assert len(trackdsl.compare("run-0", "run-1")) > 0
trackdsl.changes("run-1", "run-0")
print(sorted(set(unwanted) & set(sys.modules)))
assert importlib.util.find_spec("requests") is not None
import requests.adapters, trackdsl._server.http
print(requests.adapters.HTTPAdapter.send.__module__)
"""


def asked_in_a_process(uri: str, folder: Path, *unwanted: str) -> list[str]:
    """The lines that `ASKS` prints."""
    command = [sys.executable, "-c", ASKS, uri, *unwanted]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
