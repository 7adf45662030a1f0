"""The magics in a real kernel: what a cell becomes, and that it runs as it would without them."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.conftest import all_runs, client, deliver, wait_until
from tests.notebooks.kernels import ROOT, Kernel


def test_a_cell_is_a_stage_of_the_experiment(kernel: Kernel) -> None:
    """`%experiment` opens a root; a cell with `%%stage` is a child with its values, literals, metrics and source."""
    kernel.ok("n = 5")
    kernel.ok("%experiment churn seed=42")
    kernel.ok("%%stage fit-{model} lr=0.1/2 depth=n model='rf' --metrics acc\nepochs = 3\nacc = lr * depth", cell="c1")
    assert kernel.value("[lr, depth, model, seed]") == [0.05, 5, "rf", 42]
    root, run = kernel.recorded()
    assert (root.experiment, root.name, root.parent, root.params, root.status) == (
        "churn", "notebook", None, {"seed": 42}, "RUNNING",
    )  # fmt: skip
    assert (run.name, run.parent, run.status) == ("fit-rf", "notebook", "FINISHED")
    assert run.params == {"epochs": 3, "lr": 0.05, "depth": 5, "model": "rf"}
    assert run.metrics == {"acc": 0.25}
    assert run.artifacts["cell.py"].startswith("%%stage fit-{model} lr=0.1/2")
    about = json.loads(run.tags["trackdsl.cell"])
    assert about["id"] == "c1"
    assert about["count"] > 0
    assert len(about["kernel"]) == 36
    kernel.ok("%experiment --end")
    assert kernel.one("notebook").status == "FINISHED"


def test_the_first_stage_opens_a_root(kernel: Kernel) -> None:
    """Without `%experiment`, the first stage opens a root, which the next one shares."""
    kernel.ok("%%stage load\nx = 1", cell="a")
    kernel.ok("%%stage fit\ny = x", cell="b")
    assert [(run.name, run.parent) for run in kernel.recorded()] == [
        ("notebook", None), ("load", "notebook"), ("fit", "notebook"),
    ]  # fmt: skip


def test_experiment_again_opens_another(kernel: Kernel) -> None:
    """`%experiment` ends the root that is open; alone it says which is open."""
    assert "no experiment is open" in kernel.ok("%experiment")
    kernel.ok("%experiment one --run-name first")
    kernel.ok("%experiment two --tags team=cv")
    assert "experiment 'two', run 'notebook'" in kernel.ok("%experiment")
    first, second = kernel.recorded()
    assert (first.name, first.experiment, first.status) == ("first", "one", "FINISHED")
    assert (second.experiment, second.status, second.tags["team"]) == ("two", "RUNNING", "cv")


def test_a_cell_as_an_experiment(kernel: Kernel) -> None:
    """`%%experiment` makes its cell a root run, also while another root is open, which is current again after it."""
    kernel.ok("%experiment outer")
    kernel.ok("%%experiment churn lr=1 --metrics acc\nimport trackdsl\nacc = lr + 1\nwith trackdsl.stage('in'): pass")
    kernel.ok("%%stage after\npass")
    alone = kernel.one("churn")
    assert (alone.experiment, alone.parent, alone.params, alone.metrics) == ("churn", None, {"lr": 1}, {"acc": 2.0})
    assert kernel.one("in").parent == "churn"
    assert kernel.one("after").parent == "notebook"


def test_a_root_inside_of_a_block(kernel: Kernel) -> None:
    """After a cell that is a root run, the block around it is current again."""
    inner = "get_ipython().run_cell('%%experiment alone\\n1')"
    kernel.ok(f"import trackdsl\nwith trackdsl.stage('block'):\n    {inner}\n    trackdsl.log_metric('m', 1)")
    assert kernel.one("alone").parent is None
    assert kernel.one("block").metrics == {"m": 1.0}


def test_errors_are_those_of_the_cell(kernel: Kernel) -> None:
    """An exception arrives as it was raised, ends the run as `FAILED`, and the next cell works."""
    answer = kernel.run("%%stage bad\nx = 1\nraise LookupError('no data')")
    assert answer.status == "error"
    assert answer.error == ("LookupError", "no data")
    run = kernel.one("bad")
    assert (run.status, run.failure[:2]) == ("FAILED", ["LookupError", "no data"])
    kernel.ok("%%stage good\nx = 2")
    assert kernel.one("good").status == "FINISHED"


def test_an_interrupt_kills_the_run(kernel: Kernel) -> None:
    """Interrupting the kernel ends the run as `KILLED`, in a cell that computes and in one that awaits."""
    # One long `sleep` is not interrupted: ipykernel's handler does not wake an idle event loop.
    waiting = "import asyncio\nwhile True: await asyncio.sleep(0.01)"
    for name, body in (("busy", "while True: pass"), ("waiting", waiting)):
        message = kernel.send(f"%%stage {name}\nprint('begun', flush=True)\n{body}")
        while kernel.client.get_iopub_msg(timeout=60)["content"].get("text") != "begun\n":
            pass
        os.kill(kernel.pid, signal.SIGINT)
        assert kernel.answer(message).status == "error"
        assert kernel.one(name).status == "KILLED"
    kernel.ok("%%stage after\npass")
    assert kernel.one("after").parent == "notebook"


def test_top_level_await(kernel: Kernel) -> None:
    """A cell that awaits, as the first of a notebook and later, runs, and its tasks record on its run."""
    kernel.ok("import asyncio, trackdsl")
    record = "async def one(): trackdsl.log_metric('m', 1)"
    body = f"{record}\nawait asyncio.gather(one(), asyncio.sleep(0))\nx = await asyncio.sleep(0, 7)"
    for name in ("first", "second"):
        kernel.ok(f"%%stage {name} --metrics x\n{body}")
        run = kernel.one(name)
        assert (run.status, run.metrics, run.parent) == ("FINISHED", {"m": 1.0, "x": 7.0}, "notebook")
    assert kernel.value("trackdsl.current_run().name") == "notebook"


@pytest.mark.parametrize(
    "cell",
    [
        "%%stage inner --metrics x\n%%time\nx = 3",
        "%%stage inner --metrics x\n\n%%capture out\nx = 3",
        "%%time\n%%stage inner --metrics x\nx = 3",
        "%%capture\n%%stage inner --metrics x\nx = 3",
        "%%stage inner --metrics x\n%matplotlib inline\n!echo hello\nfiles = !ls\nx = 3",
        "%%stage inner --metrics x\nget_ipython().run_cell('y = 1')\nx = 3",
        "\n%%stage inner --metrics x\nfrom __future__ import annotations\nx = 3",
        "get_ipython().run_cell_magic('stage', 'inner --metrics x', 'x = 3')",
    ],
)
def test_other_magics_in_and_around_a_cell(kernel: Kernel, cell: str) -> None:
    """Other magics work below `%%stage`, above it and in the cell."""
    kernel.ok(cell)
    run = kernel.one("inner")
    assert (run.status, run.metrics) == ("FINISHED", {"x": 3.0})


def test_an_exception_that_another_magic_shows(kernel: Kernel) -> None:
    """A magic may show an exception and continue; the run is `FAILED` all the same."""
    kernel.ok("with open('bad.py', 'w') as file: file.write('1 / 0')")
    kernel.ok("%%stage timed\n%run bad.py")
    assert kernel.one("timed").status == "FAILED"


def test_the_last_value_is_recorded(kernel: Kernel) -> None:
    """The value of the last expression is recorded as `track_returns` does, with names or without, or not at all."""
    kernel.ok("import pandas as pd")
    kernel.ok("%%stage score\n0.5")
    kernel.ok("%%stage pair --returns low,high\n1, 2")
    kernel.ok("%%stage frame\npd.DataFrame({'a': [1]})")
    kernel.ok("%%stage silent --no-capture\n0.5")
    kernel.ok("%%stage quiet\n0.5;")
    kernel.ok("%%stage plot\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])")
    assert kernel.one("score").metrics == {"score": 0.5}
    assert kernel.one("pair").metrics == {"low": 1.0, "high": 2.0}
    assert "frame.parquet" in kernel.one("frame").artifacts
    assert kernel.one("silent").metrics == kernel.one("quiet").metrics == {}
    assert not [path for path in kernel.one("plot").artifacts if path.endswith(".pkl")]


def test_options_of_a_stage(kernel: Kernel) -> None:
    """`--params` chooses parameters, `--artifacts` keeps variables, a missing variable becomes a tag."""
    kernel.ok("%%stage chosen --params a,late --artifacts table --metrics gone --tags team=cv,try='2'\n"
              "a = 1\nb = 2\nlate = a + 4\ntable = {'x': 1}")  # fmt: skip
    kernel.ok("%%stage none lr=1 --params none\na = 1")
    run = kernel.one("chosen")
    assert run.params == {"a": 1, "late": 5}
    assert run.artifacts["table.json"].split() == ["{", '"x":', "1", "}"]
    assert "--metrics names it" in run.tags["trackdsl.omitted.gone"]
    assert (run.tags["team"], run.tags["try"]) == ("cv", "2")
    assert kernel.one("none").params == {"lr": 1}


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%%stage fit --metric acc\n1", "has no option --metric; did you mean `metrics`?"),
        ("%%stage fit lr = 0.1\n1", "takes one name"),
        ("%%stage lr=0.1\n1", "%%stage takes a name"),
        ("%%stage fit-{model}\n1", "which is not a variable"),
        ("%%stage fit x=1+\n1", "is not a Python expression"),
        ("%%stage fit x=[1\n1", "not closed"),
        ("%trackdsl trees", "did you mean `tree`?"),
        ("%%stage fit class=1\n1", "is a Python keyword"),
        ("%%stage fit --metrics a --metrics b\n1", "has --metrics twice"),
        ("%%stage fit --metrics a, b\n1", "no spaces around commas"),
        ("%trackdsl tree fit", "%trackdsl takes one command: `%trackdsl tree`."),
        ("%%experiment churn --end\n1", "has no option --end"),
        ("%experiment churn lr = 1", "%experiment takes one name"),
        ("%tracked", "%tracked takes a function"),
    ],
)
def test_wrong_use_is_an_error(kernel: Kernel, cell: str, message: str) -> None:
    """Wrong use is an error in one line that says what to write, and nothing is recorded or executed."""
    answer = kernel.run(cell)
    assert answer.status == "error"
    assert answer.error is not None
    assert answer.error[0] == "UsageError"
    assert message in answer.error[1]
    assert kernel.recorded() == []


def test_errors_in_expressions_are_the_users(kernel: Kernel) -> None:
    """What an expression of the magic raises arrives as it is, before anything is recorded or assigned."""
    answer = kernel.run("%%stage fit a=1 lr=nowhere\nb = 2")
    assert answer.error == ("NameError", "name 'nowhere' is not defined")
    assert kernel.recorded() == []
    assert kernel.value("'a' in dir()") is False


def test_help_of_each_magic(kernel: Kernel) -> None:
    """`--help` shows how to use a magic."""
    for cell in ("%%stage --help\n1", "%experiment --help", "%tracked --help", "%trackdsl"):
        assert "%" in kernel.ok(cell)
    assert kernel.recorded() == []


def test_no_hooks_but_while_a_cell_runs(kernel: Kernel) -> None:
    """Callbacks of IPython are there only while a cell with a run is executed; unloading removes everything."""
    ours = "[str(each) for each in found if 'trackdsl' in each.__module__]"
    callbacks = f"{{name: {ours} for name, found in get_ipython().events.callbacks.items()}}"
    before = kernel.value(callbacks)
    kernel.ok("%experiment churn")
    kernel.ok(f"%%stage inner\nwithin = {callbacks}")
    assert len(kernel.value("within")["post_run_cell"]) == len(before["post_run_cell"]) + 2  # The session has one too.
    kernel.ok("%experiment --end")
    assert kernel.value(callbacks) == before
    kernel.ok("import trackdsl; trackdsl.unload_ipython_extension(get_ipython())")
    assert kernel.run("%%stage inner\n1").error == ("UsageError", "Cell magic `%%stage` not found.")


def test_disabled_records_nothing(kernel: Kernel) -> None:
    """With tracking switched off, cells run and variables are assigned."""
    kernel.ok("import trackdsl\ntrackdsl.configure(mode='disabled')")
    kernel.ok("%experiment churn a=1")
    kernel.ok("%%stage fit b=2\nc = a + b")
    assert kernel.value("c") == 3
    assert kernel.recorded() == []


def test_a_fault_of_ours_never_stops_a_cell(kernel: Kernel) -> None:
    """If recording fails, the cell is executed as without a magic, and the next one too."""
    kernel.ok("import trackdsl.notebook.cells as cells\nbefore = cells.open_scope\ncells.open_scope = None")
    kernel.ok("%%stage fit\nx = 5")
    kernel.ok("cells.open_scope = before\nending = cells.record_value\ncells.record_value = None")
    kernel.ok("%%stage again\nx = x + 1\nx")
    kernel.ok("cells.record_value = ending")
    assert kernel.value("x") == 6
    assert kernel.one("again").status == "FINISHED"
    assert kernel.one("again").tags["trackdsl.omitted.ending a cell"] == "TypeError: 'NoneType' object is not callable"


def test_a_hook_goes_after_a_fault(kernel: Kernel) -> None:
    """A fault in a callback or the translation of cells is reported once; the hook is removed, and cells still run."""
    kernel.ok("import trackdsl.notebook.cells as cells, trackdsl.notebook.syntax as syntax")
    kernel.ok("ending = cells.Cells._end\ndef fails(*_): raise RuntimeError('of ours')\ncells.Cells._end = fails")
    assert "could not end a cell as it should" in kernel.ok("%%stage fit\nx = 5")
    kernel.ok("cells.Cells._end = ending")
    assert kernel.value("[f for f in get_ipython().events.callbacks['post_run_cell'] if 'Cells' in str(f)]") == []
    assert kernel.one("fit").status == "FINISHED"
    kernel.ok("translating = syntax.CellMagics._translated\nsyntax.CellMagics._translated = fails")
    assert "records no more cells" in kernel.ok("x += 1")
    kernel.ok("%%stage again\nx += 1")
    kernel.ok("syntax.CellMagics._translated = translating\n%load_ext trackdsl\n%reload_ext trackdsl")
    kernel.ok("%%stage last\nx += 1")
    assert kernel.value("x") == 8
    assert [run.name for run in kernel.recorded() if run.name in ("again", "last")] == ["last"]


def test_secrets_in_a_cell(kernel: Kernel) -> None:
    """A secret in a cell's source or in a value of the magic is masked wherever it is recorded."""
    kernel.ok(
        "%%stage login password='hunter2-long-secret'\ntoken = 'ghp_0123456789abcdefghijABCDEFGHIJ012345'\nprint(1)"
    )
    assert kernel.value("password") == "hunter2-long-secret"
    text = json.dumps(vars(kernel.one("login")))
    assert "hunter2-long-secret" not in text
    assert "ghp_0123456789" not in text


def test_tracked_runs_a_function_as_a_stage(kernel: Kernel) -> None:
    """`%tracked` calls a function as a stage, gives back its value, and re-running the cell supersedes it."""
    kernel.ok("def train(n, lr=0.1):\n    return {'loss': n * lr}\nk = 4")
    kernel.ok("loss = %tracked train k+1 lr=0.5", cell="t")
    kernel.ok("loss = %tracked train k lr=0.5", cell="t")
    assert kernel.value("loss") == {"loss": 2.0}
    first, second = (run for run in kernel.recorded() if run.name == "train")
    assert (second.params, second.metrics, second.parent) == ({"n": 4, "lr": 0.5}, {"loss": 2.0}, "notebook")
    assert first.tags["trackdsl.superseded_by"] == second.id


def test_the_guide(kernel: Kernel) -> None:
    """The cells of the guide run unchanged, and record what it says."""
    guide = (ROOT / "notebooks/cells.md").read_text(encoding="utf-8")
    for at, cell in enumerate(re.findall(r"```ipython\n(.*?)```", guide, re.DOTALL)):
        kernel.ok(cell, cell=f"c{min(at, 2)}")
    root, load, older, newer = kernel.recorded()
    assert (root.experiment, root.params) == ("churn", {"seed": 42})
    assert load.params == {"rows": 200}
    assert (older.name, older.params) == ("fit-rf", {"model": "rf", "lr": 0.05, "depth": 3})
    assert older.tags["trackdsl.superseded_by"] == newer.id


def test_cells_of_a_subshell(kernel: Kernel) -> None:
    """A cell that a subshell executes meanwhile has a run of its own, and leaves the one that waits open."""
    subshell = kernel.subshell()
    kernel.ok("import threading\nreleased = threading.Event()")
    waiting = kernel.send("%%stage long --metrics x\nprint('begun', flush=True)\nreleased.wait(60)\nx = y + 1", "a")
    while kernel.client.get_iopub_msg(timeout=60)["content"].get("text") != "begun\n":
        pass
    beside = kernel.send("%%stage short\ny = 1\nreleased.set()", "b", subshell)
    statuses = kernel.statuses(waiting, beside)
    assert statuses == ["ok", "ok"]
    assert (kernel.one("long").metrics["x"], kernel.one("long").status) == (2.0, "FINISHED")
    assert (kernel.one("short").parent, kernel.one("short").status) == ("notebook", "FINISHED")


@pytest.mark.slow
def test_run_all_stops_at_a_failed_cell(tmp_path: Path, sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """nbclient stops at a stage that fails, as at any cell; the run and the notebook's root are `FAILED`."""
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", sqlite_store)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cells = [
        "%load_ext trackdsl",
        "%%stage good\nx = 1",
        "%%stage bad\nraise LookupError('no data')",
        "%%stage never\n1",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with pytest.raises(CellExecutionError, match="no data"):
        NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        ).execute()
    deliver(sqlite_store)
    assert {run.info.run_name: run.info.status for run in all_runs(sqlite_store)} == {
        "notebook": "FAILED", "good": "FINISHED", "bad": "FAILED",
    }  # fmt: skip


@pytest.mark.slow
def test_a_killed_kernel_leaves_no_open_run(tmp_path: Path, sqlite_store: str) -> None:
    """If a kernel dies within a cell, or is restarted, its runs end, at MLflow too."""
    kernel = Kernel(tmp_path, TRACKDSL_TRACKING_URI=sqlite_store)
    try:
        kernel.ok("%load_ext trackdsl")
        kernel.ok("%experiment churn")
        message = kernel.send("%%stage endless\nprint('begun', flush=True)\nwhile True: pass")
        while kernel.client.get_iopub_msg(timeout=60)["content"].get("text") != "begun\n":
            pass
        os.kill(kernel.pid, signal.SIGKILL)
        wait_until(lambda: not kernel.manager.is_alive(), "the end of the kernel")
        kernel.manager.restart_kernel(now=True)
        kernel.client.wait_for_ready(timeout=60)
        kernel.ok("%load_ext trackdsl")
        kernel.ok("%%stage again\nx = 1")
        kernel.manager.shutdown_kernel()
    finally:
        kernel.end()
    assert message
    deliver(sqlite_store)
    runs = all_runs(sqlite_store)
    root = next(run for run in runs if (run.info.run_name, run.info.status) == ("notebook", "FINISHED"))
    kept = {file.path for file in client(sqlite_store).list_artifacts(root.info.run_id)}
    assert kept >= {"session.ipynb", "reproduce.py"}
    found = {(run.info.run_name, run.info.status) for run in runs}
    assert found == {
        ("notebook", "KILLED"), ("endless", "KILLED"), ("notebook", "FINISHED"), ("again", "FINISHED"),
    }  # fmt: skip
