"""pandas frames, series and indexes → Parquet; also `.csv`, `.tsv`, `.json` and `.html` if the user chose that suffix.

Parquet keeps the index and every type. For the other formats, the types are kept in a small file next to them. `.html`
is read as text. An index that only numbers the rows is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl.handlers._content import free_name, text_of_key
from trackdsl.handlers._dataset import SHOWN, DatasetProfile, by, frame_profile, summary_of_table
from trackdsl.handlers._handler import MAX_CELLS, NEEDS_OWN_FILE, Handler, Scalar
from trackdsl.handlers._pandas_digest import digest_frame
from trackdsl.handlers._pandas_text import SEPARATORS, read_text, says_more, write_text
from trackdsl.handlers._parquet import holds, read_parquet, write_parquet
from trackdsl.handlers._pickled import Pickled
from trackdsl.handlers._table_sample import digest_of_array, digest_of_frame, digest_of_index, digest_of_series

#: How many columns are checked for having the same type.
_MAX_ALIKE = 256


class _Frame(Handler):
    suffix = ".parquet"
    suffixes = (".csv", ".tsv", ".txt", ".json", ".html")

    def accepts(self, value: Any) -> bool:
        """Whether Parquet gives back an equal frame."""
        return holds(value)

    def content(self, value: Any) -> Any:
        """The rows as dicts by column names, with the index unless it only numbers the rows."""
        if value.size > MAX_CELLS:
            return NEEDS_OWN_FILE
        names, columns = _named_columns(value)
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def summary(self, value: Any) -> Scalar:
        import pandas as pd

        # Each part of a frame would get a deep copy of its `attrs`.
        plain = pd.DataFrame(value, copy=False) if value.attrs else value
        dtypes = plain.dtypes.to_numpy()[:_MAX_ALIKE].tolist()
        columns = [(value.columns[index], _short_name(dtype)) for index, dtype in enumerate(dtypes[:SHOWN])]
        return summary_of_table(
            type(value).__name__, by(*value.shape), columns, value.shape[1], lambda: digest_of_frame(plain, dtypes)
        )

    def write(self, value: Any, path: Path) -> None:
        if path.suffix in SEPARATORS or path.suffix == ".json":
            write_text(value, path)
        elif path.suffix == ".html":
            value.to_html(path, index=says_more(value.index), encoding="utf-8")
        else:
            write_parquet(value, path)

    def read(self, path: Path) -> Any:
        if path.suffix in SEPARATORS or path.suffix == ".json":
            return read_text(path)
        return path.read_text(encoding="utf-8") if path.suffix == ".html" else read_parquet(path)

    def dataset(self, value: Any) -> DatasetProfile | None:
        return frame_profile(*digest_frame(value))


class _Column(_Frame):
    """The base class for one column, or a few: they are written as a frame."""

    def frame_of(self, value: Any) -> Any:
        """The value as a frame that shares its memory."""
        raise NotImplementedError

    def value_of(self, frame: Any) -> Any:
        """The value from which `frame_of` made a frame."""
        raise NotImplementedError

    def accepts(self, value: Any) -> bool:
        return super().accepts(self.frame_of(value))

    def summary(self, value: Any) -> Scalar:
        names = list(value.names) if hasattr(value, "names") else [value.name]
        dtype = _short_name(value.dtype) if len(names) == 1 else ""
        columns = [("" if name is None else name, dtype) for name in names[:SHOWN]]
        return summary_of_table(
            type(value).__name__, str(len(value)), columns, len(names), lambda: self.short_digest(value)
        )

    def short_digest(self, value: Any) -> str:
        """The digest of a sample of the value."""
        raise NotImplementedError

    def write(self, value: Any, path: Path) -> None:
        super().write(self.frame_of(value), path)

    def read(self, path: Path) -> Any:
        content = super().read(path)
        return content if isinstance(content, str) else self.value_of(content)

    def dataset(self, value: Any) -> DatasetProfile | None:
        return frame_profile(*digest_frame(self.frame_of(value), type(self).__name__))


class _Series(_Column):
    def short_digest(self, value: Any) -> str:
        return digest_of_series(value)

    def content(self, value: Any) -> Any:
        """The values as a dict by label; as a list if the labels only number the rows."""
        if len(value) > MAX_CELLS:
            return NEEDS_OWN_FILE
        if not says_more(value.index):
            return _values(value)
        if value.index.is_unique:
            return dict(zip(value.index.tolist(), _values(value), strict=True))
        return super().content(self.frame_of(value))

    def frame_of(self, value: Any) -> Any:
        return value.to_frame(_UNNAMED if value.name is None else value.name)

    def value_of(self, frame: Any) -> Any:
        column = frame.iloc[:, -1]
        return column.rename(None) if column.name == _UNNAMED else column


class _Index(_Column):
    def short_digest(self, value: Any) -> str:
        return digest_of_index(value)

    def content(self, value: Any) -> Any:
        return _values(value) if len(value) <= MAX_CELLS else NEEDS_OWN_FILE

    def frame_of(self, value: Any) -> Any:
        names = [f"{_UNNAMED}{position}" if name is None else name for position, name in enumerate(value.names)]
        # Only an index can have a frequency.
        regular = getattr(value, "freq", None) is not None and str(value.dtype).startswith(("datetime", "timedelta"))
        frame = value.to_frame(index=regular, name=names if len(names) > 1 else names[0])
        return frame.rename_axis(index=None) if regular else frame

    def value_of(self, frame: Any) -> Any:
        import pandas as pd

        names = [None if str(name).startswith(_UNNAMED) else name for name in frame.columns]
        if len(names) > 1:
            return pd.MultiIndex.from_frame(frame, names=names)
        regular = getattr(frame.index, "freq", None) is not None
        return (frame.index if regular else pd.Index(frame.iloc[:, 0])).rename(names[0])


class _Extension(Pickled):
    """The arrays of extension types: categories, nullable numbers, Arrow text."""

    def content(self, value: Any) -> Any:
        return _values(value) if len(value) <= MAX_CELLS else NEEDS_OWN_FILE

    def summary(self, value: Any) -> Scalar:
        columns = [("", _short_name(value.dtype))]
        return summary_of_table(type(value).__name__, str(len(value)), columns, 1, lambda: digest_of_array(value))


_UNNAMED = "__unnamed__"


def _named_columns(frame: Any) -> tuple[list[str], list[list[Any]]]:
    """The unique names of the columns and their values; the index comes first unless it only numbers the rows."""
    labels: list[Any] = []
    columns: list[list[Any]] = []
    if says_more(frame.index):
        several = frame.index.nlevels > 1
        for position, name in enumerate(frame.index.names):
            labels.append((f"level_{position}" if several else "index") if name is None else name)
            columns.append(_values(frame.index.get_level_values(position)))
    for position, label in enumerate(frame.columns):
        labels.append(label)
        columns.append(_values(frame.iloc[:, position]))
    names: dict[str, None] = {}
    for label in labels:
        name = ".".join(map(str, label)) if isinstance(label, tuple) else text_of_key(label)
        names[free_name(name, names)] = None
    return list(names), columns


def _values(column: Any) -> list[Any]:
    """The values of a column. Missing values are None, except NaN among numbers."""
    if getattr(column, "nlevels", 1) > 1:
        return list(zip(*map(_values, map(column.get_level_values, range(column.nlevels))), strict=True))
    values: list[Any] = column.tolist()
    if str(column.dtype).startswith(("float", "int", "uint", "bool")):
        return values
    return [
        None if is_missing is True else value for value, is_missing in zip(values, column.isna().tolist(), strict=True)
    ]


def _short_name(dtype: Any) -> str:
    # The text of a categorical type contains its categories, so it may be long and slow to create.
    return "category" if type(dtype).__name__ == "CategoricalDtype" else str(dtype)


frame = _Frame()
series = _Series()
index = _Index()
extension = _Extension()
