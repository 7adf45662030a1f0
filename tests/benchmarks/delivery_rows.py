"""What delivery costs: runs and points from the journal to the store, beside others that do the same work.

Each subject has a process of its own. A journal is recorded first, and then delivered by the code of the delivery
process, from reading to the last commit. Other libraries are timed from their first call to the last one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from figures import Row, Target
from pairing import PROGRAMS, spread
from recording_rows import Announce, Effort
from workspace import Delivery, Workspace

_GIVE_UP = 3600.0
SQLITE, POSTGRESQL = "trackdsl, sqlite", "trackdsl, PostgreSQL"
BY_THE_CLOCK = "trackdsl, sqlite by the clock"
SERVER, PLUGIN = "trackdsl, server", "trackdsl, server with the plugin"
#: The number of processes in which a server answers.
_MANY = 4
SERVER_OF_MANY, REST_OF_MANY = f"trackdsl, server, {_MANY} workers", f"bare requests, server, {_MANY} workers"
CLIENT_ON_SERVER = "MlflowClient, server"
CLIENT, BARE, REST = "MlflowClient, sqlite", "executemany, sqlite", "bare requests, server"
CORE = "SQLAlchemy Core, sqlite"
CLIENT_ON_POSTGRESQL = "MlflowClient, PostgreSQL"

_SAFE = "each event survives a kill when the call returns; the store gets one transaction for each stretch"
#: What is safe when a call returns.
DURABILITY = {
    SQLITE: _SAFE,
    BY_THE_CLOCK: _SAFE,
    POSTGRESQL: f"{_SAFE}; the server runs with fsync=off",
    SERVER: "each event survives a kill when the call returns",
    SERVER_OF_MANY: "each event survives a kill when the call returns",
    PLUGIN: _SAFE,
    CLIENT: "each call is a transaction",
    CLIENT_ON_POSTGRESQL: "each call is a transaction; the server runs with fsync=off",
    REST: "each request is a transaction",
    REST_OF_MANY: "each request is a transaction",
    CLIENT_ON_SERVER: "each call is a transaction",
    BARE: "nothing before the one commit at the end",
    CORE: "nothing before the one commit at the end",
    "MLflow fluent, sqlite": "each call is a transaction",
    "mltraq, sqlite": "nothing before persist(); a series is one value",
    "trackio": "a thread writes in batches; a kill loses what it holds",
    "wandb, offline": "another process writes a file; a kill of both loses its buffer",
}


@dataclass(frozen=True)
class _Peer:
    """Another library.

    Attributes:
        program: what `peer.py` calls it.
        module: what has to be installed.
        runs: its share of the runs. What takes milliseconds does fewer.
        points: its share of the points.
    """

    program: str
    module: str
    runs: float
    points: float


_PEERS = {
    CLIENT: _Peer("client", "mlflow", 1 / 20, 1 / 10),
    "MLflow fluent, sqlite": _Peer("fluent", "mlflow", 1 / 50, 1 / 500),
    "mltraq, sqlite": _Peer("mltraq", "mltraq", 1 / 2, 1 / 10),
    "trackio": _Peer("trackio", "trackio", 1 / 100, 1 / 100),
    "wandb, offline": _Peer("wandb", "wandb", 1 / 1000, 1 / 100),
}
_LEAST = {"run": 3, "point": 1000}


@dataclass
class Cost:
    """What one subject needs, one entry for each round.

    Attributes:
        run: seconds of a run.
        point: seconds of a point.
        peak: the most memory of its process, in bytes.
        elapsed: whether the seconds are those of the clock, where the work is spread over several processes; else
            they are CPU seconds.
    """

    run: list[float] = field(default_factory=list)
    point: list[float] = field(default_factory=list)
    peak: list[int] = field(default_factory=list)
    elapsed: bool = False


Costs = dict[str, Cost]


@dataclass(frozen=True)
class Comparison:
    """What was measured.

    Attributes:
        costs: by the name of the subject.
        rows: with targets.
        runs: how many runs were delivered.
        points: how many points were delivered.
        left_out: why which subjects are missing.
    """

    costs: Costs
    rows: list[Row]
    runs: int
    points: int
    left_out: list[str]


def delivery(workspace: Workspace, effort: Effort, announce: Announce) -> Comparison:
    """The group `delivery`."""
    costs: Costs = {}
    left_out: list[str] = []
    stores = _stores(workspace, announce, left_out)
    for number in range(effort.deliveries):
        announce(f"delivery: round {number + 1} of {effort.deliveries}")
        for name, fresh in stores.items():
            try:
                _own(workspace, effort, announce, costs, name, fresh)
            except subprocess.SubprocessError as error:
                if name == SQLITE:
                    raise
                left_out.append(f"{name}: it failed: {_last_line(error)}")
                costs.pop(name, None)
        _others(workspace, effort, announce, costs, stores, left_out if number == 0 else [])
    rows = _rows(costs)
    rows += [_visible(workspace, effort, announce), _first(workspace, effort, announce)]
    if effort.growth:
        rows += _growth(workspace, effort, announce)
    return Comparison(costs, rows, effort.delivered_runs, effort.delivered_points, left_out)


def _stores(workspace: Workspace, announce: Announce, left_out: list[str]) -> dict[str, Callable[[], str]]:
    """Where trackdsl delivers to: each call gives a URI."""
    stores: dict[str, Callable[[], str]] = {SQLITE: workspace.new_store}
    announce("delivery: PostgreSQL")
    try:
        stores[POSTGRESQL] = workspace.postgresql()
    except LookupError as error:
        left_out.append(f"{POSTGRESQL}: {error}")
    stores[SERVER] = workspace.server
    stores[SERVER_OF_MANY] = lambda: workspace.server(workers=_MANY)
    if any(entry.name == "trackdsl" for entry in importlib.metadata.entry_points(group="mlflow.app")):
        stores[PLUGIN] = lambda: workspace.server("trackdsl")
    else:
        left_out.append(f"{PLUGIN}: this version has none")
    return stores


def _own(
    workspace: Workspace, effort: Effort, announce: Announce, costs: Costs, name: str, fresh: Callable[[], str]
) -> None:
    """Record and deliver runs, and then points, each from a journal of its own."""
    cost = costs.setdefault(name, Cost(elapsed=name != SQLITE))
    peaks = []
    amounts = (("runs", cost.run, _runs(effort, name)), ("points", cost.point, _points(effort, name)))
    for what, values, count in amounts:
        announce(f"delivery: {count:,} {what}, {name}")
        store = fresh()
        measured = _deliver(workspace, what, count, store)
        values.append(measured["wall" if cost.elapsed else "processor"] / count)
        peaks.append(measured["peak"])
        if name == SQLITE:
            clock = costs.setdefault(BY_THE_CLOCK, Cost(elapsed=True))
            (clock.run if what == "runs" else clock.point).append(measured["wall"] / count)
            clock.peak.append(measured["peak"])
            _check(store, what, count)
            for subject, way in ((BARE, "executemany"), (CORE, "core")):
                _bare(workspace, costs.setdefault(subject, Cost()), way, store, what, count)
    cost.peak.append(max(peaks))


def _bare(workspace: Workspace, cost: Cost, way: str, delivered: str, what: str, count: int) -> None:
    """Insert the rows that were delivered into another store."""
    files = [uri.removeprefix("sqlite:///") for uri in (delivered, workspace.new_store())]
    measured = _measured_by(workspace, "inserting", way, *files)
    (cost.run if what == "runs" else cost.point).append(measured["processor"] / count)
    cost.peak.append(measured["peak"])


def _runs(effort: Effort, name: str) -> int:
    """How many runs a subject delivers; what takes three requests for each does fewer."""
    return max(3, effort.delivered_runs // 10) if name in (SERVER, SERVER_OF_MANY) else effort.delivered_runs


def _points(effort: Effort, name: str) -> int:
    return effort.delivered_points if name in (SQLITE, POSTGRESQL, PLUGIN) else max(1000, effort.delivered_points // 10)


def _deliver(workspace: Workspace, what: str, count: int, uri: str) -> dict[str, Any]:
    spool, env = workspace.recording("offline", uri)
    # What changed and reports are made after the delivery that is measured here; the others do nothing like it.
    env |= {"TRACKDSL_CHANGES": "0", "TRACKDSL_REPORTS": "0"}
    _run(workspace, env, "recording", what, str(count))
    return json.loads(_run(workspace, {**env, "TRACKDSL_MODE": "online"}, "delivering", str(spool)))  # type: ignore[no-any-return]


def _check(uri: str, what: str, count: int) -> None:
    """See that everything has arrived.

    Raises:
        RuntimeError: it has not.
    """
    table = "runs" if what == "runs" else "metrics"
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
        found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
    if found != count + (what == "runs"):
        raise RuntimeError(f"{found} of {count} {what} have arrived")


def _others(
    workspace: Workspace,
    effort: Effort,
    announce: Announce,
    costs: Costs,
    stores: dict[str, Callable[[], str]],
    left_out: list[str],
) -> None:
    for name, peer in _PEERS.items():
        if importlib.util.find_spec(peer.module) is None:
            left_out.append(f"{name}: pip install {peer.module}")
            continue
        _peer(workspace, effort, announce, costs, name, peer, workspace.new_store(), left_out)
    _peer(
        workspace,
        effort,
        announce,
        costs,
        REST,
        _Peer("rest", "requests", 1 / 20, 1 / 10),
        workspace.server(),
        left_out,
    )
    of_many = workspace.server(workers=_MANY)
    _peer(
        workspace, effort, announce, costs, REST_OF_MANY, _Peer("rest", "requests", 1 / 20, 1 / 10), of_many, left_out
    )
    _peer(workspace, effort, announce, costs, CLIENT_ON_SERVER, _PEERS[CLIENT], workspace.server(), left_out)
    if POSTGRESQL in stores:
        uri = stores[POSTGRESQL]()
        _peer(workspace, effort, announce, costs, CLIENT_ON_POSTGRESQL, _PEERS[CLIENT], uri, left_out)


def _peer(
    workspace: Workspace,
    effort: Effort,
    announce: Announce,
    costs: Costs,
    name: str,
    peer: _Peer,
    uri: str,
    left_out: list[str],
) -> None:
    runs = max(_LEAST["run"], int(effort.delivered_runs * peer.runs))
    points = max(_LEAST["point"], int(effort.delivered_points * peer.points))
    announce(f"delivery: {runs:,} runs and {points:,} points, {name}")
    try:
        measured = _measured_by(workspace, "peer", peer.program, str(runs), str(points), uri)
    except (subprocess.SubprocessError, ValueError) as error:
        left_out.append(f"{name}: it failed: {_last_line(error)}")
        return
    cost = costs.setdefault(name, Cost(elapsed=name in _BY_THE_CLOCK))
    clock = "wall" if cost.elapsed else "processor"
    cost.run.append(measured["run"][clock])
    cost.point.append(measured["point"][clock])
    cost.peak.append(measured["peak"])


def _last_line(error: Exception) -> str:
    return (str(getattr(error, "stderr", "") or error).strip().splitlines() or [""])[-1][:100]


def _measured_by(workspace: Workspace, program: str, *arguments: str) -> dict[str, Any]:
    folder = workspace.new_path(program)
    folder.mkdir()
    env = workspace.env(
        TRACKIO_DIR=str(folder / "trackio"), WANDB_DIR=str(folder), WANDB_SILENT="true", HOME=str(folder)
    )
    return json.loads(_run(workspace, env, program, *arguments, folder=folder))  # type: ignore[no-any-return]


def _run(workspace: Workspace, env: dict[str, str], program: str, *arguments: str, folder: Path | None = None) -> str:
    command = [sys.executable, "-W", "ignore", str(PROGRAMS / f"{program}.py"), *arguments]
    done = subprocess.run(
        command, env=env, cwd=folder or workspace.folder, check=True, capture_output=True, text=True, timeout=_GIVE_UP
    )
    return done.stdout


#: Others whose work is done by a server.
_BY_THE_CLOCK = (REST, REST_OF_MANY, CLIENT_ON_SERVER, CLIENT_ON_POSTGRESQL)
#: Subject, what it is compared with, and the least ratio for runs and for points.
_TARGETS = (
    (SQLITE, CLIENT, 80.0, 12.0),
    (SQLITE, "mltraq, sqlite", 1.0, 1.0),
    # It writes a run as one row with a blob; MLflow's tables need 29 rows for it, however they are written.
    (BARE, "mltraq, sqlite", None, None),
    (SQLITE, CORE, 1 / 1.6, 1 / 1.6),
    (SQLITE, BARE, 1 / 1.6, 1 / 1.6),
    (SQLITE, "MLflow fluent, sqlite", None, None),
    (SQLITE, "trackio", None, None),
    (SQLITE, "wandb, offline", None, None),
    (POSTGRESQL, CLIENT_ON_POSTGRESQL, None, None),
    (SERVER, REST, 1 / 1.15, None),
    (SERVER, CLIENT_ON_SERVER, 1.0, None),
    (SERVER_OF_MANY, REST_OF_MANY, 1.0, None),
    (PLUGIN, REST, None, None),
    (PLUGIN, BY_THE_CLOCK, 1 / 1.5, 1 / 1.5),
)


def _rows(costs: Costs) -> list[Row]:
    rows = []
    for ours, theirs, of_run, of_point in _TARGETS:
        if ours in costs and theirs in costs:
            for what, least in (("run", of_run), ("point", of_point)):
                target = None if least is None else Target("ratio", least)
                rows.append(_row(what, ours, theirs, costs, target))
    return rows


def _row(what: str, ours: str, theirs: str, costs: Costs, target: Target | None) -> Row:
    figures, baselines = getattr(costs[ours], what), getattr(costs[theirs], what)
    ratios = [baseline / figure for figure, baseline in zip(figures, baselines, strict=False)]
    return Row(
        group="delivery",
        name=f"a {what}: {ours}",
        figure=statistics.median(figures),
        unit="s",
        against=theirs,
        baseline=statistics.median(baselines),
        ratio=statistics.median(ratios),
        spread=spread(ratios),
        target=target,
        note=f"{'elapsed' if costs[ours].elapsed else 'processor'}; {DURABILITY[ours]}",
    )


def _visible(workspace: Workspace, effort: Effort, announce: Announce) -> Row:
    count = effort.delivered_runs
    announce(f"delivery: a program of {count:,} stages until `flush` returns")
    spool, env = workspace.recording("online")
    try:
        recorded, until, arrived = _run(workspace, env, "recording", "visible", str(count)).split()
    finally:
        Delivery(spool).end()
    return Row(
        group="delivery",
        name=f"a program of {count:,} stages, until flush() returns",
        figure=float(until),
        unit="s",
        against="recording alone",
        baseline=float(recorded),
        target=Target("figure", 4.0 * count / 10_000),
        note="an existing store" if arrived == "1" else "flush() answered False",
    )


def _first(workspace: Workspace, effort: Effort, announce: Announce) -> Row:
    announce("delivery: the first run of a program")
    seconds = []
    for _ in range(effort.starts):
        store = workspace.new_store()
        spool, env = workspace.recording("online", store)
        try:
            seconds.append(float(_run(workspace, env, "recording", "first", store.removeprefix("sqlite:///"))))
        finally:
            Delivery(spool).end()
    return Row(
        group="delivery",
        name="from a program's first event until its run is in the store",
        figure=statistics.median(seconds),
        unit="s",
        spread=spread(seconds),
        target=Target("figure", 0.5),
        note="the delivery process is started for it",
    )


def _growth(workspace: Workspace, effort: Effort, announce: Announce) -> list[Row]:
    """What an item costs, and how much memory is needed, with few and with many."""
    rows = []
    for what, few, many in (("runs", *effort.growth[:2]), ("points", *effort.growth[2:])):
        measured = {}
        for count in (few, many):
            announce(f"delivery: growth, {count:,} {what}")
            measured[count] = _deliver(workspace, what, count, workspace.new_store())
        cost = {count: measured[count]["processor"] / count for count in measured}
        rows.append(
            Row("delivery", f"one of {many:,} {what}, sqlite", cost[many], "s", f"one of {few:,}", cost[few],
                cost[few] / cost[many], target=Target("ratio", 1 / 1.2), note="processor")
        )  # fmt: skip
        grown = measured[many]["peak"] - measured[few]["peak"]
        rows.append(
            Row("delivery", f"memory of delivery, {many:,} {what} above {few:,}", grown, "B", "with few",
                measured[few]["peak"], target=Target("figure", 20e6))
        )  # fmt: skip
    return rows
