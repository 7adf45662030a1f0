"""Notebooks that other programs execute: papermill, nbmake, and kernels with `TRACKDSL_NOTEBOOK=1`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.conftest import all_runs, client, deliver
from tests.notebooks.kernels import ROOT, Kernel

SECRET = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def environment(sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", sqlite_store)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return sqlite_store


def notebook(path: Path, *cells: str, parameters: str = "lr = 0.1\nepochs = 3") -> Path:
    """Write a notebook whose first cell has the tag `parameters`."""
    code = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    code += [nbformat.v4.new_code_cell(cell) for cell in cells]
    kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata={"kernelspec": kernelspec}), path)
    return path


def papermill(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "papermill", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def runs_of(store: str) -> dict[str, Any]:
    deliver(store)
    return {run.info.run_name: run for run in all_runs(store)}


def executed(store: str, run: Any) -> Any:
    path = client(store).download_artifacts(run.info.run_id, "executed.ipynb")
    nbformat.validate(nbformat.read(path, as_version=4))
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_papermill(tmp_path: Path, sqlite_store: str) -> None:
    """Parameters, replaced and default ones, are the root run's; the executed notebook is its artifact, masked."""
    source = notebook(
        tmp_path / "train.ipynb",
        "%load_ext trackdsl\n%experiment churn seed=1 epochs=epochs+1",
        f"%%stage fit --metrics acc\nacc = lr * 2\nprint('token={SECRET}')\ntoken = '{SECRET}'",
    )
    done = papermill(source, tmp_path / "out.ipynb", "-p", "lr", "0.25", "-p", "password", "hunter2-hunter2")
    assert done.returncode == 0, done.stderr
    runs = runs_of(sqlite_store)
    assert set(runs) == {"train", "fit"}
    root = runs["train"].data.params
    assert (root["lr"], root["epochs"], root["seed"]) == ("0.25", "4", "1")  # What the magic says counts.
    assert runs["fit"].data.metrics == {"acc": 0.5}
    kept = executed(sqlite_store, runs["train"])
    assert [cell["execution_count"] for cell in kept["cells"]] == [1, 2, 3, 4]
    assert "fit  FINISHED" in str(kept["cells"][-1]["outputs"])
    for text in (json.dumps(kept), str(root)):
        assert SECRET not in text
        assert "hunter2" not in text


@pytest.mark.parametrize("loaded", ["%load_ext trackdsl", "TRACKDSL_NOTEBOOK"])
def test_papermill_without_a_magic(
    tmp_path: Path, sqlite_store: str, monkeypatch: pytest.MonkeyPatch, loaded: str
) -> None:
    """With a line or a variable, the notebook is one root run with decorated calls below; a failed cell fails it."""
    if loaded == "TRACKDSL_NOTEBOOK":
        monkeypatch.setenv(loaded, "1")
        loaded = ""
    source = notebook(
        tmp_path / "plain.ipynb",
        f"{loaded}\nfrom trackdsl import stage\n@stage\ndef load(rows): return rows\nload(3)",
        "raise LookupError('no data')",
        "load(4)",
    )
    done = papermill(source, tmp_path / "out.ipynb")
    assert done.returncode != 0
    assert "LookupError" in done.stderr
    runs = runs_of(sqlite_store)
    assert {name: run.info.status for name, run in runs.items()} == {"plain": "FAILED", "load": "FINISHED"}
    assert runs["load"].data.tags["mlflow.parentRunId"] == runs["plain"].info.run_id
    assert runs["plain"].data.params == {"lr": "0.1", "epochs": "3"}
    assert runs["plain"].data.tags["trackdsl.exception.message"] == "no data"
    assert "no data" in str(executed(sqlite_store, runs["plain"])["cells"][2]["outputs"])


def test_papermill_with_the_variable_alone(tmp_path: Path, sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `TRACKDSL_NOTEBOOK=1`, a notebook that does not know trackdsl is a root run, and magics need no import."""
    monkeypatch.setenv("TRACKDSL_NOTEBOOK", "1")
    source = notebook(tmp_path / "unknowing.ipynb", "print(lr)", "%%stage fit --metrics acc\nacc = lr")
    done = papermill(source, tmp_path / "out.ipynb", "-p", "lr", "0.5")
    assert done.returncode == 0, done.stderr
    runs = runs_of(sqlite_store)
    assert runs["unknowing"].data.params == {"lr": "0.5", "epochs": "3"}
    assert runs["fit"].data.metrics == {"acc": 0.5}
    assert "0.5" in str(executed(sqlite_store, runs["unknowing"])["cells"][2]["outputs"])


def test_papermill_with_a_root_of_the_code(tmp_path: Path, sqlite_store: str) -> None:
    """A root run that code begins, and not a magic, has the parameters and the notebook too. They may be long."""
    source = notebook(
        tmp_path / "code.ipynb",
        "%load_ext trackdsl\nimport trackdsl\nwith trackdsl.experiment('e', run_name='r'): pass",
    )
    (tmp_path / "parameters.yaml").write_text(f"lr: 0.5\ntext: {'x' * 200_000}\n")
    done = papermill(source, tmp_path / "out.ipynb", "-f", tmp_path / "parameters.yaml")
    assert done.returncode == 0, done.stderr
    runs = runs_of(sqlite_store)
    assert set(runs) == {"r"}
    assert (runs["r"].data.params["lr"], runs["r"].data.params["epochs"]) == ("0.5", "3")
    assert runs["r"].data.params["text"].startswith("xxx")
    assert executed(sqlite_store, runs["r"])["cells"]


def test_papermill_leaves_other_notebooks_alone(tmp_path: Path, sqlite_store: str) -> None:
    """A notebook that does not load the extension records nothing, and no file is left behind."""
    source = notebook(tmp_path / "plain.ipynb", "import os, sys\nassert 'trackdsl' not in sys.modules")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        ["env", f"TMPDIR={temporary}", sys.executable, "-m", "papermill", str(source), "out.ipynb"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(temporary.glob("trackdsl*"))
    assert not Path(sqlite_store.removeprefix("sqlite:///")).exists() or not all_runs(sqlite_store)


def test_the_variable_loads_the_extension(tmp_path: Path, sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `TRACKDSL_NOTEBOOK=1`, `import trackdsl` in a kernel is enough for the magics, also under nbmake."""
    monkeypatch.setenv("TRACKDSL_NOTEBOOK", "1")
    source = notebook(tmp_path / "made.ipynb", "import trackdsl", "%%stage fit --metrics acc\nacc = lr", "1 / 0")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbmake", "-p", "no:cacheprovider", str(source)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert "ZeroDivisionError" in done.stdout
    assert done.returncode == 1
    runs = runs_of(sqlite_store)
    assert {name: run.info.status for name, run in runs.items()} == {"notebook": "FAILED", "fit": "FINISHED"}
    assert runs["notebook"].data.tags["trackdsl.exception.type"].endswith("ZeroDivisionError")


@pytest.mark.parametrize("value", ["0", None])
def test_without_the_variable_nothing_is_loaded(tmp_path: Path, value: str | None) -> None:
    """`import trackdsl` alone leaves a kernel as it is."""
    kernel = Kernel(tmp_path, **({} if value is None else {"TRACKDSL_NOTEBOOK": value}))
    try:
        kernel.ok("import trackdsl, sys")
        assert kernel.value("'stage' in get_ipython().magics_manager.magics['cell']") is False
        assert kernel.value("'trackdsl.notebook.magics' in sys.modules") is False
    finally:
        kernel.end()
