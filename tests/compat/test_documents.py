"""The snippets of two documents, run unchanged, against a real server and real folders."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compat.recorded import Recorded, run_program
from tests.services import Service, mlflow_server

#: Beside the project: they are not ours to copy.
DOCUMENTS = Path(__file__).resolve().parents[3] / "shared/seeds"
#: Snippets that MLflow itself refuses, with what it says; trackdsl's own call does what they want.
REFUSED = {
    "Model Registry Integration": "input_example is required",
    "Model Signatures": "untrusted types",
    "Input Examples": "untrusted types",
}
#: The runs that a snippet leaves in its folder, and those at the server; None where the names are MLflow's own.
RUNS: dict[str, tuple[list[str] | int, list[str]]] = {
    "Basic Usage": (["mlflow_experiment"], ["custom_mlflow"]),
    "Via Settings": ([], ["configured_exp"]),
    "Via Configuration Object": ([], ["baseline_run_001"]),
    "Remote MLflow Server": ([], ["remote_experiment"]),
    "Experiment Organization": (["resnet_baseline"], []),
    "Artifact Management": (["artifact_demo"], []),
    "Auto-logging Integration": (["autolog_experiment"], []),
    "Connection Issues": (["connection_test_local"], []),
    "Experiment Creation": (["shared_run"], []),
    "PyTorch Training Loop": (["pytorch_training"], []),
    "Hyperparameter Optimization": (50, []),
    "Metric Organization": (["metric-organization"], []),
    "Resource Management": (["robust_experiment"], []),
    "Scikit-learn": (1, []),
    "PyTorch": (1, []),
    "TensorFlow/Keras": (1, []),
    "XGBoost": (1, []),
    "Nested Runs": (["evaluation", "full-pipeline", "preprocessing", "training"], []),
    "Custom Metrics and Step-wise Logging": (1, []),
    "Custom Model Logging": (1, []),
    "Comparison and Analysis": (3, []),
    "Logging Artifacts at Scale": (1, []),
    "System Metrics": (1, []),
    "Run Context and Metadata": (1, []),
}
#: The names of hosts in the documents lead to the server of the test, which no name server could do here.
NAMES = """
    import os, socket

    resolve = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **kwargs):
        if host in ("mlflow-server", "mlflow.company.com", "localhost") and str(port) == "5000":
            host, port = "127.0.0.1", int(os.environ["SNIPPETS_PORT"])
        return resolve(host, port, *args, **kwargs)

    socket.getaddrinfo = getaddrinfo
"""


@pytest.fixture(scope="session")
def server(services: Callable[..., Service]) -> Service:
    return services(
        "documents",
        lambda folder: mlflow_server(
            folder, "--backend-store-uri", "sqlite:///{folder}/srv.db", "--artifacts-destination", "{folder}/artifacts",
            "--allowed-hosts", "*", "--workers", "1",
        ),
    )  # fmt: skip


def run_names(uri: str) -> list[str]:
    recorded = Recorded(Path(), uri)
    return sorted(run.info.run_name for run in recorded.runs)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [pytest.param("tracelet", id="r1-r58"), pytest.param("mlflow", id="r59-r114")],
)
def test_r1_to_r114_snippets_run_unchanged(kind: str, tmp_path: Path, server: Service) -> None:
    """Every snippet of a document runs with no change but one import, and leaves the runs that it describes."""
    found = sorted(DOCUMENTS.glob("*.txt"))
    documents = [path for path in found if ("import tracelet" in path.read_text()) == (kind == "tracelet")]
    if not documents:
        pytest.skip(f"the documents are not at {DOCUMENTS}: they are not part of the project")
    if kind == "mlflow":
        for module in ("tensorflow", "xgboost"):
            pytest.importorskip(module, reason=f"pip install -e '.[integrations]' brings {module}")
    folder = tmp_path / "snippets"
    (folder / "hook").mkdir(parents=True)
    (folder / "hook/sitecustomize.py").write_text(textwrap.dedent(NAMES))
    there_before = run_names(server.uri)
    run_program(
        "snippets.py", folder, str(documents[0]), kind,
        PYTHONPATH=str(folder / "hook"), SNIPPETS_PORT=server.uri.rpartition(":")[2],
    )  # fmt: skip
    outcomes: list[tuple[str, str, str | None]] = json.loads((folder / "outcomes.json").read_text())
    assert len(outcomes) >= 15
    refused = {heading: error for heading, _, error in outcomes if error is not None}
    assert set(refused) == {heading for heading in REFUSED if heading in {each[0] for each in outcomes}}, refused
    assert all(REFUSED[heading] in error for heading, error in refused.items())
    there: list[str] = []
    for heading, subfolder, _ in outcomes:
        here, at_server = RUNS.get(heading, (None, []))
        there += at_server
        if here is None or (isinstance(here, list) and not here):
            continue
        names = run_names(f"sqlite:///{folder}/{subfolder}/mlflow.db")
        assert (len(names) if isinstance(here, int) else names) == here, heading
    new: list[Any] = run_names(server.uri)
    for name in there_before:
        new.remove(name)
    assert set(new) >= set(there)
    if kind == "tracelet":
        check_tracelet(folder, {heading: subfolder for heading, subfolder, _ in outcomes})


def check_tracelet(folder: Path, subfolders: dict[str, str]) -> None:
    """What the longer snippets of the first document leave."""

    def at(heading: str) -> Recorded:
        return Recorded(folder, f"sqlite:///{folder}/{subfolders[heading]}/mlflow.db")

    loop = at("PyTorch Training Loop")
    assert [step for step, _ in loop.points("pytorch_training", "train_loss")] == list(range(100))
    assert len(loop.files("pytorch_training", "checkpoints")) == 10
    files = at("Artifact Management").files("artifact_demo")
    # `trackdsl/` is the library's own folder, as in any root run: what changed, and the source of its functions.
    assert [path for path in files if not path.startswith("trackdsl/")] == [
        "configs/training_config.yaml", "datasets/processed_train.csv", "models/trained_model.pth",
    ]  # fmt: skip
    trials = at("Hyperparameter Optimization").runs
    assert sorted(int(run.data.params["trial_number"]) for run in trials) == list(range(50))
    assert {run.data.tags["trial_number"] == run.data.params["trial_number"] for run in trials} == {True}
