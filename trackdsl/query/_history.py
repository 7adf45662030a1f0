"""`history`: all points of a run's metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from trackdsl.errors import QueryError
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundRun, HistoryPoint
from trackdsl.query._run_lookup import asked_for
from trackdsl.query._runs import check_metric, no_metric

if TYPE_CHECKING:
    from trackdsl.query._frame_type import Frame


def history(run: Any, *metrics: str, tracking_uri: str | None = None) -> Frame:
    """All points of a run's metrics, in the order they were logged.

    Points of the same millisecond are in the order of their steps.

    Args:
        run: a `Run`, MLflow's or trackdsl's id of it or its first characters, its name, or an MLflow run.
        *metrics: names of metrics.
        tracking_uri: the store; by default that of the `Run`, else the configured one.

    Returns:
        a data frame with `step` (int), `value` (float) and `time` (UTC). For several metrics it has a column `metric`
        too, with the rows of one metric after those of another: `frame.pivot_table("value", "step", "metric")` puts
        them side by side.

    Raises:
        RunNotFound: there is no such run.
        QueryError: the run has no such metric; the message names those that it has.

    Example:
        >>> history(run, "loss").plot("step", "value")  # doctest: +SKIP
    """
    if not metrics:
        raise QueryError('history takes the names of metrics: history(run, "loss").', argument="metric")
    for metric in metrics:
        check_metric(metric)
    with asked_for([run], tracking_uri) as (reader, (stored,)):
        frames = {metric: _frame(_points(metric, stored, reader)) for metric in dict.fromkeys(metrics)}
    if len(frames) == 1:
        return next(iter(frames.values()))
    import pandas as pd

    for metric, frame in frames.items():
        frame.insert(0, "metric", metric)
    return cast("Frame", pd.concat(frames.values(), ignore_index=True))


def _points(metric: str, run: FoundRun, reader: PagedReader) -> list[HistoryPoint]:
    from trackdsl.store_format.limits import fit_key

    name = next((one for one in (metric, fit_key(metric)) if one in run.metrics), None)
    if name is None:
        raise no_metric(metric, sorted(run.metrics), reader)
    return sorted(reader.history(run.run_id, name), key=lambda point: (point.time, point.step))


def _frame(points: list[HistoryPoint]) -> Frame:
    import pandas as pd

    times = pd.Series([point.time for point in points], dtype="int64")
    columns = {
        "step": pd.Series([point.step for point in points], dtype="int64"),
        "value": pd.Series([point.value for point in points], dtype="float64"),
        "time": pd.to_datetime(times, unit="ms", utc=True, errors="coerce").astype("datetime64[ms, UTC]"),
    }
    return cast("Frame", pd.DataFrame(columns))
