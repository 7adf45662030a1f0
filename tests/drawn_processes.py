"""Processes on several machines, drawn at random: their journals are written by hand, so that thousands are quick."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st

from trackdsl._core import events
from trackdsl.delivery.process._worker import Worker
from trackdsl.journal._origin import Origin, write_origin
from trackdsl.journal._spool import JOURNALS, prepare
from trackdsl.journal._writer import Writer

from .memory_store import Crash, MemoryStore

PROCESSES = 5
WHO = st.integers(0, 3)
RUN = st.integers(0, 99)
OPERATION = st.one_of(
    st.tuples(st.just("open"), WHO, st.none() | RUN),
    st.tuples(st.just("open"), WHO, RUN),
    st.tuples(st.just("points"), WHO, RUN, st.sampled_from("ab"), st.integers(0, 2), st.just(1)),
    st.tuples(st.just("points"), WHO, st.just(0), st.just("a"), st.integers(0, 1), st.integers(1, 9)),
    st.tuples(st.just("tag"), WHO, RUN, st.sampled_from("xyz")),
    st.tuples(st.just("param"), WHO, RUN, st.sampled_from("pq")),
    st.tuples(st.just("close"), WHO, RUN),
    st.tuples(st.just("die"), WHO),
    st.tuples(st.just("deliver"), st.integers(0, 1)),
    st.tuples(st.just("restart"), st.integers(0, 1)),
)
#: They begin with a run, so that there is something to deliver from the start.
OPERATIONS = st.lists(OPERATION, min_size=6, max_size=50).map(lambda operations: [("open", 0, None), *operations])
#: Equal points of three processes of one machine on one run.
LOGGED = st.tuples(
    st.just("points"),
    st.sampled_from([0, 0, 2, 4]),
    st.just(0),
    st.sampled_from("aaab"),
    st.integers(0, 3),
    st.integers(1, 6),
)
DELIVERED = st.tuples(st.just("deliver"), st.just(0))
POINTS = st.lists(
    st.one_of(
        *[LOGGED, DELIVERED] * 3,
        LOGGED,
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("die"), st.sampled_from([0, 2, 4])),
    ),
    min_size=4,
    max_size=25,
)


@dataclass
class Process:
    """A process that records.

    Attributes:
        began: the time of the first points, in milliseconds since 1970; each test sets it, because delivery forgets
            milliseconds that it passed ten minutes ago.
    """

    began: ClassVar[int]

    spool: Path
    within: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    uri: str = "memory:"
    prefix: bytes = field(default_factory=lambda: os.urandom(10))

    @classmethod
    def begin_now(cls) -> None:
        """Let the first points of all processes be those of a moment ago."""
        cls.began = time.time_ns() // 1_000_000 - 1000

    def __post_init__(self) -> None:
        prepare(self.spool)
        self._count = itertools.count(1)
        name = f"{time.time_ns():020d}-{next(_serial)}"
        origin = Origin(
            self.uri, "/", "host", 1, "me", "3", "0", "program.py", 0, self.prefix.hex(), self.within, self.beside
        )
        self.directory = self.spool / JOURNALS / name

        def describe(unborn: Path) -> None:
            write_origin(unborn, origin)
            (unborn / "git").write_text("")  # Git has nothing to say.

        self._writer: Writer | None = Writer.create(self.directory, describe)

    def open(self, name: str, parent: bytes | None = None, **params: Any) -> bytes:
        """Begin a run; returns its id."""
        id_ = self.prefix + next(self._count).to_bytes(6, "big")
        self.say(events.Open(id_, parent, "e", name, "stage", name, 0, time.time_ns(), params, {}, None))
        return id_

    def resume(self, run: bytes | str, **params: Any) -> bytes:
        """Resume a run, by an id of ours or MLflow's; returns the id that it has here."""
        id_ = self.prefix + next(self._count).to_bytes(6, "big")
        name = run if isinstance(run, str) else run.hex()
        self.say(
            events.Open(
                id_, None, "e", "again", "stage", "again", 0, time.time_ns(), params, {}, None, continued_id=name
            )
        )
        return id_

    def metric(self, run: bytes, key: str, value: float, step: int = 0, at: int = 0) -> None:
        """Record a point, `at` milliseconds after the first ones."""
        self.say(events.Metric(run, key, value, step, (self.began + at) * 1_000_000))

    def close(self, run: bytes, status: str = "FINISHED") -> None:
        """End a run."""
        self.say(events.Close(run, status, time.time_ns()))

    def say(self, event: events.AnyEvent) -> None:
        """Record any event."""
        assert self._writer is not None
        self._writer.append(events.encode(event))

    def die(self) -> None:
        """Be gone, with whatever is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


_serial = itertools.count()


@dataclass
class Machine:
    """A spool, and a worker on it; another one replaces it whenever it crashes."""

    spool: Path
    store: MemoryStore
    worker: Worker | None = None

    def round(self) -> bool:
        """Deliver for a round; returns whether anything was done."""
        self.worker = self.worker or Worker(self.spool, self.store.open)
        try:
            return self.worker.round()
        except Crash:
            self.restart()
            return True

    def restart(self) -> None:
        """Let the worker die, or end it."""
        if self.worker is not None:
            self.worker.close()
        self.worker = None

    @property
    def empty(self) -> bool:
        """Whether everything is delivered."""
        return not any((self.spool / JOURNALS).glob("*"))


def rounds(*machines: Machine, number: int = 20) -> None:
    """Let machines deliver by turns."""
    for _ in range(number):
        for machine in machines:
            machine.round()


@dataclass
class Expected:
    """What a run must be in the end."""

    parent: bytes | None
    opener: Process
    status: str = "KILLED"
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: Counter[tuple[str, float, int]] = field(default_factory=Counter)


class World:
    """Two machines, and processes on them; keeps account of all that they do."""

    def __init__(self, folder: Path, store: MemoryStore) -> None:
        Process.begin_now()
        self.store = store
        self.machines = [Machine(folder / str(number), store) for number in range(2)]
        for machine in self.machines:
            prepare(machine.spool)
        self.processes: list[Process | None] = [None] * PROCESSES
        self.runs: dict[bytes, Expected] = {}
        self._count = itertools.count()

    def do(self, what: str, *arguments: Any) -> None:
        """Perform one operation."""
        number, *rest = arguments
        if what == "deliver":
            self.machines[number].round()
        elif what == "restart":
            self.machines[number].restart()
        elif what == "die":
            process = self.processes[number]
            if process is not None:
                process.die()
            self.processes[number] = None
        else:
            getattr(self, f"_{what}")(self._process(number), f"m{number % 2}", *rest)

    def end(self) -> None:
        """Everybody dies, and everything is delivered."""
        for process in self.processes:
            if process is not None:
                process.die()
        for _ in range(3000):
            for machine in self.machines:
                machine.round()
            if all(machine.empty for machine in self.machines):
                break
        left = [path.name for machine in self.machines for path in (machine.spool / JOURNALS).glob("*")]
        for machine in self.machines:
            machine.restart()
        assert not left
        assert not [path for machine in self.machines for path in (machine.spool / "points").glob("*")]

    def check(self) -> None:
        """The store holds what was recorded, once, under the right parents."""
        held = {bytes.fromhex(run.tags["trackdsl.id"]): (run_id, run) for run_id, run in self.store.runs.items()}
        assert len(held) == len(self.store.runs)
        assert set(held) == set(self.runs)
        for id_, expected in self.runs.items():
            run = held[id_][1]
            assert run.status == expected.status
            assert run.params == expected.params
            assert {key: run.tags.get(key) for key in expected.tags} == expected.tags
            assert Counter((key, value, step) for key, value, _, step in run.points) == expected.points
            parent = None if expected.parent is None else held[expected.parent][0]
            assert run.tags.get("mlflow.parentRunId") == parent
            assert not [tag for tag in run.tags if tag.startswith(("trackdsl.parent", "trackdsl.refused"))]

    def _process(self, number: int) -> Process:
        process = self.processes[number]
        if process is None:
            process = self.processes[number] = Process(self.machines[number % 2].spool)
        return process

    def _open(self, process: Process, _machine: str, around: int | None) -> None:
        parent = None if around is None or not self.runs else list(self.runs)[around % len(self.runs)]
        id_ = process.open(f"run{next(self._count)}", parent, n=1)
        self.runs[id_] = Expected(parent, process, params={"n": "1"})

    def _any(self, number: int) -> tuple[bytes, Expected] | None:
        return list(self.runs.items())[number % len(self.runs)] if self.runs else None

    def _points(self, process: Process, machine: str, number: int, key: str, at: int, times: int) -> None:
        # Only those of one machine can be kept apart where they are equal.
        found = self._any(number)
        if found is not None:
            for _ in range(times):
                process.metric(found[0], f"{machine}{key}", 1.0, 0, at)
            found[1].points[f"{machine}{key}", 1.0, 0] += times

    def _tag(self, process: Process, _machine: str, number: int, value: str) -> None:
        found = self._any(number)
        if found is not None:
            key = process.prefix.hex()
            process.say(events.Tags(found[0], {key: value}))
            found[1].tags[key] = value

    def _param(self, process: Process, _machine: str, number: int, value: str) -> None:
        found = self._any(number)
        if found is not None:
            key = f"{process.prefix.hex()}{value}"
            process.say(events.Params(found[0], {key: value}))
            found[1].params[key] = value

    def _close(self, process: Process, _machine: str, number: int) -> None:
        own = [id_ for id_, run in self.runs.items() if run.opener is process and run.status == "KILLED"]
        if own:
            id_ = own[number % len(own)]
            process.close(id_)
            self.runs[id_].status = "FINISHED"
