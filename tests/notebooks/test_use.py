"""What people write wrong, or otherwise than expected: lines of magics, values, commands at the wrong place."""

from __future__ import annotations

import ast

import pytest

from tests.notebooks.kernels import Kernel
from tests.notebooks.test_cards import cards


def card_of(kernel: Kernel, cell: str) -> str:
    """The text of the last card that a cell shows."""
    text: str = cards(kernel.run(cell))[-1]["content"]["data"]["text/plain"]
    return text


def test_a_value_that_the_cell_replaces(kernel: Kernel) -> None:
    """A value of the magic that the cell assigns anew is said on the card and in a tag; the same value is not."""
    card = card_of(kernel, "%%stage a lr=0.1 depth=2 size=[1] --metrics m\nlr = 0.2\ndepth = 2\nsize = [1]\nm = lr")
    assert [line for line in card.splitlines() if "⚠" in line] == [
        "  ⚠ left out: lr: the cell assigns another value than the magic's, which is the parameter"
    ]
    run = kernel.one("a")
    assert (run.params["lr"], run.metrics) == (0.1, {"m": 0.2})
    assert [name for name in run.tags if "omitted" in name] == ["trackdsl.omitted.lr"]
    assert "⚠" not in card_of(kernel, "%%stage b lr=0.1 rows=[]\nrows.append(1)\ndef f():\n    lr = 0.2")
    kernel.run("%%stage failing lr=0.1\nlr = 0.2\n1 / 0")
    assert "trackdsl.omitted.lr" in kernel.one("failing").tags


@pytest.mark.parametrize("command", ["%trackdsl Tree", "%trackdsl compare", "%trackdsl tree"])
@pytest.mark.parametrize("failed", [False, True])
def test_a_command_does_not_decide_how_a_run_ends(kernel: Kernel, command: str, failed: bool) -> None:
    """After a command that only shows something, or cannot, the outcome is what it was before."""
    kernel.ok("import sys, trackdsl._api.open_sessions as sessions")
    kernel.ok("%experiment churn")
    kernel.ok("%%stage a\n1", cell="a")
    if failed:
        kernel.run("1 / 0")
    kernel.run(command)
    outcome = "(error := sessions.last_uncaught()), error and sessions._recovered.holds(error, exits=False)"
    kernel.ok(f"before = {outcome}")  # Its own success counts only afterwards.
    error, recovered = kernel.value("[type(before[0]).__name__, before[1]]")
    assert (error == "ZeroDivisionError" and not recovered) if failed else (error == "NoneType" or recovered)


def test_no_experiment_within_a_stage(kernel: Kernel) -> None:
    """`%experiment` does not begin or end a root in a stage of another one: it says where to write it."""
    for inner in ("%experiment other", "%experiment --end"):
        answer = kernel.run(f"%%stage a\n{inner}")
        assert answer.error is not None
        assert answer.error[0] == "UsageError"
        assert "in a cell of its own, before this one" in answer.error[1]
    kernel.ok("%%stage b\n%experiment")
    assert {run.parent for run in kernel.recorded()} == {None, "notebook"}
    kernel.ok("%experiment --end")
    kernel.ok("%experiment other")
    assert [run.experiment for run in kernel.recorded() if run.parent is None][1:] == ["other"]


def test_an_experiment_of_a_cell_within_a_stage(kernel: Kernel) -> None:
    """`%%experiment` that a stage executes as a cell is a root, and the stage goes on after it."""
    kernel.ok("import trackdsl")
    kernel.ok("%%stage outer\nget_ipython().run_cell('%%experiment alone\\n1')\ntrackdsl.log_metric('after', 1)")
    kernel.ok("%%stage next\n1")
    assert (kernel.one("alone").parent, kernel.one("alone").status) == (None, "FINISHED")
    assert (kernel.one("outer").parent, kernel.one("outer").metrics["after"]) == ("notebook", 1.0)
    assert kernel.one("next").parent == "notebook"


@pytest.mark.parametrize(
    "cell",
    [
        "%%stage --help",
        "%%stage -h",
        "%%experiment -h",
        "%experiment -h",
        "%tracked -h",
        "%trackdsl -h",
        "%%stage fit lr=0.1 --help\ndone = 1",
        "%%stage -h\ndone = 1",
    ],
)
def test_help(kernel: Kernel, cell: str) -> None:
    """`--help` and `-h` of each magic need no cell below, and execute none."""
    assert cell.split()[0] in kernel.ok(cell)
    assert kernel.recorded() == []
    assert kernel.value("'done' in dir()") is False


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%%stage fit lr=.1, depth=3\n1", "there are no commas between values: lr=.1"),
        ("%%stage fit lr=.1,depth=3\n1", "there are no commas between values"),
        ("%%stage fit, lr=.1\n1", "there is no comma after the name: fit."),
        ("%experiment fit lr=.1,", "there are no commas between values: lr=.1"),
        ("%tracked double(3, k=count + 1)", "`%tracked double 3 k=(count + 1)`"),
        ("%tracked double()", "`%tracked double`"),
    ],
)
def test_errors_say_what_to_write(kernel: Kernel, cell: str, message: str) -> None:
    """Commas and calls are errors that say what to write, before anything is called or recorded."""
    kernel.ok("calls = []\ncount = 1\ndef double(x=1, k=2):\n    calls.append(x)\n    return x * k")
    answer = kernel.run(cell)
    assert answer.error is not None
    assert answer.error[0] == "UsageError"
    assert message in answer.error[1]
    assert kernel.recorded() == []
    assert kernel.value("calls") == []


def test_values_with_commas(kernel: Kernel) -> None:
    """Tuples in brackets, and functions that an expression in brackets gives, still work."""
    kernel.ok("from functools import partial")
    kernel.ok("%%stage a pair=(1,) both=1,2\n1")
    assert kernel.value("[pair, both]") == [[1], [1, 2]]
    assert kernel.ok("%tracked (partial(pow, 2)) 3").endswith("8")


def test_a_line_that_continues(kernel: Kernel) -> None:
    """A backslash continues the line of a magic."""
    kernel.ok("%%stage fit lr=0.1 \\\n    depth=3 \\\n  --metrics m\nm = lr * depth", cell="f")
    kernel.ok("%%time\n%%stage second \\ \n  lr=2\nx = lr")
    kernel.ok("%%stage fit lr=0.1 \\\n    depth=4 \\\n  --metrics m\nm = lr * depth", cell="f")
    older, newer = (run for run in kernel.recorded() if run.name == "fit")
    assert (newer.params, newer.metrics, newer.status) == ({"lr": 0.1, "depth": 4}, {"m": 0.4}, "FINISHED")
    assert older.tags["trackdsl.superseded_by"] == newer.id
    assert (kernel.one("second").params, kernel.one("second").status) == ({"lr": 2}, "FINISHED")
    kernel.ok("%experiment --end")
    root = next(run for run in kernel.recorded() if run.parent is None)
    ast.parse(root.artifacts["reproduce.py"])
    assert "depth = 4" in root.artifacts["reproduce.py"]


def test_a_literal_that_is_a_metric(kernel: Kernel) -> None:
    """A literal that `--metrics` names is no parameter, unless `--params` names it too."""
    kernel.ok("%%stage a --metrics m\nm = 1\nk = 2")
    kernel.ok("%%stage b --metrics m --params m\nm = 1\nk = 2")
    assert (kernel.one("a").params, kernel.one("a").metrics) == ({"k": 2}, {"m": 1.0})
    assert (kernel.one("b").params, kernel.one("b").metrics) == ({"m": 1}, {"m": 1.0})


def test_the_last_execution_of_a_function(kernel: Kernel) -> None:
    """`%trackdsl last` shows the time, the parameters and the metrics of a tracked function too."""
    kernel.ok("def train(n):\n    return {'loss': n * 2}")
    kernel.ok("%tracked train 3")
    shown = kernel.ok("%trackdsl last")
    assert "train  FINISHED  " in shown
    assert "loss  6" in shown
    assert "n=3" in shown


def test_comments_where_secrets_were(kernel: Kernel) -> None:
    """`reproduce.py` has a comment above each statement in which a secret was masked."""
    kernel.ok("%experiment churn")
    kernel.ok("api_key = 'sk-0123456789abcdefghijABCDEFGHIJ'\nplain = 'x'")
    kernel.ok("%%stage a password='hunter2-long-secret' --metrics m\nm = len(api_key) + len(plain)")
    kernel.ok("%experiment --end")
    program = next(run for run in kernel.recorded() if run.parent is None).artifacts["reproduce.py"].splitlines()
    assert "hunter2" not in "\n".join(program)
    comments = [at for at, line in enumerate(program) if line.strip().startswith("# Masked")]
    assert [program[at + 1].split("=")[0].strip() for at in comments] == ["api_key", "password"]
    ast.parse("\n".join(program))
