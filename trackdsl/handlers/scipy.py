"""SciPy's sparse matrices and arrays → `.npz` files, which contain no pickle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from trackdsl.handlers._array_digest import feed_array, mlflow_dtype, short_digest
from trackdsl.handlers._dataset import DatasetProfile, one_line, tensor_profile, with_digest
from trackdsl.handlers._digest import Digest
from trackdsl.handlers._handler import MAX_CELLS, NEEDS_OWN_FILE, Handler, Scalar
from trackdsl.handlers._value_digest import digest_of

#: The formats that `scipy.sparse.save_npz` can write.
_FORMATS = frozenset(["csc", "csr", "bsr", "dia", "coo"])


class _Sparse(Handler):
    suffix = ".npz"

    def accepts(self, value: Any) -> bool:
        """Whether SciPy can write the format. SciPy 1.15 cannot read arrays that do not have two dimensions."""
        return len(value.shape) == 2 and value.format in _FORMATS and value.dtype.kind in "biufc"

    def content(self, value: Any) -> Any:
        """Lists of all values, zeros included, unless they would be very long."""
        return value.toarray() if math.prod(value.shape) <= MAX_CELLS else NEEDS_OWN_FILE

    def summary(self, value: Any) -> Scalar:
        # In some formats, `nnz` counts the values one by one.
        text = one_line(f"{type(value).__name__} {value.dtype} {tuple(value.shape)}, {value.nnz} stored")
        return with_digest(text, lambda: _short_digest(value))

    def write(self, value: Any, path: Path) -> None:
        from scipy import sparse

        with open(path, "xb") as file:
            sparse.save_npz(file, value, compressed=False)

    def read(self, path: Path) -> Any:
        from scipy import sparse

        return sparse.load_npz(path)

    def dataset(self, value: Any) -> DatasetProfile | None:
        digest = Digest("sparse")
        digest.add_facts(list(value.shape), str(value.dtype))
        for name, part in _parts(value).items():
            feed_array(digest, name, part)
        size = int(value.nnz) * value.dtype.itemsize
        return tensor_profile(digest, {None: (mlflow_dtype(value.dtype), tuple(value.shape), size)})


def _short_digest(value: Any) -> str:
    """The digest of the arrays in which the values are stored; an error for a format without such arrays."""
    parts = [getattr(value, name, None) for name in ("data", "indices", "indptr", "offsets")]
    if value.format == "coo":
        parts.extend(value.coords)
    return digest_of([short_digest(part) for part in parts if part is not None])


def _parts(value: Any) -> dict[str, Any]:
    """The positions and values in the order of the positions, with duplicates summed. The format does not matter."""
    import numpy as np
    from scipy import sparse

    if len(value.shape) != 2:
        points = value.tocoo(copy=True)
        points.sum_duplicates()
        return {**{f"axis{axis}": np.asarray(c, np.int64) for axis, c in enumerate(points.coords)}, "data": points.data}
    rows = value if value.format == "csr" else value.tocsr()
    # A new matrix around the same data, because `has_canonical_format` stores its answer on the matrix.
    matrix = sparse.csr_matrix((rows.data, rows.indices, rows.indptr), shape=rows.shape, copy=False)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    indices, starts = matrix.indices.astype(np.int64, copy=False), matrix.indptr.astype(np.int64, copy=False)
    return {"indices": indices, "starts": starts, "data": matrix.data[: matrix.indptr[-1]]}


handler = _Sparse()
