"""Polars frames and series → Parquet. A lazy frame is shown only by its class: its schema may have to read files."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from trackdsl.handlers import _sidecar
from trackdsl.handlers._arrow_digest import feed_arrow, mlflow_type
from trackdsl.handlers._dataset import SHOWN, DatasetProfile, by, frame_profile, summary_of_table
from trackdsl.handlers._digest import Digest, feed_objects
from trackdsl.handlers._handler import MAX_CELLS, NEEDS_OWN_FILE, Handler, Scalar
from trackdsl.handlers._pickled import Pickled
from trackdsl.handlers._table_sample import digest_of_columns


class _Frame(Handler):
    suffix = ".parquet"
    suffixes = (".arrow", ".feather", ".csv", ".json")

    def accepts(self, value: Any) -> bool:
        """Whether Parquet keeps every type."""
        import io

        import polars as pl

        frame = self.frame_of(value)
        if any(_holds_objects(dtype) for dtype in frame.dtypes) or (frame.height and not frame.width):
            return False
        sink = io.BytesIO()
        frame.clear().write_parquet(sink)
        sink.seek(0)
        return bool(pl.read_parquet(sink).schema == frame.schema)

    def content(self, value: Any) -> Any:
        """The rows as dicts by column names, unless there are very many."""
        return value.to_dicts() if value.height * value.width <= MAX_CELLS else NEEDS_OWN_FILE

    def summary(self, value: Any) -> Scalar:
        names, dtypes = value.columns[:SHOWN], value.dtypes[:SHOWN]
        columns = [(name, _short_name(dtype)) for name, dtype in zip(names, dtypes, strict=True)]
        return summary_of_table(
            type(value).__name__, by(*value.shape), columns, value.width,
            lambda: digest_of_columns(value.iter_columns(), value.height, _items),
        )  # fmt: skip

    def write(self, value: Any, path: Path) -> None:
        frame = self.frame_of(value)
        with open(path, "xb") as file:
            if path.suffix == ".csv":
                frame.write_csv(file)
            elif path.suffix == ".json":
                frame.write_json(file)
            elif path.suffix in (".arrow", ".feather"):
                frame.write_ipc(file)
            else:
                frame.write_parquet(file)
        if path.suffix in (".csv", ".json"):
            _sidecar.write_types(path, lambda: _difference(_read_text(path), frame), lambda: _types_of(frame))

    def read(self, path: Path) -> Any:
        import polars as pl

        if path.suffix in (".csv", ".json"):
            return self.value_of(_read_text(path))
        if path.suffix in (".arrow", ".feather"):
            with open(path, "rb") as file:
                return self.value_of(pl.read_ipc(file))
        # polars would treat a path as a pattern.
        with open(path, "rb") as file:
            return self.value_of(pl.read_parquet(file))

    def dataset(self, value: Any) -> DatasetProfile | None:
        import polars as pl
        import pyarrow as pa

        frame = self.frame_of(value)
        digest = Digest("polars")
        digest.add_facts(frame.height, list(frame.columns))
        columns = []
        for position, column in enumerate(frame.iter_columns()):
            digest.add_facts(str(column.dtype))
            if column.dtype == pl.Object:
                feed_objects(digest, str(position), column.to_list())
                columns.append((column.name, "any", column.null_count() == 0))
            else:
                shared = pa.chunked_array(column)
                feed_arrow(digest, str(position), shared)
                columns.append((column.name, mlflow_type(shared.type), column.null_count() == 0))
        return frame_profile(digest, frame.height, columns)

    def frame_of(self, value: Any) -> Any:
        """The value as a frame that shares its memory."""
        return value

    def value_of(self, frame: Any) -> Any:
        """The value from which `frame_of` made a frame."""
        return frame


class _Series(_Frame):
    def content(self, value: Any) -> Any:
        return value.to_list() if len(value) <= MAX_CELLS else NEEDS_OWN_FILE

    def summary(self, value: Any) -> Scalar:
        columns = [(value.name, _short_name(value.dtype))]
        return summary_of_table(
            "Series", str(len(value)), columns, 1, lambda: digest_of_columns([value], len(value), _items)
        )

    def frame_of(self, value: Any) -> Any:
        return value.to_frame()

    def value_of(self, frame: Any) -> Any:
        return frame.to_series(0)


class _Lazy(Pickled):
    """A lazy frame. Pickling it does not run its query."""


def _items(column: Any, start: int, count: int) -> list[Any]:
    return column.slice(start, count).to_list()  # type: ignore[no-any-return]


def _read_text(path: Path) -> Any:
    import polars as pl

    types = _sidecar.types_of(path)
    if "schema" not in types:
        return pl.read_csv(path) if path.suffix == ".csv" else pl.read_json(path)
    schema = pl.read_ipc(base64.b64decode(types["schema"])).schema
    if path.suffix == ".json":
        return pl.read_json(path, schema=schema)
    if not schema:  # `read_csv` rejects a file without columns.
        return pl.DataFrame()
    texts = pl.read_csv(path, infer_schema=False)
    return texts.select(_of_text(pl.col(name), dtype).alias(name) for name, dtype in schema.items())


def _of_text(column: Any, dtype: Any) -> Any:
    import polars as pl

    if dtype == pl.Boolean:
        return column == "true"
    if isinstance(dtype, pl.Datetime):
        return column.str.to_datetime(time_unit=dtype.time_unit, time_zone=dtype.time_zone)
    return column.str.strptime(dtype) if dtype in (pl.Date, pl.Time) else column.cast(dtype)


def _types_of(frame: Any) -> dict[str, Any]:
    import io

    sink = io.BytesIO()
    frame.clear().write_ipc(sink)
    columns = {
        name: str(dtype) for name, dtype in frame.schema.items()
    }  # Readable for people; `schema` has all details.
    return {"columns": columns, "schema": base64.b64encode(sink.getvalue()).decode()}


def _difference(read_back: Any, frame: Any) -> str:
    if read_back.schema != frame.schema:
        return f"types {list(map(str, read_back.dtypes))[:SHOWN]} instead of {list(map(str, frame.dtypes))[:SHOWN]}"
    return "" if read_back.equals(frame) else "some values change when written as text"


def _holds_objects(dtype: Any) -> bool:
    return "Object" in str(dtype.base_type()) or (dtype.is_nested() and "Object" in str(dtype))


def _short_name(dtype: Any) -> str:
    # The text of an enumeration or struct type contains its categories or fields, which may be many.
    return str(dtype.base_type().__name__ if dtype.is_nested() or hasattr(dtype, "categories") else dtype)


frame = _Frame()
series = _Series()
lazy = _Lazy()
