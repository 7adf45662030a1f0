"""Makes the tree of a root run that has ended one MLflow trace, whose id is that of the run.

So a trace that is made again, after a kill or because the run was resumed, is the same trace.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from trackdsl.delivery.store._sink import Batch, Sink
from trackdsl.delivery.summaries._reports import Interrupted
from trackdsl.delivery.summaries._trace_spans import trace_of
from trackdsl.store_format.tags import PARENT_TAG

#: If a tree has more runs, only the first ones have spans: MLflow's trace view draws all of them at once.
MOST_SPANS = 2000
#: The tag of a root run with MLflow's id of its trace.
TRACE_TAG = "trackdsl.trace"
#: The tag of a root run whose trace does not have all runs.
_LEFT_OUT_TAG = "trackdsl.omitted.trace"
#: MLflow sends the traces of a program in the background; after this many seconds, they are at the store.
_SENT_AFTER = 3.0


def make_trace(sink: Sink, run_id: str, waits: Callable[[], bool], *, still_runs: bool) -> bool:
    """Write the trace of a root run.

    Args:
        sink: the store.
        run_id: the store's id of the run.
        waits: whether a program waits for delivery.
        still_runs: whether the program that recorded the run still runs: MLflow may then send more traces from inside.

    Returns:
        whether there is nothing more to do. False while the run is running.

    Raises:
        Interrupted: it has to be made later.
        Unavailable: the store cannot be reached.
        Refused: the run was deleted a moment ago, or the store does not take the trace.
    """
    runs = sink.tree(run_id, MOST_SPANS + 1)
    if not runs or runs[0].tags.get(PARENT_TAG):
        return True
    if runs[0].status == "RUNNING" or not runs[0].end:
        return False
    if still_runs and time.time() < runs[0].end / 1000 + _SENT_AFTER:
        raise Interrupted

    def check_interrupt() -> None:
        if waits():
            raise Interrupted

    trace = trace_of(runs[:MOST_SPANS], cut=len(runs) > MOST_SPANS)
    trace_id = sink.write_trace(trace, check_interrupt)
    left_out = {_LEFT_OUT_TAG: trace.left_out} if trace.left_out else {}
    sink.write(run_id, Batch(tags={TRACE_TAG: trace_id, **left_out}))
    sink.commit()
    return True
