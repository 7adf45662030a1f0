"""What values cost: structures with many leaves, and a large frame as an argument, as a dataset, and returned."""

from __future__ import annotations

import subprocess
import sys

from figures import Row, Target
from pairing import PROGRAMS, Child, above, compare, interleave
from recording_rows import Announce, Effort
from workspace import Workspace

_LEAVES = "a dict of 1,000 leaves as an argument"
_ONE = "a number as an argument"
_HASH = "hashing its buffers (xxh3_128)"


def values(workspace: Workspace, effort: Effort, announce: Announce) -> list[Row]:
    """The group `values`."""
    size = f"{effort.megabytes:,} MB frame"
    announce(f"values: {size}")
    _, env = workspace.recording("offline")
    with Child("subject_values", str(effort.megabytes), env=env, cwd=workspace.folder) as child:
        leaves = interleave([child.subject(_LEAVES, "leaves", 20), child.subject(_ONE, "number", 200)], effort.rounds)
        argument, dataset = f"{size} as an argument", f"{size} as a Dataset"
        large = interleave(
            [
                child.subject(argument, "argument", 200),
                child.subject(dataset, "dataset", 1),
                child.subject(_ONE, "number", 200),
                child.subject(_HASH, "hash", 1),
            ],
            max(3, effort.rounds // 3),
        )
    return [
        above("values", _LEAVES, _ONE, leaves, Target("figure", 1e-3)),
        above("values", argument, _ONE, large, Target("figure", 1e-3)),
        compare("values", dataset, _HASH, large, Target("ratio", 0.5)),
        *_returned(workspace, effort, announce),
    ]


def _returned(workspace: Workspace, effort: Effort, announce: Announce) -> list[Row]:
    announce("values: returned as Parquet")
    _, env = workspace.recording("offline")
    command = [sys.executable, str(PROGRAMS / "returned_frame.py"), str(effort.megabytes)]
    done = subprocess.run(command, env=env, cwd=workspace.folder, check=True, capture_output=True, text=True)
    size, before, peak = map(int, done.stdout.split())
    name = f"{effort.megabytes:,} MB frame returned as Parquet"
    return [
        Row("values", f"{name}: growth of memory", peak - before, "B", "its size", size),
        Row(
            "values", f"{name}: its size and the growth, as a share of its size", 1 + (peak - before) / size, "share",
            target=Target("figure", 1.3),
        ),
    ]  # fmt: skip
