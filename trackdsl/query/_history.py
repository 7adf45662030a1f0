"""`history`: every value that a metric of a run has had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trackdsl.errors import QueryError
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundRun, Point
from trackdsl.query._run_lookup import asked_for
from trackdsl.query._runs import check_metric, no_metric

if TYPE_CHECKING:
    from pandas import DataFrame


def history(run: Any, *metrics: str, tracking_uri: str | None = None) -> DataFrame:
    """Every point of a run's metrics, in the order they were logged.

    Points of one millisecond stand in the order of their steps.

    Args:
        run: a `Run`, its id (MLflow's or trackdsl's, or the beginning of it), its name, or a run of MLflow's.
        *metrics: names.
        tracking_uri: where the run is; the run's own place, else the configured store.

    Returns:
        a frame of `step` (int), `value` (float) and `time` (UTC). Of several metrics it has a column `metric` before
        these, and one metric stands below the other: `frame.pivot_table("value", "step", "metric")` puts them side by
        side.

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
    with asked_for([run], tracking_uri) as (reader, (found,)):
        frames = {metric: _frame(_points(metric, found, reader)) for metric in dict.fromkeys(metrics)}
    if len(frames) == 1:
        return next(iter(frames.values()))
    import pandas as pd

    for metric, frame in frames.items():
        frame.insert(0, "metric", metric)
    return pd.concat(frames.values(), ignore_index=True)


def _points(metric: str, run: FoundRun, reader: PagedReader) -> list[Point]:
    from trackdsl.store_format.limits import fit_key

    name = next((one for one in (metric, fit_key(metric)) if one in run.metrics), None)
    if name is None:
        raise no_metric(metric, sorted(run.metrics), reader)
    return sorted(reader.history(run.run_id, name), key=lambda point: (point.time, point.step))


def _frame(points: list[Point]) -> DataFrame:
    import pandas as pd

    times = pd.Series([point.time for point in points], dtype="int64")
    return pd.DataFrame(
        {
            "step": pd.Series([point.step for point in points], dtype="int64"),
            "value": pd.Series([point.value for point in points], dtype="float64"),
            "time": pd.to_datetime(times, unit="ms", utc=True, errors="coerce").astype("datetime64[ms, UTC]"),
        }
    )
