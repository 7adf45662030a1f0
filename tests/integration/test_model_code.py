"""Models that need modules of the project: these are stored with the model, so that it loads elsewhere."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest

from tests.conftest import StartProgram
from trackdsl import Model, OptionError, stage, track_returns
from trackdsl.handlers import _code
from trackdsl.testing import capture_runs

pytest.importorskip("sklearn")

from sklearn.preprocessing import FunctionTransformer

MODULES = {
    "own_steps.py": "import own_helpers\n\ndef half(x):\n    return own_helpers.half(x)\n",
    "own_helpers.py": "def half(x):\n    import own_package.deep\n    return own_package.deep.half(x)\n",
    "own_package/__init__.py": "",
    "own_package/deep.py": (
        "import os\nfrom . import other\n\ndef half(x):\n"
        "    return x / float(open(os.path.join(os.path.dirname(__file__), 'two.txt')).read())\n"
    ),
    "own_package/other.py": "import json\n",
    "own_package/two.txt": "2",
    "own_package/.env": "SECRET=1",
    "own_package/__pycache__/deep.pyc": "",
}
WHOLE = {
    "own_steps.py",
    "own_helpers.py",
    *(f"own_package/{name}" for name in ("__init__.py", "deep.py", "other.py", "two.txt")),
}


def write_modules(folder: Path) -> None:
    for name, content in MODULES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@pytest.fixture
def own_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of the project, which imports others."""
    write_modules(Path.cwd())
    monkeypatch.syspath_prepend(str(Path.cwd()))
    yield importlib.import_module("own_steps")
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def code_of(snapshot: Path) -> set[str]:
    folder = snapshot / "model" / "code"
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def spec_of(snapshot: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((snapshot / "spec.json").read_text())
    return found


def test_the_project_s_own_modules_go_with_a_model(own_steps: Any) -> None:
    """The modules that a pickle names, and their imports, are stored as whole packages without hidden files."""
    with capture_runs() as captured, stage("train") as run:
        run.log_model(FunctionTransformer(own_steps.half), "m")
        run.log_model(own_steps.half, "anything")
        run.log_model(FunctionTransformer(len), "none")
        models = captured.one("train").models
        assert code_of(models["m"]) == WHOLE
        assert spec_of(models["m"])["options"]["code"] == "code"
        assert code_of(models["anything"]) == WHOLE | {"trackdsl_callable.py"}
        assert code_of(models["none"]) == set()
        assert spec_of(models["none"])["options"]["code"] is None
        assert not any("own_" in line for line in spec_of(models["m"])["requirements"])
    assert not [tag for tag in captured.one("train").tags if "omitted" in tag]


def test_code_that_the_user_names_is_packed_instead(own_steps: Any) -> None:
    """`code_paths` of `log_model` and `Model` takes files, folders or none; anything else is an error at once."""

    @stage
    @track_returns
    def train() -> Annotated[object, Model("marked", code_paths=["own_steps.py"])]:
        return FunctionTransformer(own_steps.half)

    with capture_runs() as captured, stage("around") as run:
        run.log_model(FunctionTransformer(own_steps.half), "given", code_paths=["own_helpers.py", Path("own_package")])
        run.log_model(FunctionTransformer(own_steps.half), "none", code_paths=[])
        train()
        models = captured.one("around").models
        assert code_of(models["given"]) == WHOLE - {"own_steps.py"}
        assert code_of(models["none"]) == set()
        assert code_of(captured.one("train").models["marked"]) == {"own_steps.py"}
        for wrong in ("own_steps.py", [3], ["missing.py"]):
            with pytest.raises(OptionError, match="code_paths"):
                run.log_model(FunctionTransformer(), "wrong", code_paths=wrong)
    with pytest.raises(OptionError, match="code_paths"):
        Model("m", code_paths="own_steps.py")


def test_code_that_cannot_be_packed_is_reported(
    own_steps: Any, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A package that is too large goes without its data, or not at all; one outside of the project is named."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "own_outside.py").write_text("def same(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(outside))
    other = importlib.import_module("own_outside")
    with capture_runs() as captured, stage("train") as run:
        run.log_model(FunctionTransformer(other.same), "elsewhere")
        monkeypatch.setattr(_code, "_MAX_FILES", 3)
        run.log_model(FunctionTransformer(own_steps.half), "slim")
        monkeypatch.setattr(_code, "_MAX_FILES", 2)
        run.log_model(FunctionTransformer(own_steps.half), "refused")
        models = captured.one("train").models
        assert code_of(models["slim"]) == WHOLE - {"own_package/two.txt"}
        assert code_of(models["refused"]) == {"own_steps.py", "own_helpers.py"}
    tags = captured.one("train").tags
    assert f"pass code_paths=['{outside}" in tags["trackdsl.omitted.elsewhere.code"]
    assert "over 2 files" in tags["trackdsl.omitted.refused.code"]
    assert "trackdsl.omitted.slim.code" not in tags


LAYOUTS: dict[str, tuple[dict[str, str], str, set[str]]] = {
    "imported by a name in a call": (
        {"own_calls.py": "import importlib\ndef f(x):\n    return importlib.import_module('own_called').f(x)\n",
         "own_called.py": "def f(x):\n    return x\n"},
        "own_calls",
        {"own_calls.py", "own_called.py"},
    ),
    "named as one of Python's": ({"graphlib.py": "def f(x):\n    return x\n"}, "graphlib", {"graphlib.py"}),
    "a package in several folders": (
        {"one/own_spread/a.py": "def f(x):\n    return x\n", "two/own_spread/b.py": ""},
        "own_spread.a",
        {"own_spread/a.py", "own_spread/b.py"},
    ),
    "of simulations": (
        {"own_games/__init__.py": "def f(x):\n    return x\n", "own_games/env/__init__.py": "",
         "own_games/venv/pyvenv.cfg": "", "own_games/venv/site.py": ""},
        "own_games",
        {"own_games/__init__.py", "own_games/env/__init__.py"},
    ),
    "with secrets": (
        {"own_keys/__init__.py": "def f(x):\n    return x\n", "own_keys/secrets.yaml": "", "own_keys/server.pem": ""},
        "own_keys",
        {"own_keys/__init__.py"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_code_of_every_layout_is_packed_with_a_model(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code is stored under its import name, without secrets and other files, which is reported."""
    files, module, expected = LAYOUTS[layout]
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)
    for folder in ("", "one", "two"):
        monkeypatch.syspath_prepend(str(Path.cwd() / folder))
    monkeypatch.delitem(sys.modules, module, raising=False)
    try:
        with capture_runs() as captured, stage("train") as run:
            run.log_model(FunctionTransformer(importlib.import_module(module).f), "m")
            assert code_of(captured.one("train").models["m"]) == expected
    finally:
        for name in [name for name in sys.modules if name.startswith("own_") or name == "graphlib"]:
            del sys.modules[name]
    omitted = captured.one("train").tags.get("trackdsl.omitted.m.code", "")
    assert ("looks like that of a secret" in omitted) == (layout == "with secrets")


def test_code_that_was_loaded_by_its_path_has_the_name_that_it_is_imported_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that a script loaded from its path, or through a link, is stored under the name that imports it."""
    for name in ("step-01.py", "own_real_v2/__init__.py"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("def f(x):\n    return x\n")
    Path("own_link").symlink_to("own_real_v2")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    spec = importlib.util.spec_from_file_location("own_step", Path.cwd() / "step-01.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "own_step", module)
    spec.loader.exec_module(module)
    with capture_runs() as captured, stage("train") as run:
        run.log_model(FunctionTransformer(module.f), "file")
        run.log_model(FunctionTransformer(importlib.import_module("own_link").f), "link")
        models = captured.one("train").models
        assert code_of(models["file"]) == {"own_step.py"}
        assert code_of(models["link"]) == {"own_link/__init__.py"}
    del sys.modules["own_link"]


#: Each way of loading has a process of its own, forked from one that has imported the libraries and nothing of a model.
LOAD = """
import os, sys, mlflow.pyfunc, mlflow.sklearn, numpy as np, trackdsl
import mlflow.store.model_registry.sqlalchemy_store, mlflow.store.tracking.sqlalchemy_store
import sklearn.linear_model, sklearn.pipeline, sklearn.preprocessing
store, *uris = sys.argv[1:]
mlflow.set_tracking_uri(store)
loaders = {"ours": lambda uri: trackdsl.load_model(uri, trusted=True, tracking_uri=store),
           "pyfunc": mlflow.pyfunc.load_model, "sklearn": mlflow.sklearn.load_model}
for uri in uris:
    for how, load in loaders.items():
        if (pid := os.fork()) == 0:
            print(how, load(uri).predict(np.array([[8.0, 9.0]])).round(6).tolist())
            sys.exit()
        os.waitpid(pid, 0)
"""


@pytest.mark.long
@pytest.mark.slow
def test_a_model_with_own_modules_loads_elsewhere(start: StartProgram, sqlite_store: str, tmp_path: Path) -> None:
    """A model loads in a fresh process in another folder, by flavour, pyfunc and trackdsl, with lazy imports."""
    write_modules(tmp_path)  # Beside the program, which runs in another folder.
    program = start(
        """
        import numpy as np, own_steps, trackdsl
        from sklearn.linear_model import LinearRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer

        def lazy(x):
            import own_helpers
            return own_helpers.half(x)

        X = np.arange(12.0).reshape(6, 2)
        with trackdsl.stage("train") as run:
            for half in (own_steps.half, lazy):
                model = make_pipeline(FunctionTransformer(half), LinearRegression()).fit(X, X[:, 0] / 2)
                recorded = run.log_model(model, "m", input_example=X)
                print(recorded.uri)
        """,
        TRACKDSL_MODE="online",
        TRACKDSL_TRACKING_URI=sqlite_store,
    )
    code, out, err = program.finish()
    assert code == 0, err
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    uris = out.split()
    assert len(uris) == 2
    command = [sys.executable, "-c", LOAD, sqlite_store, *uris]
    loaded = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)
    assert loaded.stdout.splitlines() == ["ours [4.0]", "pyfunc [4.0]", "sklearn [4.0]"] * 2, loaded.stderr
