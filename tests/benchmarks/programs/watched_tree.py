"""Records a program with many running stages, and draws it as `trackdsl watch` does; prints what that takes as JSON.

Arguments: an empty folder, how many stages run, how many times to draw.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live

from trackdsl._core import events
from trackdsl.cli.watching._drawing import Picture
from trackdsl.cli.watching._rows import Folding, rows_of
from trackdsl.cli.watching._spool import WatchedSpool
from trackdsl.journal._origin import origin, write_origin
from trackdsl.journal._spool import make
from trackdsl.journal._writer import Writer

_POINTS = 20


def record(spool: Path, stages: int) -> Writer:
    """Write a journal: a root run with `stages` stages, each with a loop and a metric series."""
    writer = Writer.create(
        make(spool) / "journals" / "1-1-1", lambda folder: write_origin(folder, origin("sqlite://", os.getcwd()))
    )

    def write(event: events.AnyEvent) -> None:
        writer.append(events.encode(event))

    now = time.time_ns()
    root = bytes(16)
    write(events.Open(root, None, "e", "pipeline", "experiment", "pipeline", 0, now, {}, {}, None))
    for number in range(1, stages + 1):
        run = number.to_bytes(16, "big")
        write(events.Open(run, root, "e", f"fit {number}", "stage", f"pipeline/fit {number}", 0, now, {}, {}, None))
        write(events.Loop(run, "epoch", number % 10, 10.0, 0, now - 10**9, now))
        for step in range(_POINTS):
            write(events.Metric(run, "loss", 1 / (step + 1), step, now))
    return writer


def main(folder: Path, stages: int, rounds: int) -> None:
    """Record, read and draw."""
    writer = record(folder / "spool", stages)
    watched = WatchedSpool(writer.directory.parent.parent, ended=False)
    began = time.perf_counter()
    while not watched.journals or watched.is_behind:
        watched.read(1.0)
    times = {"read": [time.perf_counter() - began], "draw": [], "draw all": []}
    for name, height in (("draw", 50), ("draw all", stages + 10)):
        console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=120, height=height)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            for _ in range(rounds):
                began = time.perf_counter()
                picture = Picture(rows_of(watched, Folding()), counts=watched.runs.totals)
                live.update(picture, refresh=True)
                times[name].append(time.perf_counter() - began)
        assert f"fit {stages if height > stages else 10} " in console.file.getvalue()  # type: ignore[attr-defined]
    writer.close()
    sys.stdout.write(
        json.dumps({**times, "memory": [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]}) + "\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
