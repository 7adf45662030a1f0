"""What recording costs: a stage, a metric, and either when trackdsl is switched off."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from figures import Row, Target
from pairing import Child, Subject, above, compare, interleave
from workspace import Delivery, Workspace

Announce = Callable[[str], None]

_NAMES = {
    "stage": "nested stage, 8 parameters, 5 metrics",
    "metric": "log_metric",
}
_BUSY = "while delivery is at work"
_TARGETS = {"stage": Target("ratio", 400), "metric": Target("ratio", 1500)}
#: How often each subject does it in one round, so that all rounds take about the same time.
_LOOPS = {
    "stage": {"trackdsl": 500, "sqlite": 8, "HTTP": 4, "async": 1, "call": 20_000, "bind": 5_000},
    "metric": {"trackdsl": 20_000, "sqlite": 40, "HTTP": 10, "async": 100, "write": 20_000},
}
_BASELINES = {
    "sqlite": "MLflow fluent, sqlite",
    "HTTP": "MLflow fluent, HTTP",
    "async": "MLflow asynchronous, sqlite",
    "call": "the call alone",
    "bind": "Signature.bind",
    "write": "os.write of 60 bytes",
}


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: of what takes a fraction of a second.
        starts: of fresh processes.
        outages: of programs without a server.
        segments: of the numeric loop.
        points: of the program whose memory is watched.
        megabytes: of the large frame.
        tasks: of a cluster.
        deliveries: of everything that is delivered.
        delivered_runs: in one delivery.
        delivered_points: in one delivery.
        growth: few and many runs, few and many points, to see what grows; empty without.
    """

    rounds: int
    starts: int
    outages: int
    segments: int
    points: int
    megabytes: int
    tasks: int
    deliveries: int
    delivered_runs: int
    delivered_points: int
    growth: tuple[int, ...] = ()


FULL = Effort(
    rounds=15,
    starts=15,
    outages=5,
    segments=400,
    points=1_000_000,
    megabytes=1000,
    tasks=10_000,
    deliveries=3,
    delivered_runs=10_000,
    delivered_points=1_000_000,
)
QUICK = Effort(
    rounds=3,
    starts=3,
    outages=1,
    segments=40,
    points=1_000_000,
    megabytes=200,
    tasks=800,
    deliveries=1,
    delivered_runs=1000,
    delivered_points=20_000,
)


def recording(workspace: Workspace, effort: Effort, groups: set[str], announce: Announce) -> list[Row]:
    """The groups `stage` and `metric`."""
    rows = []
    with contextlib.ExitStack() as stack:
        children = _children(workspace, stack)
        for group in [name for name in _NAMES if name in groups]:
            announce(f"{group}: {effort.rounds} rounds")
            rows += _against_mlflow(group, children, effort)
    with contextlib.ExitStack() as stack:
        spool, env = workspace.recording("online")
        delivery = Delivery(spool)
        stack.callback(delivery.end)
        busy = stack.enter_context(Child("subject_trackdsl", env=env, cwd=workspace.folder))
        _, env = workspace.recording("offline")
        alone = stack.enter_context(Child("subject_trackdsl", env=env, cwd=workspace.folder))
        for group in [name for name in _NAMES if name in groups]:
            announce(f"{group}: {_BUSY}")
            rows.append(_under_delivery(group, busy, alone, delivery, effort))
    return rows


def _children(workspace: Workspace, stack: contextlib.ExitStack) -> dict[str, Child]:
    _, offline = workspace.recording("offline")

    def child(program: str, *args: str, env: dict[str, str] | None = None) -> Child:
        return stack.enter_context(Child(program, *args, env=env or workspace.env(), cwd=workspace.folder))

    children = {
        "sqlite": child("subject_mlflow", workspace.new_store(), "sync"),
        "async": child("subject_mlflow", workspace.new_store(), "async"),
        "trackdsl": child("subject_trackdsl", env=offline),
        "bare": child("subject_bare"),
    }
    children["HTTP"] = child("subject_mlflow", workspace.server(), "sync")
    for started in children.values():
        started.wait()
    return children


def _against_mlflow(group: str, children: dict[str, Child], effort: Effort) -> list[Row]:
    loops = _LOOPS[group]
    ours = _NAMES[group]
    subjects = [children["trackdsl"].subject(ours, group, loops["trackdsl"])]
    baselines = {key: name for key, name in _BASELINES.items() if key in loops}
    for key, name in baselines.items():
        child, what = (children[key], group) if key in children else (children["bare"], key)
        subjects.append(child.subject(name, what, loops[key]))
    samples = interleave(subjects, effort.rounds)
    return [
        compare(group, ours, name, samples, _TARGETS[group] if key == "sqlite" else None)
        for key, name in baselines.items()
    ]


def _under_delivery(group: str, busy: Child, alone: Child, delivery: Delivery, effort: Effort) -> Row:
    loops = _LOOPS[group]["trackdsl"]
    ours, theirs = f"{_NAMES[group]}, {_BUSY}", "the same, offline"
    busy.wait()
    with delivery.stopped() as running:

        def measure(count: int) -> float:
            with running:
                return busy.ask(group, count)

        samples = interleave([Subject(ours, measure, loops), alone.subject(theirs, group, loops)], effort.rounds)
        note = "" if running.pids else "delivery was not running"
    return compare(group, ours, theirs, samples, note=note)


def disabled(workspace: Workspace, effort: Effort, announce: Announce) -> list[Row]:
    """The group `disabled`."""
    announce("disabled")
    _, env = workspace.recording("disabled")
    limit = Target("figure", 0.5e-6)
    with Child("subject_trackdsl", env=env, cwd=workspace.folder) as child:
        subjects = [
            child.subject("decorated call", "stage", 100_000),
            child.subject("log_metric", "metric", 100_000),
            child.subject("the call alone", "plain", 100_000),
        ]
        samples = interleave(subjects, effort.rounds * 2)
    return [
        above("disabled", "decorated call", "the call alone", samples, limit),
        compare("disabled", "log_metric", "the call alone", samples, limit),
    ]
