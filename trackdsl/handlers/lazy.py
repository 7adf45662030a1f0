"""Collections whose data lies in files or is not computed yet: names, types and shapes, and nothing is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trackdsl.handlers._dataset import SHOWN, by, one_line, summary_of_table
from trackdsl.handlers._handler import Placeholder, Scalar
from trackdsl.handlers._pickled import NOT_READ, Pickled


class _Lazy(Pickled):
    """What is described in one line."""

    def content(self, value: Any) -> Any:
        return Placeholder(str(self.summary(value)), NOT_READ, missing=False)


class _Archive(_Lazy):
    """What `numpy.load` gives for an `.npz`: each array is read anew whenever it is asked for."""

    def children(self, value: Any) -> Mapping[Any, Any] | None:
        members = frozenset(value.zip.namelist())
        return {name: _header(value.zip, name, members) for name in value.files}

    def content(self, value: Any) -> Any:
        return self.children(value)

    def summary(self, value: Any) -> Scalar:
        return f"{type(value).__name__} of {len(value.files)}"


class _Group(_Lazy):
    """A group of Zarr, which is no mapping since its third version."""

    def children(self, value: Any) -> Mapping[Any, Any] | None:
        return dict(value.members())

    def content(self, value: Any) -> Any:
        return self.children(value)

    def summary(self, value: Any) -> Scalar:
        return f"{type(value).__name__} of {len(value)}"


class _Stored(_Lazy):
    """An array of Zarr, which is a dataclass besides."""

    def summary(self, value: Any) -> Scalar:
        return one_line(f"{type(value).__name__} {value.dtype} {value.shape}")


class _Planned(_Lazy):
    """A frame or a series of Dask, whose number of rows nobody knows."""

    def summary(self, value: Any) -> Scalar:
        if not hasattr(value, "columns"):
            return one_line(f"{type(value).__name__} {value.dtype}, {value.npartitions} partitions")
        columns = list(value.dtypes.items())
        shape = f"{by('?', len(columns))}, {value.npartitions} partitions"
        return summary_of_table(type(value).__name__, shape, columns[:SHOWN], len(columns))


class _Rows(_Lazy):
    """A dataset of Hugging Face: a table of Arrow in a file."""

    def summary(self, value: Any) -> Scalar:
        columns = [(name, getattr(kind, "dtype", "")) for name, kind in list(value.features.items())[:SHOWN]]
        return summary_of_table(type(value).__name__, by(value.num_rows, value.num_columns), columns, value.num_columns)


def _header(folder: Any, name: str, members: frozenset[str]) -> Placeholder:
    """Type and shape of one array in an `.npz`, from the first bytes of it."""
    from numpy.lib import format as npy

    if name in members:  # It is no array, but a file by that name.
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
