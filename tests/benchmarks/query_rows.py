"""What asking costs: many runs of a SQLite store as a frame, by trackdsl and by MLflow in turn."""

from __future__ import annotations

import dataclasses

from figures import Row, Target
from pairing import Child, compare, interleave
from recording_rows import FULL, Announce, Effort
from workspace import Workspace

_FULL_RUNS, _QUICK_RUNS = 10_000, 1_000
#: MLflow takes a millisecond a run.
_ROUNDS = 3
#: Seconds for 10,000 runs.
_TARGET = 3.0


def query(workspace: Workspace, effort: Effort, announce: Announce) -> list[Row]:
    """The group `query`."""
    count = _FULL_RUNS if effort.rounds == FULL.rounds else _QUICK_RUNS
    announce(f"query: {count:,} runs")
    ours, theirs = f"runs() of {count:,} runs, 8 parameters, 5 metrics, 15 tags", "mlflow.search_runs()"
    best, by_hand = f"best() of {count:,} runs", "search_runs(order_by, max_results=1)"
    with Child("subject_query", workspace.new_store(), str(count), env=workspace.env(), cwd=workspace.folder) as child:
        frames = interleave([child.subject(ours, "ours", 1), child.subject(theirs, "theirs", 1)], _ROUNDS)
        one = interleave([child.subject(best, "best", 1), child.subject(by_hand, "by-hand", 1)], _ROUNDS)
    row = compare("query", ours, theirs, frames, Target("figure", _TARGET * count / _FULL_RUNS))
    return [row, dataclasses.replace(compare("query", best, by_hand, one), note="both as an object")]
