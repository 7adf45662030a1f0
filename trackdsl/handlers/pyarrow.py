"""Arrow tables, record batches and arrays → Parquet; also `.arrow`, `.feather` and `.csv` if the user chose it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from trackdsl.handlers import _sidecar
from trackdsl.handlers._arrow_digest import feed_arrow, mlflow_type
from trackdsl.handlers._content import free_name
from trackdsl.handlers._dataset import SHOWN, DatasetProfile, by, frame_profile, summary_of_table
from trackdsl.handlers._digest import Digest
from trackdsl.handlers._handler import MAX_CELLS, NEEDS_OWN_FILE, Handler, Scalar
from trackdsl.handlers._pickled import Pickled
from trackdsl.handlers._plain import summary_of
from trackdsl.handlers._table_sample import digest_of_columns

_ROW_GROUP = 1 << 18
_COLUMN = "values"


class _Table(Handler):
    suffix = ".parquet"
    suffixes = (".arrow", ".feather", ".csv")

    def accepts(self, value: Any) -> bool:
        """Whether Parquet keeps every column and its type."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self.table_of(value).schema
        if len(set(schema.names)) < len(schema.names):  # pyarrow would write it but could not read it.
            return False
        sink = pa.BufferOutputStream()
        pq.write_table(schema.empty_table(), sink)
        return bool(pq.read_schema(pa.BufferReader(sink.getvalue())).equals(schema))

    def content(self, value: Any) -> Any:
        """The rows as dicts by column names, or the values of one column, unless there are very many."""
        if len(value) * getattr(value, "num_columns", 1) > MAX_CELLS:
            return NEEDS_OWN_FILE
        given = value.schema.names if hasattr(value, "schema") else []
        if len(set(given)) < len(given):  # The keys of a dict must be unique.
            names: dict[str, None] = {}
            for name in given:
                names[free_name(name, names)] = None
            value = value.rename_columns(list(names))
        return value.to_pylist()

    def summary(self, value: Any) -> Scalar:
        table = self.table_of(value)
        columns = [(field.name, _short_name(field.type)) for field in (table.schema.field(i) for i in _first(table))]
        shape = by(table.num_rows, table.num_columns)
        return summary_of_table(
            type(value).__name__, shape, columns, table.num_columns,
            lambda: digest_of_columns(table.itercolumns(), table.num_rows, _items),
        )  # fmt: skip

    def write(self, value: Any, path: Path) -> None:
        import pyarrow as pa

        table = self.table_of(value)
        with open(path, "xb") as file:
            if path.suffix == ".csv":
                import pyarrow.csv

                pyarrow.csv.write_csv(table, file)
            elif path.suffix in (".arrow", ".feather"):
                with pa.ipc.new_file(file, table.schema) as writer:
                    writer.write_table(table, _ROW_GROUP)
            else:
                import pyarrow.parquet as pq

                repeated = [field.name for field in table.schema if not pa.types.is_floating(field.type)]
                pq.write_table(table, file, row_group_size=_ROW_GROUP, use_dictionary=repeated or False)
        if path.suffix == ".csv":
            _sidecar.write_types(path, lambda: _difference(_read_csv(path), table), lambda: _types_of(table))

    def read(self, path: Path) -> Any:
        import pyarrow as pa

        if path.suffix == ".csv":
            return self.value_of(_read_csv(path))
        if path.suffix in (".arrow", ".feather"):
            with pa.OSFile(str(path), "rb") as file, pa.ipc.open_file(file) as reader:
                return self.value_of(reader.read_all())
        import pyarrow.parquet as pq

        return self.value_of(pq.read_table(path))

    def dataset(self, value: Any) -> DatasetProfile | None:
        table = self.table_of(value)
        digest = Digest("arrow")
        digest.add_facts(table.num_rows, list(table.column_names))
        columns = []
        for position, (field, column) in enumerate(zip(table.schema, table.columns, strict=True)):
            digest.add_facts(str(field.type))
            feed_arrow(digest, str(position), column)
            columns.append((field.name, mlflow_type(field.type), column.null_count == 0))
        return frame_profile(digest, table.num_rows, columns)

    def table_of(self, value: Any) -> Any:
        """The value as a table that shares its memory."""
        return value

    def value_of(self, table: Any) -> Any:
        """The value from which `table_of` made a table."""
        return table


class _Batch(_Table):
    def table_of(self, value: Any) -> Any:
        import pyarrow as pa

        return pa.Table.from_batches([value])

    def value_of(self, table: Any) -> Any:
        import pyarrow as pa

        batches = table.combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


class _Chunked(_Table):
    """One column, which is written as a table with one column."""

    def summary(self, value: Any) -> Scalar:
        columns = [("", _short_name(value.type))]
        return summary_of_table(
            type(value).__name__, str(len(value)), columns, 1, lambda: digest_of_columns([value], len(value), _items)
        )

    def table_of(self, value: Any) -> Any:
        import pyarrow as pa

        return pa.table({_COLUMN: value})

    def value_of(self, table: Any) -> Any:
        return table.column(0)


class _Array(_Chunked):
    def value_of(self, table: Any) -> Any:
        import pyarrow as pa

        column = table.column(0)
        return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _items(column: Any, start: int, count: int) -> list[Any]:
    return column.slice(start, count).to_pylist()  # type: ignore[no-any-return]


def _read_csv(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    types = _sidecar.types_of(path)
    if "schema" not in types:
        return csv.read_csv(path)
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(types["schema"])))
    options = csv.ConvertOptions(column_types=schema, strings_can_be_null=True, quoted_strings_can_be_null=False)
    return csv.read_csv(path, convert_options=options).cast(schema)


def _types_of(table: Any) -> dict[str, Any]:
    columns = {field.name: str(field.type) for field in table.schema}  # Readable for people; `schema` has all details.
    return {"columns": columns, "schema": base64.b64encode(table.schema.serialize()).decode()}


def _difference(read_back: Any, table: Any) -> str:
    if read_back.schema != table.schema:
        one, other = (list(map(str, part.schema.types))[:SHOWN] for part in (read_back, table))
        return f"types {one} instead of {other}"
    return "" if read_back.equals(table) else "some values change when written as text"


def _first(table: Any) -> range:
    return range(min(table.num_columns, SHOWN))


def _short_name(kind: Any) -> str:
    import pyarrow as pa

    return "struct" if pa.types.is_struct(kind) or pa.types.is_union(kind) else str(kind)


class _Scalar(Pickled):
    def content(self, value: Any) -> Any:
        return value.as_py()

    def summary(self, value: Any) -> Scalar:
        return summary_of(value.as_py())


table = _Table()
batch = _Batch()
chunked = _Chunked()
array = _Array()
scalar = _Scalar()
