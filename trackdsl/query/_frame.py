"""Runs as a pandas data frame."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from trackdsl.query._attributes import COLUMNS
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundRun
from trackdsl.store_format.tags import PATH_TAG

if TYPE_CHECKING:
    from trackdsl.query._frame_type import Frame

_INTEGER = re.compile(r"0|-?[1-9]\d*")
_TRUTH = {"True": True, "False": False}
#: Up to here, integers are exact as floats, which a column with missing values needs.
_EXACT = 1 << 53
_INT64 = 1 << 63


def frame_of(
    runs: Sequence[FoundRun], experiments: Mapping[str, str], paths: Mapping[str, str], *, numbers: bool
) -> Frame:
    """A frame with a row for each run; see `trackdsl.runs` for its columns.

    Args:
        runs: in order.
        experiments: names by MLflow's id.
        paths: the paths of runs of plain MLflow, by MLflow's id; see `paths_of`.
        numbers: whether to convert parameters to numbers.
    """
    import pandas as pd

    from trackdsl.query._inert_frame import DataFrame

    columns: dict[str, Any] = _attribute_columns(runs, experiments, paths)
    for name in _names(run.params for run in runs):
        texts = [run.params.get(name) for run in runs]
        columns[f"params.{name}"] = _typed(texts) if numbers else pd.Series(texts, dtype=object)
    for name in _names(run.metrics for run in runs):
        columns[f"metrics.{name}"] = pd.Series([run.metrics.get(name) for run in runs], dtype="float64")
    for name in sorted(_names(run.tags for run in runs), key=_rank):
        columns[f"tags.{name}"] = pd.Series([run.tags.get(name) for run in runs], dtype=object)
    return cast("Frame", DataFrame(columns))


def paths_of(runs: Sequence[FoundRun], reader: PagedReader) -> dict[str, str]:
    """The paths of runs of plain MLflow, from the names of their parents."""
    known = {run.run_id: run for run in runs}
    wanted = [run for run in runs if PATH_TAG not in run.tags]
    level = wanted
    while level:
        missing = {run.parent for run in level if run.parent is not None and PATH_TAG not in run.tags} - known.keys()
        level = reader.with_ids(sorted(missing)) if missing else []
        known.update((run.run_id, run) for run in level)
    return {run.run_id: _path(run, known) for run in wanted}


def _path(run: FoundRun, known: Mapping[str, FoundRun]) -> str:
    names: list[str] = []
    seen = set()
    while run.run_id not in seen:
        seen.add(run.run_id)
        names.insert(0, run.tags.get(PATH_TAG) or run.name)
        parent = None if PATH_TAG in run.tags else known.get(run.parent or "")
        if parent is None:
            break
        run = parent
    return "/".join(names)


def _attribute_columns(
    runs: Sequence[FoundRun], experiments: Mapping[str, str], paths: Mapping[str, str]
) -> dict[str, Any]:
    import pandas as pd

    texts = {
        "run_id": [run.run_id for run in runs],
        "id": [run.id for run in runs],
        "name": [run.name for run in runs],
        "experiment": [experiments.get(run.experiment_id) for run in runs],
        "status": [run.status for run in runs],
        "parent": [run.parent for run in runs],
        "path": [run.tags.get(PATH_TAG) or paths.get(run.run_id) for run in runs],
    }
    columns: dict[str, Any] = {name: pd.Series(values, dtype=object) for name, values in texts.items()}
    starts = pd.Series([run.start for run in runs], dtype="Int64")
    columns["start"] = pd.to_datetime(starts, unit="ms", utc=True, errors="coerce").astype("datetime64[ms, UTC]")
    columns["duration"] = pd.Series([run.duration for run in runs], dtype="float64")
    return {name: columns[name] for name in COLUMNS}


def _names(held: Any) -> list[str]:
    return sorted({name for mapping in held for name in mapping})


def _rank(name: str) -> tuple[int, str]:
    """The user's tags first, then ours, then MLflow's."""
    return (2 if name.startswith("mlflow.") else 1 if name.startswith("trackdsl.") else 0), name


def _typed(texts: list[str | None]) -> Any:
    """A column of a parameter: numbers or booleans if all texts can be converted, and converted back without loss."""
    import pandas as pd

    present = {text for text in texts if text is not None}
    gaps = any(text is None for text in texts)
    if present <= _TRUTH.keys():
        dtype = "boolean" if gaps else "bool"
        return pd.Series([None if text is None else _TRUTH[text] for text in texts], dtype=dtype)
    known = {text: _number(text) for text in present}
    values = list(known.values())
    if any(value is None for value in values):
        return pd.Series(texts, dtype=object)
    whole = all(isinstance(value, int) for value in values)
    limit = _INT64 if whole and not gaps else _EXACT
    if any(isinstance(value, int) and not -limit < value < limit for value in values):
        return pd.Series(texts, dtype=object)
    dtype = "int64" if whole and not gaps else "float64"
    return pd.Series([None if text is None else known[text] for text in texts], dtype=dtype)


def _number(text: str) -> int | float | None:
    """The number that Python writes as this text; None if there is none, for example for `007`, `1.50` and `nan`."""
    if len(text) > 40:
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    try:
        value = float(text)
    except ValueError:
        return None
    return value if repr(value) == text and value == value else None
