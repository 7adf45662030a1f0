"""What `trackdsl watch` costs: a tree of many running stages, read and drawn."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from figures import Row, Target
from pairing import PROGRAMS
from recording_rows import Announce, Effort
from workspace import Workspace

_STAGES = 1000
#: Seconds for a picture.
_TARGET = 0.05


def watch(workspace: Workspace, effort: Effort, announce: Announce) -> list[Row]:
    """The group `watch`."""
    announce(f"watch: {_STAGES:,} running stages")
    folder = workspace.new_path("watched")
    folder.mkdir()
    command = [sys.executable, str(PROGRAMS / "watched_tree.py"), str(folder), str(_STAGES), str(effort.rounds)]
    done = subprocess.run(command, env=workspace.env(), cwd=folder, check=True, capture_output=True, text=True)
    times = {name: statistics.median(found) for name, found in json.loads(done.stdout).items()}
    stages = f"{_STAGES:,} running stages"
    return [
        Row("watch", f"{stages} read the first time", times["read"], "s", note="a metric of 20 points in each"),
        Row("watch", f"{stages} drawn, 50 lines visible", times["draw"], "s", target=Target("figure", _TARGET)),
        Row("watch", f"{stages} drawn, all visible", times["draw all"], "s", target=Target("figure", _TARGET)),
        Row("watch", f"memory of a process that watches {stages}", times["memory"], "B"),
    ]
