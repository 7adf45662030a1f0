"""Programs drawn at random, with an account of what must be at the store in the end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from trackdsl import stage
from trackdsl._runs.run import Run
from trackdsl.delivery.process._worker import Worker
from trackdsl.journal._spool import journals

from .memory_store import Crash, MemoryStore

RUN = st.integers(0, 9)
OPEN = st.tuples(st.just("open"), st.integers(0, 3))
EVENT = st.one_of(
    OPEN,
    st.tuples(st.just("close"), st.booleans()),
    st.tuples(st.just("metric"), RUN, st.sampled_from("ab"), st.sampled_from([0.0, 1.0]), st.integers(0, 1)),
    st.tuples(st.just("metrics"), RUN, st.sampled_from([0.0, 2.0]), st.integers(1, 30)),
    st.tuples(st.just("param"), RUN, st.sampled_from("pq"), st.integers(0, 2)),
    st.tuples(st.just("tag"), RUN, st.sampled_from("tu"), st.text("xyz", max_size=2)),
    st.tuples(st.just("file"), RUN, st.sampled_from(["f.txt", "d/g.txt"])),
)


def programs(*more: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Programs that begin with a run, so that there is something to deliver from the start.

    Args:
        more: operations besides those of every program.
    """
    operations = st.one_of(
        EVENT,
        EVENT,
        st.tuples(st.just("fork"), st.lists(EVENT, max_size=8)),
        st.tuples(st.just("deliver"), st.integers(1, 3)),
        st.tuples(st.just("restart")),
        st.tuples(st.just("git")),
        *more,
    )
    return st.tuples(OPEN, st.lists(operations, min_size=6, max_size=25)).map(lambda found: [found[0], *found[1]])


@dataclass
class Expected:
    """What a run must be in the end."""

    parent: str | None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: Counter[tuple[str, float, int]] = field(default_factory=Counter)
    files: dict[str, str] = field(default_factory=dict)
    status: str = "KILLED"


@dataclass
class Program:
    """Does what was drawn and keeps account of it; a forked child does it, its parent keeps the account alone.

    Attributes:
        who: goes before every name, so that what two processes write to one run differs.
        alive: whether to do it.
        expected: by the run's name.
    """

    who: str
    alive: bool
    expected: dict[str, Expected]
    runs: list[tuple[str, Run | None]] = field(default_factory=list)
    open: list[tuple[str, Any]] = field(default_factory=list)
    around: str | None = None
    count: int = 0
    children: int = 0

    def forked(self, number: int, *, alive: bool) -> Program:
        around = self.open[-1][0] if self.open else None
        return Program(f"{self.who}{number}", alive, self.expected, list(self.runs), around=around)

    def do(self, what: str, *arguments: Any) -> None:
        """Perform one operation."""
        if what == "open":
            self._open(arguments[0])
        elif what == "close":
            self._close(arguments[0])
        elif self.runs:
            index, *rest = arguments
            name, run = self.runs[index % len(self.runs)]
            self.count += 1
            getattr(self, f"_{what}")(self.expected[name], run if self.alive else None, *rest)

    def _open(self, params: int) -> None:
        name = f"{self.who}-run{len(self.expected)}"
        given = {f"n{n}": n for n in range(params)}
        self.expected[name] = Expected(
            self.open[-1][0] if self.open else self.around, {key: str(value) for key, value in given.items()}
        )
        block: Any = stage(name, **given) if self.alive else None
        self.runs.append((name, block.__enter__() if self.alive else None))
        self.open.append((name, block))

    def _close(self, failed: bool) -> None:
        if self.open:
            name, block = self.open.pop()
            self.expected[name].status = "FAILED" if failed else "FINISHED"
            if self.alive:
                block.__exit__(*((ValueError, ValueError("no"), None) if failed else (None, None, None)))

    def _metric(self, run: Expected, real: Run | None, key: str, value: float, step: int) -> None:
        key = f"{self.who}{key}"
        run.points[key, value, step] += 1
        if real is not None:
            real.log_metric(key, value, step=step)

    def _metrics(self, run: Expected, real: Run | None, value: float, times: int) -> None:
        for _ in range(times):
            run.points[f"{self.who}a", value, 0] += 1
            run.points[f"{self.who}c", value, 0] += 1
            if real is not None:
                real.log_metrics({f"{self.who}a": value, f"{self.who}c": value}, step=0)

    def _param(self, run: Expected, real: Run | None, key: str, value: int) -> None:
        key = f"{self.who}{key}"
        if run.params.setdefault(key, str(value)) != str(value):
            run.tags[f"trackdsl.param.later.{key}"] = str(value)
        if real is not None:
            real.log_param(key, value)

    def _tag(self, run: Expected, real: Run | None, key: str, value: str) -> None:
        run.tags[f"{self.who}{key}"] = value
        if real is not None:
            real.set_tag(f"{self.who}{key}", value)

    def _file(self, run: Expected, real: Run | None, path: str) -> None:
        run.files[f"{self.who}/{path}"] = f"{self.who} {self.count}"
        if real is not None:
            real.log_text(f"{self.who} {self.count}", f"{self.who}/{path}")


@dataclass
class Delivery:
    """A worker on a spool; another one replaces it whenever it crashes."""

    spool: Path
    store: MemoryStore
    worker: Worker | None = None

    def round(self) -> None:
        self.worker = self.worker or Worker(self.spool, self.store.open)
        try:
            self.worker.round()
        except Crash:
            self.restart()

    def restart(self) -> None:
        if self.worker is not None:
            self.worker.close()
        self.worker = None


def perform(program: Program, delivery: Delivery, operations: list[Any]) -> None:
    for what, *rest in operations:
        if what == "deliver":
            for _ in range(rest[0]):
                delivery.round()
        elif what == "restart":
            delivery.restart()
        elif what == "git":
            for journal in journals(delivery.spool):
                (journal / "git").write_text("commit\nbranch\n\nclean\n")
        elif what == "fork":
            program.children += 1  # No two children write to the same keys: which comes first is not certain.
            real, account = (program.forked(program.children, alive=alive) for alive in (True, False))
            forked(lambda: [real.do(*event) for event in rest[0]] and None)  # noqa: B023 - called here and now
            for event in rest[0]:
                account.do(*event)
        else:
            program.do(what, *rest)


def fork(child: Callable[[], None]) -> int:
    """Run something in a forked child, which ends without unwinding."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        finally:
            os._exit(code)
    return pid


def forked(child: Callable[[], None]) -> None:
    """Run something in a forked child and wait for it."""
    assert os.waitstatus_to_exitcode(os.waitpid(fork(child), 0)[1]) == 0


def check_delivered(store: MemoryStore, expected: dict[str, Expected]) -> None:
    """The store holds what was recorded, once, and no tag reports a loss."""
    assert Counter(run.name for run in store.runs.values()) == Counter(expected.keys())
    ids = {run.name: run_id for run_id, run in store.runs.items()}
    for name, run in expected.items():
        held = store.named(name)
        assert held.params == run.params
        assert Counter((key, value, step) for key, value, _, step in held.points) == run.points
        assert held.files == run.files
        assert held.status == run.status
        assert {key: held.tags.get(key) for key in run.tags} == run.tags
        assert held.tags.get("mlflow.parentRunId") == (ids[run.parent] if run.parent else None)
        kinds = ("refused", "omitted", "lost", "damaged", "missing", "truncated", "parent")
        assert not [tag for tag in held.tags if tag.startswith(tuple(f"trackdsl.{kind}" for kind in kinds))]
