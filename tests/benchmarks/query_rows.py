"""What asking costs: many runs of a SQLite store as a frame, by trackdsl and by MLflow in turn."""

from __future__ import annotations

import dataclasses

from figures import Row, Target
from pairing import Child, compare, interleave
from places import Place
from recording_rows import FULL, Effort, Tell

_FULL_RUNS, _QUICK_RUNS = 10_000, 1_000
#: MLflow takes a millisecond a run.
_ROUNDS = 3
#: Seconds for 10,000 runs.
_TARGET = 3.0


def query(place: Place, effort: Effort, tell: Tell) -> list[Row]:
    """The group `query`."""
    count = _FULL_RUNS if effort == FULL else _QUICK_RUNS
    tell(f"query: {count:,} runs")
    ours, theirs = f"runs() of {count:,} runs, 8 parameters, 5 metrics, 15 tags", "mlflow.search_runs()"
    best, by_hand = f"best() of {count:,} runs", "search_runs(order_by, max_results=1)"
    with Child("subject_query", place.new_store(), str(count), env=place.env(), cwd=place.folder) as child:
        frames = interleave([child.subject(ours, "ours", 1), child.subject(theirs, "theirs", 1)], _ROUNDS)
        one = interleave([child.subject(best, "best", 1), child.subject(by_hand, "by-hand", 1)], _ROUNDS)
    row = compare("query", ours, theirs, frames, Target("figure", _TARGET * count / _FULL_RUNS))
    return [row, dataclasses.replace(compare("query", best, by_hand, one), note="both as an object")]
