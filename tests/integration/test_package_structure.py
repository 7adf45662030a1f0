"""What the package imports in a fresh process."""

from __future__ import annotations

import ast
import json
import site
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

import trackdsl
from tests.conftest import Server, all_runs, client, deliver
from tests.unit.syntax_trees import PACKAGE
from trackdsl import experiment, log_metric, settings, stage
from trackdsl.journal import _target

ROOT = PACKAGE.parent


def test_the_bridge_waits_for_mlflow() -> None:
    """Installing the bridge imports neither MLflow nor the parts of the bridge that do."""
    program = (
        "import sys, trackdsl.mlflow_bridge as bridge; bridge.install(); bridge.install(); "
        "print([name for name in sys.modules if name.split('.')[0] == 'mlflow' or name.startswith(bridge.__name__)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['trackdsl.mlflow_bridge']\n"


@pytest.mark.parametrize("module", sorted(set(dir(trackdsl)) - set(trackdsl.__all__)))
def test_every_module_that_completion_offers_is_there(module: str) -> None:
    """A module in `dir(trackdsl)` is an attribute right after `import trackdsl`, where nothing has imported it yet."""
    program = f"import sys, trackdsl; assert 'trackdsl.{module}' not in sys.modules; print(trackdsl.{module}.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"trackdsl.{module}\n", "")


#: What takes long to import, and is for users' values, servers, commands or MLflow.
HEAVY = frozenset(
    ["mlflow", "numpy", "pandas", "pydantic", "pydantic_settings", "click", "rich", "tqdm", "sqlalchemy", "psutil",
     "requests", "urllib3", "urllib.request", "http.client", "ssl", "email", "asyncio", "concurrent.futures"]
)  # fmt: skip
#: What only recording needs.
RECORDING = frozenset(
    ["trackdsl._decorate", "trackdsl._recording", "trackdsl._runs", "trackdsl._api", "trackdsl.session",
     "trackdsl.handlers", "trackdsl.markers", "trackdsl.mlflow_bridge"]
)  # fmt: skip


@pytest.mark.parametrize(
    ("program", "unwanted"),
    [
        ("import trackdsl", HEAVY | RECORDING | {"trackdsl.errors", "trackdsl.journal", "dataclasses", "logging"}),
        ("from trackdsl import experiment, stage, log_metric", HEAVY | {"sqlite3", "trackdsl.query", "trackdsl.cli"}),
        (
            "import trackdsl.delivery.service",
            HEAVY | RECORDING | {"trackdsl.delivery.program._client", "trackdsl.store_format.report.page"},
        ),
    ],
)
def test_what_an_import_leaves_out(program: str, unwanted: frozenset[str]) -> None:
    """Importing the package, the names of recording or the delivery process imports only what they need."""
    shown = f"import sys; {program}; print(*sys.modules)"
    # `-I` and no site: packages of the environment may import what they like when Python starts.
    code = f"import sys; sys.path[:0] = {[str(ROOT), *site.getsitepackages()]!r}; {shown}"
    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True)
    assert unwanted.intersection(done.stdout.split()) == set()


#: Runs commands, and prints which of some modules each of them has imported first.
COMMANDS = """
import contextlib, io, json, sys
from trackdsl.cli import main
commands, unwanted = json.loads(sys.argv[1])
imported = {}
for command in commands:
    before = set(sys.modules)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(command.split())
        except SystemExit as ended:
            code = ended.code
    imported[command] = [code, sorted((set(sys.modules) - before).intersection(unwanted))]
print(json.dumps(imported))
"""


def test_commands_import_only_what_they_need(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No command on a file of SQLite imports what servers, MLflow, recording, or a running program need."""
    monkeypatch.setenv("TRACKDSL_CHANGES", "1")

    @experiment
    def e() -> None:
        for _ in range(2):
            with stage("s", lr=0.1):
                log_metric("m", 1.0)

    e()
    deliver()
    on_runs = ["ls", "ls --json", "show e", "tree e", "compare s e", "changes e", "trace e", "report e"]
    commands = ["--help", "ls --help", "completion bash", "status", "doctor", *on_runs, "open e --no-browser"]
    unwanted = (HEAVY | RECORDING) - {"click", "rich"}
    unwanted |= {"importlib.metadata", "trackdsl.delivery.program._client", "trackdsl.journal._writer"}
    paths = [str(ROOT), *site.getsitepackages()]
    code = f"import sys; sys.path[:0] = {paths!r}; {COMMANDS}"
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code, json.dumps([commands, sorted(unwanted)])],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = {command: [0, []] for command in commands}
    assert json.loads(done.stdout) == expected | {commands[-1]: [1, []]}  # A store that is not a server has no page.


#: Delivers everything; prints the peak of its memory in kB, and what was imported. `ru_maxrss` would count what the
#: process that started it held.
DELIVERING = """
import sys
from pathlib import Path
from trackdsl.delivery.service import open_sink
from trackdsl.delivery.process._worker import Worker
worker = Worker(Path(sys.argv[1]), open_sink)
while worker.round() or not worker.idle():
    pass
worker.close()
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else ["VmHWM: 0"]
print(next(line for line in lines if line.startswith("VmHWM")).split()[1], *sys.modules)
"""


def delivered_by_a_process() -> tuple[int, set[str]]:
    """The most memory that a process which delivers what was recorded needs, in kB, and the modules it imports."""
    _target.close_all()
    spool = settings.spool()
    assert spool is not None
    command = [sys.executable, "-c", DELIVERING, str(spool)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, *modules = done.stdout.split()
    return int(peak), set(modules)


@pytest.mark.slow
def test_delivery_to_a_database_is_small(sqlite_store: str) -> None:
    """A process that delivers to a SQLite store imports no MLflow, SQLAlchemy or `requests`, and needs below 90 MB."""

    @stage(returns=True)
    def fit(lr: float) -> dict[str, float]:
        for step in range(10_000):
            log_metric("loss", lr / (step + 1), step)
        return {"accuracy": lr}

    with experiment("small"):
        for _ in range(20):
            fit(0.5)
    peak, modules = delivered_by_a_process()
    assert (HEAVY | RECORDING).intersection(modules) == set()
    assert peak < 90_000
    with closing(sqlite3.connect(sqlite_store.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("SELECT count(*) FROM metrics").fetchone() == (20 * 10_001,)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "plugin"])
def test_delivery_to_a_server_is_small(kind: str, own_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that delivers runs, datasets and files to a server needs no MLflow, and less than 90 MB."""
    own_server.options = ("--app-name", "trackdsl") if kind == "plugin" else ()
    own_server.start()
    monkeypatch.setenv("TRACKDSL_CHANGES", "1")
    with experiment("small", tracking_uri=own_server.uri):
        for _ in range(3):
            with stage("fit") as fit:
                log_metric("loss", 0.5)
                fit.log_input(np.arange(10.0), "train")
                fit.log_text("content", "folder/text.txt")
                fit.log_table({"a": [1, 2]}, "table.json")
    peak, modules = delivered_by_a_process()
    assert {"mlflow", "sqlalchemy", "pandas", "numpy"}.intersection(modules) == set()
    assert peak < 90_000
    root = next(run for run in all_runs(own_server.uri) if run.info.run_name == "small")
    stored = client(own_server.uri).list_artifacts(root.info.run_id, "trackdsl")
    assert "trackdsl/changes.json" in {file.path for file in stored}


def test_every_public_name_has_a_module() -> None:
    """The names that are imported at their first use are those that type checkers see, from the same modules."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {
        (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module not in ("typing", "trackdsl")
        for alias in node.names
    }
    listed = {
        (module, name)
        for table in (trackdsl._MODULES, trackdsl._LATE)
        for module, names in table.items()
        for name in names
    }
    assert listed == seen
    assert {name for _, name in listed} == {*trackdsl.__all__} - {"__version__"}


def test_objects_of_modules_that_are_imported_late_belong_to_the_package() -> None:
    """A handle of a model and settings are public objects also in a program that never names their classes."""
    program = (
        "import trackdsl, trackdsl._runs.recorded_model as models, trackdsl._config.model as settings; "
        "print(models.RecordedModel.__module__, settings.Settings.__module__, vars(trackdsl).get('RecordedModel'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "trackdsl trackdsl None\n"
