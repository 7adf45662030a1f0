"""`trackdsl export`: writes the runs of experiments to a file that data frame libraries and spreadsheets read."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trackdsl._core.escaping import printable
from trackdsl.cli._output_file import replacing
from trackdsl.cli._reading import errors_printed
from trackdsl.query._runs import runs

if TYPE_CHECKING:
    from pandas import DataFrame

#: Spreadsheets take a cell that begins with one of these for a formula, and execute it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export(
    experiments: Sequence[str],
    output: Path,
    where: str | None,
    tracking_uri: str | None,
    *,
    superseded: bool,
    as_json: bool,
) -> None:
    """Write runs to a file, with the columns of `trackdsl.runs`.

    Args:
        experiments: names; all experiments where there are none.
        output: the file, whose name ends in `.parquet`, `.csv` or `.json`.
        where: a filter in MLflow's language.
        tracking_uri: the store; the configured one by default.
        superseded: as for `trackdsl.runs`.
        as_json: print what was written as JSON.

    Raises:
        click.ClickException: the file cannot be written.
    """
    with errors_printed():
        found = runs(list(experiments) or None, where, superseded=superseded, tracking_uri=tracking_uri)
    try:
        with replacing(output) as file:
            _write(found, file, output.suffix.lower())
    except ImportError:
        raise click.ClickException("Parquet needs pyarrow: `pip install pyarrow`. A .csv file needs nothing.") from None
    if as_json:
        click.echo(json.dumps({"path": str(output), "runs": len(found), "columns": list(found.columns)}))
        return
    count = "1 run" if len(found) == 1 else f"{len(found):,} runs"
    click.echo(f"{printable(str(output))} has {count} in {len(found.columns)} columns.", err=True)


def _write(found: DataFrame, path: Path, ending: str) -> None:
    if ending == ".csv":
        found.map(_inert).to_csv(path, index=False, errors="replace")
    elif ending == ".json":
        rows = [{name: _json_value(value) for name, value in row.items()} for row in found.to_dict("records")]
        path.write_text(json.dumps(rows, indent=1, allow_nan=False), encoding="utf-8")
    else:
        found.to_parquet(path, index=False)


def _inert(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: a text that looks like one begins with an apostrophe.

    >>> _inert("=1+1"), _inert("-0.5"), _inert("rf")
    ("'=1+1", '-0.5', 'rf')
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _json_value(value: Any) -> Any:
    """A value in JSON, which has neither NaN nor infinity nor times."""
    import pandas as pd

    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return None if value is None or value is pd.NaT or value is pd.NA else value
