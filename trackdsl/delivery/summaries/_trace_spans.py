"""Makes a trace of the tree of a root run: one span for each run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from trackdsl._core.readable import is_finite, number
from trackdsl.delivery.store._run_trace import Failure, RunTrace, StageSpan
from trackdsl.delivery.store._sink import TreeRun
from trackdsl.store_format.call_tag import call_of
from trackdsl.store_format.original_names import with_originals
from trackdsl.store_format.tags import ID_TAG, PARENT_TAG

_EXCEPTION = "trackdsl.exception."
_SYSTEM = "system/"


def trace_of(runs: Sequence[TreeRun], *, cut: bool) -> RunTrace:
    """Describe a tree of runs as a trace.

    Args:
        runs: the root run, which has ended, and those below it, parents before their children.
        cut: whether the tree has more runs than these.
    """
    root = runs[0]
    span_of = {run.run_id: _span_id(run.run_id) for run in runs}
    spans = [_span(run, span_of, root) for run in runs]
    left_out = f"all but the first {len(runs):,} runs" if cut else ""
    if cut:
        spans[0] = replace(spans[0], attributes={**spans[0].attributes, "trackdsl.left_out": left_out})
    kept = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit")
    metadata = {name: root.tags[name] for name in kept if name in root.tags}
    return RunTrace(_trace_id(root), root.run_id, root.experiment_id, spans, span_of, metadata, left_out)


def _trace_id(root: TreeRun) -> str:
    id_ = root.tags.get(ID_TAG, "")
    if re.fullmatch(r"[0-9a-f]{32}", id_) and int(id_, 16):
        return id_
    return hashlib.sha256(root.run_id.encode()).hexdigest()[:32]


def _span_id(run_id: str) -> int:
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8], "big") or 1


def _span(run: TreeRun, span_of: Mapping[str, int], root: TreeRun) -> StageSpan:
    is_root = run is root
    start = run.start or root.start
    # A run that was never ended is as long as its root run.
    end = max(start, run.end or root.end)
    return StageSpan(
        id=span_of[run.run_id],
        parent=None if is_root else span_of.get(run.tags.get(PARENT_TAG, ""), span_of[root.run_id]),
        name=run.name or run.run_id,
        start=start * 1_000_000,
        end=end * 1_000_000,
        status=run.status,
        inputs=with_originals(run.params, run),
        outputs={
            name: _plain(value)
            for name, value in with_originals(run.metrics, run).items()
            if not name.startswith(_SYSTEM)
        },
        attributes=_attributes(run),
        failure=_failure(run),
    )


def _plain(value: float) -> float | str:
    return value if is_finite(value) else number(value)


def _attributes(run: TreeRun) -> dict[str, str]:
    call = call_of(run.tags)
    attributes = {
        "trackdsl.run_id": run.run_id,
        "trackdsl.run_page": f"#/experiments/{run.experiment_id}/runs/{run.run_id}",
        "trackdsl.status": run.status,
        "trackdsl.function": call.get("function"),
        "trackdsl.host": call.get("host"),
        "trackdsl.pid": call.get("pid"),
    }
    return {name: str(value) for name, value in attributes.items() if value not in (None, "")}


def _failure(run: TreeRun) -> Failure | None:
    kind = run.tags.get(f"{_EXCEPTION}type")
    if kind is None or run.status == "FINISHED":
        return None
    return Failure(kind, run.tags.get(f"{_EXCEPTION}message", ""), run.tags.get(f"{_EXCEPTION}traceback", ""))
