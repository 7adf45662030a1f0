"""The text of parameters in other processes, and runs that are found by it."""

from __future__ import annotations

import datetime
import itertools
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

import trackdsl
from tests.conftest import deliver
from tests.unit.test_parameter_text import Color, Level, Mode
from trackdsl.handlers._value_digest import digest_of

ROOT = pathlib.Path(__file__).parents[2]


def test_digests_of_another_process() -> None:
    """In another process, where hashes of texts and the order of sets differ, digests are the same."""
    program = (
        "from trackdsl.handlers._line import digest_of; from trackdsl.handlers import handler_for;"
        "texts = set(map(str, range(5000))); numbers = {i / 7 for i in range(5000)};"
        "values = [texts, set(sorted(texts)[:500]), numbers, {*sorted(texts)[:300], *range(50), None}];"
        "print([handler_for(set).summary(value) for value in values], digest_of([*[1] * 300, texts]));"
        "print(digest_of([['a', 1]] * 200));"
        "from tests.unit.test_parameter_text import LARGE, text_of;"
        "print(ascii([str(text_of(make())) for make in LARGE]))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert digest_of([["a", 1]] * 200) in outputs.pop()


@pytest.mark.slow
def test_compiled_functions_of_torch_are_named() -> None:
    """Functions that PyTorch's compiler made are named, in a process of their own because of its slow import."""
    program = (
        "import torch; from tests.unit.test_callable_parameters import recorded, traced;"
        "print([recorded(f(traced)).params['x'] for f in (torch.compile, torch.jit.script)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    name = "tests.unit.test_callable_parameters.traced"
    assert done.stdout.splitlines()[-1] == str([name, f"torch.jit.ScriptFunction({name})"])


@pytest.mark.slow
def test_runs_are_found_by_what_is_recorded(sqlite_store: str) -> None:
    """`runs(layers=[1, 2])`, members, arrays, paths and sets, also one of several; `compare` distinguishes them."""
    values: dict[str, list[Any]] = {
        "layers": [[1, 2], ["1", "2"]], "names": [["a", "b, c"], ["a, b", "c"]], "mode": [Mode.FAST, "slow"],
        "color": [Color.RED, Color.BLUE], "level": [Level.LOW, 2], "betas": [np.array([0.9, 0.999]), (0.9, 0.99)],
        "day": [datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3)],
        "group": [{1, 2}, {1, "2"}], "file": [pathlib.Path("a"), pathlib.Path("b")],
        "long": [list(range(500)), [0] * 500], "text": ["x" * 7000, "x" * 6999 + "y"],
        "frame": [pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 3]})],
    }  # fmt: skip
    ids = []
    for index in range(2):
        with trackdsl.experiment("searched", run_name=f"run-{index}") as run:
            run.log_params({name: pair[index] for name, pair in values.items()})
            run.set_tags({f"tag_{name}": pair[index] for name, pair in values.items()})
        ids.append(run.id)
    deliver()
    for (name, pair), index in itertools.product(values.items(), range(2)):
        for asked in ({name: pair[index]}, {f"{name}__in": [pair[index]]}, {f"params__{name}": pair[index]}):
            assert list(trackdsl.runs("searched", **asked)["name"]) == [f"run-{index}"], asked
        if name != "text":  # A tag may be longer than a parameter.
            assert list(trackdsl.runs("searched", **{f"tags__tag_{name}": pair[index]})["name"]) == [f"run-{index}"]
        assert list(trackdsl.runs("searched", **{f"{name}__ne": pair[index]})["name"]) == [f"run-{1 - index}"]
    different = {line.name for line in trackdsl.compare(*ids) if line.kind == "params"}
    assert different == set(values)
    with pytest.raises(trackdsl.QueryError, match="a dict holds several"):
        trackdsl.runs("searched", layers={"a": 1})
