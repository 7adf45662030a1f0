"""One program with every kind of event, and what must be at the store in the end."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trackdsl import experiment, stage
from trackdsl._core import context as _context
from trackdsl.journal import _target

from .drawn_programs import forked
from .memory_store import MemoryStore

#: The id of a run that was at the store before the program began, in the same experiment.
EARLIER = "e" * 32
EXPERIMENT = "every-call"  # The memory store uses this name as an id, so it contains no space.


@dataclass
class Found:
    """A run as it is at the store; without what differs from one delivery to the next."""

    status: str
    parent: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: Counter[tuple[str, float | str, int]] = field(default_factory=Counter)
    files: dict[str, str] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)


_TABLES = "mlflow.loggedArtifacts"
#: Tags about things that went wrong, and those that the program sets.
_FAULTS = (
    "refused",
    "omitted",
    "lost",
    "damaged",
    "missing",
    "truncated",
    "parent",
    "param",
    "ended",
    "exception.type",
)


def kept(tags: dict[str, str]) -> dict[str, str]:
    """The tags that are compared."""
    reported = tuple(f"trackdsl.{kind}" for kind in _FAULTS)
    named = (_TABLES, "mlflow.source.git.commit")
    return {key: text for key, text in tags.items() if key.startswith(reported) or key in named or "." not in key}


def record() -> None:
    """Run the program, with processes that are killed, and end its journals."""
    with experiment(EXPERIMENT, run_name="root") as root:
        root.log_params({"p": 1, "p2": "x"})
        root.log_param("p", 2)
        for _ in range(3):
            root.log_metric("equal", 0.5, step=1)
        root.log_metrics({"a": 1.0, "b": math.nan}, step=2)
        with stage("child", seed=1) as child:
            child.set_tag("kind", "first")
            child.set_tag("kind", "second")
            child.log_text("one", "f.txt")
            child.log_text("two", "f.txt")
            child.log_table({"x": [1, 2]}, "t.json")
            child.log_table({"x": [3]}, "t.json")
            child.log_input(np.arange(3), "training", name="data")
            forked(lambda: _in_a_child(child))
        with pytest.raises(ZeroDivisionError), stage("fails"):
            1 / 0
        with stage("late") as late:
            late.log_metric("m", 1.0)
    root.log_metric("after", 7.0, step=3)
    with experiment(EXPERIMENT, run_id=EARLIER) as again:
        again.log_metric("again", 4.0, step=5)
    _target.close_all()  # The program ends.
    _context.enter(None)


def _in_a_child(around: Any) -> None:
    """A forked child writes to its parent's run, opens one, loses two events, and dies."""
    around.log_metric("forked", 2.0, step=0)
    run = stage("killed").__enter__()
    run.log_metric("m", 3.0, step=1)
    writer = run.target.writer
    for _ in range(2):
        writer._lose(run, None)


def expected() -> dict[str, Found]:
    """The runs by name."""
    runs = _expected()
    for name, run in runs.items():
        if name != "earlier":
            run.tags["mlflow.source.git.commit"] = "commit"
    return runs


def _expected() -> dict[str, Found]:
    return {
        "root": Found(
            "FINISHED",
            None,
            {"p": "1", "p2": "x"},
            {"trackdsl.param.later.p": "2"},
            Counter({("equal", 0.5, 1): 3, ("a", 1.0, 2): 1, ("b", "nan", 2): 1, ("after", 7.0, 3): 1}),
        ),
        "child": Found(
            "FINISHED",
            "root",
            {"seed": "1"},
            {"kind": "second", _TABLES: '[{"path": "t.json", "type": "table"}]'},
            Counter({("forked", 2.0, 0): 1}),
            {"f.txt": "two", "t.json": '{"columns": ["x"], "data": [[1], [2], [3]]}'},
            ["data"],
        ),
        "fails": Found("FAILED", "root", tags={"trackdsl.exception.type": "ZeroDivisionError"}),
        "late": Found("FINISHED", "root", points=Counter({("m", 1.0, 0): 1})),
        "killed": Found(
            "KILLED",
            "child",
            tags={
                "trackdsl.ended": "the process died before this run ended",
                "trackdsl.lost_events": "2 of the whole process",
            },
            points=Counter({("m", 3.0, 1): 1}),
        ),
        "earlier": Found("FINISHED", points=Counter({("again", 4.0, 5): 1})),
    }


def found_in_memory(store: MemoryStore) -> list[tuple[str, Found]]:
    """The runs of a store in memory, by name."""
    names = {run_id: run.name for run_id, run in store.runs.items()}
    return [
        (
            run.name,
            Found(
                run.status,
                names.get(run.tags.get("mlflow.parentRunId", "")),
                run.params,
                kept(run.tags),
                Counter((key, value, step) for key, value, _, step in run.points),
                run.files,
                sorted(name for name, _ in run.inputs),
            ),
        )
        for run in store.runs.values()
    ]


def found_in_database(path: Path) -> list[tuple[str, Found]]:
    """The runs of an MLflow database, by name, with the files in their local folders."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT run_uuid, name, status, artifact_uri FROM runs").fetchall()
        names = {run_id: name for run_id, name, *_ in rows}

        def of(run_id: str, query: str) -> list[Any]:
            return connection.execute(f"{query} = ?", (run_id,)).fetchall()

        runs = []
        for run_id, name, status, folder in rows:
            tags = dict(of(run_id, "SELECT key, value FROM tags WHERE run_uuid"))
            points = of(run_id, "SELECT key, value, step, is_nan FROM metrics WHERE run_uuid")
            inputs = (
                "SELECT d.name FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id WHERE i.destination_id"
            )
            files = {
                str(path.relative_to(folder)): path.read_text() for path in Path(folder).rglob("*") if path.is_file()
            }
            run = Found(
                status,
                names.get(tags.get("mlflow.parentRunId", "")),
                dict(of(run_id, "SELECT key, value FROM params WHERE run_uuid")),
                kept(tags),
                Counter((key, "nan" if nan else value, step) for key, value, step, nan in points),
                files,
                sorted(name for (name,) in of(run_id, inputs)),
            )
            runs.append((name, run))
        return runs
