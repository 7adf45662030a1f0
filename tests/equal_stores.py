"""Delivering the same journals through both sinks into one database, and the rows that each leaves there."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.conftest import await_git, finish_delivery
from tests.drawn_programs import forked
from trackdsl import experiment, settings, stage
from trackdsl._core import context
from trackdsl._runs.run import Run
from trackdsl.delivery.database.sink import DatabaseSink
from trackdsl.delivery.mlflow_client._sink import MlflowSink
from trackdsl.delivery.process._stores import open_store
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.store._sink import Sink
from trackdsl.journal import _target

#: Those that delivery writes rows to; a row refers only to rows of tables before its own.
TABLES = [
    "experiments", "experiment_tags", "runs", "params", "tags", "metrics", "latest_metrics", "datasets", "inputs",
    "input_tags",
]  # fmt: skip
#: Columns that differ from one delivery to the next: new ids, and the times of rows that MLflow adds by itself.
RANDOM = {"dataset_uuid", "input_uuid", "creation_time", "last_update_time"}
#: In tags, the name of the spool: each delivery has its own.
SPOOL = re.compile(r',"spool":"[0-9a-f]{8}"')

#: Tags with what the database or MLflow says of something that it refuses, each with a text of its own.
TOLD = ("trackdsl.refused.", "trackdsl.omitted.")

Rows = dict[str, list[dict[str, Any]]]


def rows_of(uri: str) -> Rows:
    """All rows that delivery writes, each by column, with our ids of runs instead of the store's."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        found = {table: connection.exec_driver_sql(f"SELECT * FROM {table}").mappings().all() for table in TABLES}  # noqa: S608
    named = {row["run_uuid"]: row["value"] for row in found["tags"] if row["key"] == "trackdsl.id"}
    named |= {row["dataset_uuid"]: row["name"] for row in found["datasets"]}
    named |= {
        row["input_uuid"]: f"{named[row['source_id']]} of {named[row['destination_id']]}" for row in found["inputs"]
    }
    experiments = {row["experiment_id"]: row["name"] for row in found["experiments"]}

    def known(name: str, value: Any, row: Any) -> Any:
        if name == "experiment_id":
            return experiments[value]
        if not isinstance(value, str):
            return value
        if name == "value" and row.get("key", "").startswith(TOLD):
            return "refused"
        if name in ("artifact_location", "artifact_uri"):
            value = re.sub(f"/{row['experiment_id']}(?=/|$)", "/id", value)
        value = SPOOL.sub("", value)
        for there, here in named.items():
            value = value.replace(there, here)
        return value

    return {
        table: sorted(
            ({name: known(name, row[name], row) for name in row if name not in RANDOM} for row in rows),
            key=lambda row: repr(sorted(row.items())),
        )
        for table, rows in found.items()
    }


def empty(uri: str) -> None:
    """Delete all that delivery has written."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        for table in reversed(TABLES):
            only = " WHERE experiment_id <> 0" if table == "experiments" else ""
            connection.exec_driver_sql(f"DELETE FROM {table}{only}")  # noqa: S608


def deliver_to(spool: Path, open_sink: Callable[[str, str], Sink]) -> None:
    """Deliver a spool in this process."""
    finish_delivery(Worker(spool, open_sink))


def delivered_both_ways(record: Callable[[], None], uri: str, folder: Path) -> tuple[Rows, Rows]:
    """What each of the two sinks leaves of the same journals in a database, which is emptied before.

    Args:
        record: the program.
        uri: of the database.
        folder: an empty one, for copies of the spool.
    """
    spool = settings.spool()
    assert spool is not None
    try:
        record()
    finally:
        _target.close_all()  # The program dies with what is open.
        context.enter(None)
    found = []
    for kind in (DatabaseSink, MlflowSink):
        empty(uri)
        copy = folder / kind.__name__
        await_git(spool)
        shutil.copytree(spool, copy, copy_function=shutil.copy2)

        def open_sink(_uri: str, _cwd: str, kind: Any = kind) -> Sink:
            here = str(Path.cwd())
            sink = open_store(uri, here, own=True) if kind is DatabaseSink else MlflowSink(uri, here, own=True)
            assert isinstance(sink, kind)
            return sink

        deliver_to(copy, open_sink)
        found.append(rows_of(uri))
    shutil.rmtree(spool)
    return found[0], found[1]


KEY = st.sampled_from(["loss", "LOSS", "a/b", "a b ", "é", "e", "x[0]", "k" * 251])
VALUE = st.sampled_from([0.0, -0.0, 0.5, -1.5, 1e-320, 1.7976931348623157e308, math.nan, math.inf, -math.inf])
STEP = st.sampled_from([0, 0, 1, 2, -3, 1 << 62, -(1 << 63), 1 << 70])
TEXT = st.sampled_from(["", "a", "A", " a ", "🚀 ü", "a\0b", "\udc80x", "'; -- %s ? {}", "x" * 6001, "y" * 8001])
EVENT = st.one_of(
    st.tuples(st.just("open"), st.sampled_from(["fit", "", "é" * 300]), st.dictionaries(KEY, TEXT, max_size=2)),
    st.tuples(st.just("close"), st.booleans()),
    st.tuples(st.just("metric"), st.integers(0, 5), KEY, VALUE, STEP),
    st.tuples(st.just("points"), st.integers(0, 5), KEY, VALUE, st.integers(1, 4)),
    st.tuples(st.just("param"), st.integers(0, 5), KEY, TEXT),
    st.tuples(st.just("tag"), st.integers(0, 5), st.one_of(KEY, st.just("mlflow.runName")), TEXT),
    st.tuples(st.just("input"), st.integers(0, 5), st.integers(0, 2), st.sampled_from([None, "", "train"])),
    st.tuples(st.just("resume"), st.integers(0, 5)),
)
#: What a program does: it opens a run, and then this, also in forked processes that die in the middle.
PROGRAM = st.lists(st.one_of(EVENT, EVENT, EVENT, st.tuples(st.just("fork"), st.lists(EVENT, max_size=6))), max_size=14)


@dataclass
class DrawnProgram:
    """Does what was drawn.

    Attributes:
        who: the process. Several write to the same runs, but not to the same keys: which is first is not certain.
    """

    who: str = ""
    runs: list[Run] = field(default_factory=list)
    blocks: list[Any] = field(default_factory=list)
    children: int = 0

    def perform(self, operations: list[Any]) -> None:
        """Perform all operations, one after the other."""
        with experiment("drawn") as run:
            self.runs.append(run)
            for operation in operations:
                self.do(*operation)

    def do(self, what: str, *arguments: Any) -> None:
        """Perform one operation."""
        if what == "fork":
            self.children += 1
            child = DrawnProgram(f"{self.who}{self.children}", list(self.runs))
            forked(lambda: [child.do(*operation) for operation in arguments[0]] and None)
        elif what == "open":
            block: Any = stage(arguments[0] or "stage", **{f"p{n}": v for n, v in enumerate(arguments[1].values())})
            self.runs.append(block.__enter__())
            self.blocks.append(block)
        elif what == "close":
            if self.blocks:
                self.blocks.pop().__exit__(
                    *((ValueError, ValueError("no"), None) if arguments[0] else (None, None, None))
                )
        elif what == "resume":
            with stage("again", run_id=self.runs[arguments[0] % len(self.runs)].id):
                pass
        else:
            getattr(self, f"_{what}")(self.runs[arguments[0] % len(self.runs)], *arguments[1:])

    def _metric(self, run: Run, key: str, value: float, step: int) -> None:
        run.log_metric(f"{self.who}{key}", value, step=step)

    def _points(self, run: Run, key: str, value: float, times: int) -> None:
        for _ in range(times):
            run.log_metric(f"{self.who}{key}", value, step=0)

    def _param(self, run: Run, key: str, value: str) -> None:
        run.log_param(f"{self.who}{key}", value)

    def _tag(self, run: Run, key: str, value: str) -> None:
        run.set_tag(key if key == "mlflow.runName" and not self.who else f"{self.who}{key}", value)

    def _input(self, run: Run, number: int, context: str | None) -> None:
        import numpy as np

        run.log_input(np.arange(float(number)), context, name=f"{self.who}numbers")
