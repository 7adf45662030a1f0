"""What a whole process costs: importing, memory, ending without a server."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from figures import Row, Target
from pairing import PROGRAMS, Samples, Subject, above, compare, interleave
from recording_rows import Announce, Effort
from workspace import Delivery, Workspace, closed_port, hung_server

_HEAVY = ("mlflow", "numpy", "pandas", "pydantic")
_GIVE_UP = 120.0


def imports(workspace: Workspace, effort: Effort, announce: Announce) -> list[Row]:
    """The group `import`: wall time of fresh interpreters."""
    announce("import")
    # Compiled once, as an installed package is, whatever the environment says of this checkout.
    env = workspace.env(PYTHONPYCACHEPREFIX=str(workspace.new_path("bytecode")))
    env.pop("PYTHONDONTWRITEBYTECODE", None)

    def start(code: str, count: int, env: dict[str, str] = env) -> float:
        begin = time.perf_counter()
        for _ in range(count):
            subprocess.run([sys.executable, "-c", code], env=env, cwd=workspace.folder, check=True)
        return (time.perf_counter() - begin) / count

    ours, theirs, bare = "import trackdsl", "import mlflow", "bare python"
    subjects = [
        Subject(bare, lambda count: start("pass", count), 3),
        Subject(ours, lambda count: start(ours, count), 3),
        Subject(theirs, lambda count: start(theirs, count, workspace.env()), 1),
    ]
    for code in ("pass", ours):
        start(code, 1)
    samples = interleave(subjects, effort.starts)
    loaded = _loaded(workspace, env)
    note = f"imports {', '.join(loaded)}" if loaded else f"imports none of {', '.join(_HEAVY)}"
    net = _above_bare(samples, bare)
    return [
        above("import", ours, bare, samples, Target("figure", 0.1), note),
        compare("import", ours, theirs, net, note="both above bare python"),
        Row("import", "of these modules imported", len(loaded), "count", target=Target("figure", 0), note=note),
    ]


def _above_bare(samples: Samples, bare: str) -> Samples:
    return {
        name: [one - base for one, base in zip(times, samples[bare], strict=True)] for name, times in samples.items()
    }


def _loaded(workspace: Workspace, env: dict[str, str]) -> list[str]:
    code = f"import sys, trackdsl; sys.stdout.write(' '.join(n for n in {_HEAVY!r} if n in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=workspace.folder, check=True, capture_output=True, text=True
    )
    return done.stdout.split()


def memory(workspace: Workspace, effort: Effort, announce: Announce) -> list[Row]:
    """The group `memory`: the peak over a million points."""
    rows = []
    for mode in ("offline", "online"):
        announce(f"memory, {mode}")
        spool, env = workspace.recording(mode)
        command = [sys.executable, str(PROGRAMS / "memory.py"), str(effort.points)]
        try:
            done = subprocess.run(command, env=env, cwd=workspace.folder, check=True, capture_output=True, text=True)
        finally:
            Delivery(spool).end()
        before, after = map(int, done.stdout.split())
        rows.append(
            Row(
                "memory",
                f"peak memory, growth over {effort.points:,} points, {mode}",
                after - before,
                "B",
                "peak before",
                before,
                target=Target("figure", 50e6),
                note="delivery at work" if mode == "online" else "",
            )
        )
    return rows


def outage(workspace: Workspace, effort: Effort, announce: Announce) -> list[Row]:
    """The group `outage`: a program of half a second with a server, without one, and with one that never answers."""
    bodies: Samples = {}
    exits: Samples = {}
    with contextlib.ExitStack() as stack:
        server = workspace.server()
        hung = stack.enter_context(hung_server())
        tempers = {
            "with a server": server,
            "no server (closed port)": f"http://127.0.0.1:{closed_port()}",
            "a server that never answers": hung,
        }
        for number in range(effort.outages):
            announce(f"outage: round {number + 1} of {effort.outages}")
            for temper, uri in tempers.items():
                body, leaving = _one_program(workspace, uri)
                bodies.setdefault(temper, []).append(body)
                exits.setdefault(temper, []).append(leaving)
    first, *others = tempers
    rows = [replace(compare("outage", temper, first, bodies), name=f"body of a program, {temper}") for temper in others]
    return rows + [_exit_row(temper, exits[temper], temper != first) for temper in tempers]


def _exit_row(temper: str, seconds: list[float], limited: bool) -> Row:
    longest = f"longest {max(seconds):.2f} s" if len(seconds) > 1 else ""
    limit = Target("figure", 5.0) if limited else None
    return Row("outage", f"exit of it, {temper}", statistics.median(seconds), "s", target=limit, note=longest)


def _one_program(workspace: Workspace, uri: str) -> tuple[float, float]:
    spool, env = workspace.recording("online", uri)
    program: Path = PROGRAMS / "outage.py"
    try:
        done = subprocess.run(
            [sys.executable, str(program)],
            env=env,
            cwd=workspace.folder,
            check=True,
            capture_output=True,
            timeout=_GIVE_UP,
        )
        ended = time.monotonic_ns()
    finally:
        Delivery(spool).end()
    body, left = map(int, done.stdout.split())
    return body / 1e9, (ended - left) / 1e9
