"""Structures that are kept as files, read back from a SQLite store."""

from __future__ import annotations

import datetime
import json

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

import trackdsl
from tests.conftest import client, deliver, last_run
from trackdsl import log_dict, log_table, stage


def test_a_real_store_holds_the_content(sqlite_store: str) -> None:
    """MLflow has the content of `log_dict`, `log_table` and a returned list."""
    mlflow = pytest.importorskip("mlflow")
    trackdsl.configure(tracking_uri=sqlite_store)
    with stage("s"):
        log_dict({"cm": np.array([[3, 1], [0, 4]]), "raw": b"\0"}, "eval.json")
        log_table({"e": [np.array([0.1, 0.2])], "d": [datetime.date(2024, 1, 2)]}, "e.json")
        log_dict(OmegaConf.create({"l": [1, "${x}"], "x": {"y": (1, 2)}, "m": "???"}), "c.yaml")
    deliver()
    run = last_run(sqlite_store)
    mlflow.set_tracking_uri(sqlite_store)
    root = f"runs:/{run.info.run_id}"
    assert mlflow.artifacts.load_dict(f"{root}/eval.json") == {"cm": [[3, 1], [0, 4]], "raw": "eval.parts/raw.bin"}
    table = json.loads(mlflow.artifacts.load_text(f"{root}/e.json"))
    assert table == {"columns": ["e", "d"], "data": [[[0.1, 0.2], "2024-01-02"]]}
    config = yaml.safe_load(mlflow.artifacts.load_text(f"{root}/c.yaml"))
    assert config == {"l": [1, {"y": [1, 2]}], "x": {"y": [1, 2]}, "m": "???"}
    assert "missing" in run.data.tags["trackdsl.omitted.c.yaml/m"]
    assert "eval.parts/raw.bin" in run.data.tags["trackdsl.omitted.eval.json/raw"]
    assert client(sqlite_store).list_artifacts(run.info.run_id, "eval.parts")[0].path == "eval.parts/raw.bin"
