"""Runs the snippets of a document one after the other, each in a folder of its own; prints what became of each.

    python snippets.py DOCUMENT tracelet|mlflow

Each snippet is preceded by a preamble that defines the names and files that it assumes. The snippets are unchanged
except for the import of tracelet.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")

_IMPORTS = (
    (r"^import tracelet$", "import trackdsl.compat.tracelet as tracelet"),
    (r"^from tracelet\.settings import", "from trackdsl.compat.tracelet import"),
)


def snippets(document: Path) -> list[tuple[str, str]]:
    """Each Python snippet with the heading above it."""
    found, heading = [], ""
    for part in re.split(
        r"(^#+ [^\n]*$|^```python\n.*?^```$)", document.read_text(encoding="utf-8"), flags=re.M | re.S
    ):
        if part.startswith("```python"):
            code = part.removeprefix("```python\n").removesuffix("```")
            for pattern, replacement in _IMPORTS:
                code = re.sub(pattern, replacement, code, flags=re.MULTILINE)
            found.append((heading, code))
        elif part.startswith("#"):
            heading = part.lstrip("# ").strip()
    return found


@functools.lru_cache
def granted() -> dict[str, Any]:
    """The names that the snippets take for granted; made before any of them has switched autologging on."""
    from datetime import datetime

    import mlflow
    import numpy as np
    import pandas as pd
    import torch
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.preprocessing import StandardScaler

    data = load_iris(as_frame=True)
    net = torch.nn.Linear(784, 10)
    labels = data.target.to_numpy()
    forest = RandomForestClassifier(n_estimators=3).fit(data.data, labels)
    return {
        "__name__": "__main__", "mlflow": mlflow, "np": np, "pd": pd, "torch": torch, "datetime": datetime,
        "dataloader": [(torch.zeros(4, 784), torch.zeros(4, dtype=torch.long)) for _ in range(2)],
        "net": net, "optimizer": torch.optim.Adam(net.parameters()),
        "X_train": data.data, "X_test": data.data, "y_train": labels, "y_test": labels,
        "forest": forest, "trained_model": forest, "preprocessor": StandardScaler().fit(data.data),
        "train_epoch": lambda: 0.5, "validate_epoch": lambda: 0.6, "train_model": lambda **_: 0.9,
        "epoch": 3, "train_loss": 0.5, "train_acc": 0.5, "val_loss": 0.6, "val_acc": 0.4, "current_lr": 0.1,
    }  # fmt: skip


def make_files() -> None:
    """The files that they take for granted, in the folder of each."""
    Path("config.yaml").write_text("lr: 0.1\n")
    Path("train_data.csv").write_text("a,b\n1,2\n")
    Path("model.pkl").write_bytes(b"a pickle")
    Path("output_dir").mkdir()
    Path("output_dir/one.txt").write_text("one")


def prepared(kind: str, heading: str) -> dict[str, Any]:
    """The names that a snippet starts with."""
    make_files()
    names = granted().copy()
    names["model"] = names["net"] if kind == "tracelet" else names["forest"]
    if kind == "tracelet":
        import trackdsl.compat.tracelet as tracelet

        names["tracelet"] = tracelet
        if heading == "Metric Organization":
            names["exp"] = tracelet.start_logging("metric-organization")
    if heading in ("Search and Query Runs", "Comparison and Analysis"):
        record_for_queries()
    return names


def record_for_queries() -> None:
    import trackdsl
    from trackdsl import experiment

    for number in range(3):
        with experiment("my-experiment") as run:
            run.log_param("model_type", "RandomForest")
            run.log_metrics({"accuracy": 0.86 + number / 20, "f1_score": 0.8 + number / 20})
    assert trackdsl.flush(120)


def main() -> None:
    document, kind = Path(sys.argv[1]), sys.argv[2]
    top = Path.cwd()
    outcomes = []
    import mlflow

    import trackdsl

    granted()
    for number, (heading, code) in enumerate(snippets(document)):
        folder = top / f"{number:02d}"
        folder.mkdir()
        os.chdir(folder)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        mlflow.set_tracking_uri(None)
        mlflow.tracking.fluent._active_experiment_id = None
        error = None
        try:
            exec(compile(code, f"<{heading}>", "exec"), prepared(kind, heading))  # noqa: S102 - what it is for
        except BaseException as raised:
            error = f"{type(raised).__name__}: {raised}".partition("\n")[0][:300]
            traceback.print_exc()
        finally:
            mlflow.end_run()
            trackdsl.stop_logging()
            mlflow.autolog(disable=True)
            mlflow.disable_system_metrics_logging()
            trackdsl.flush(120)
        outcomes.append([heading, folder.name, error])
    os.chdir(top)
    Path("outcomes.json").write_text(json.dumps(outcomes))
    atexit.unregister(trackdsl.stop_logging)


if __name__ == "__main__":
    main()
