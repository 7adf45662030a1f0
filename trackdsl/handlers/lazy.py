"""Collections whose data is in files or not computed yet: names, types and shapes. The data is never read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trackdsl.handlers._dataset import SHOWN, by, one_line, summary_of_table
from trackdsl.handlers._handler import Placeholder, Scalar
from trackdsl.handlers._pickled import NOT_READ, Pickled


class _Lazy(Pickled):
    """The base class of these collections. Their content is replaced by one line."""

    def content(self, value: Any) -> Any:
        return Placeholder(str(self.summary(value)), NOT_READ, missing=False)


class _Archive(_Lazy):
    """The result of `numpy.load` for an `.npz` file, which reads an array each time that it is accessed."""

    def children(self, value: Any) -> Mapping[Any, Any] | None:
        members = frozenset(value.zip.namelist())
        return {name: _header(value.zip, name, members) for name in value.files}

    def content(self, value: Any) -> Any:
        return self.children(value)

    def summary(self, value: Any) -> Scalar:
        return f"{type(value).__name__} of {len(value.files)}"


class _Group(_Lazy):
    """A Zarr group. Since version 3 of Zarr it is not a mapping."""

    def children(self, value: Any) -> Mapping[Any, Any] | None:
        return dict(value.members())

    def content(self, value: Any) -> Any:
        return self.children(value)

    def summary(self, value: Any) -> Scalar:
        return f"{type(value).__name__} of {len(value)}"


class _Stored(_Lazy):
    """A Zarr array. It is a dataclass too, whose fields must not become parameters."""

    def summary(self, value: Any) -> Scalar:
        return one_line(f"{type(value).__name__} {value.dtype} {value.shape}")


class _Planned(_Lazy):
    """A Dask frame or series. Its number of rows is unknown until it is computed."""

    def summary(self, value: Any) -> Scalar:
        if not hasattr(value, "columns"):
            return one_line(f"{type(value).__name__} {value.dtype}, {value.npartitions} partitions")
        columns = list(value.dtypes.items())
        shape = f"{by('?', len(columns))}, {value.npartitions} partitions"
        return summary_of_table(type(value).__name__, shape, columns[:SHOWN], len(columns))


class _Rows(_Lazy):
    """A Hugging Face dataset, which is an Arrow table in a file."""

    def summary(self, value: Any) -> Scalar:
        columns = [(name, getattr(kind, "dtype", "")) for name, kind in list(value.features.items())[:SHOWN]]
        return summary_of_table(type(value).__name__, by(value.num_rows, value.num_columns), columns, value.num_columns)


def _header(folder: Any, name: str, members: frozenset[str]) -> Placeholder:
    """Type and shape of one array in an `.npz` file, from its header."""
    from numpy.lib import format as npy

    if name in members:  # A file with this name that is not an array.
        return Placeholder(f"bytes of {folder.getinfo(name).file_size}", NOT_READ, missing=False)
    with folder.open(f"{name}.npy") as file:
        version = npy.read_magic(file)
        shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    return Placeholder(one_line(f"ndarray {dtype} {shape}"), NOT_READ, missing=False)


archive = _Archive()
group = _Group()
stored = _Stored()
planned = _Planned()
rows = _Rows()
