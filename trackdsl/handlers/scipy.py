"""SciPy's sparse matrices and arrays → `.npz`, without a pickle inside."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from trackdsl.handlers._array_digest import feed_array, mlflow_dtype, short_digest
from trackdsl.handlers._dataset import DatasetProfile, one_line, tensor_profile, with_digest
from trackdsl.handlers._digest import Digest
from trackdsl.handlers._handler import MAX_CELLS, NEEDS_OWN_FILE, Handler, Scalar
from trackdsl.handlers._value_digest import digest_of

#: See `scipy.sparse.save_npz`, which has no other.
_FORMATS = frozenset(["csc", "csr", "bsr", "dia", "coo"])


class _Sparse(Handler):
    suffix = ".npz"

    def accepts(self, value: Any) -> bool:
        """The formats that SciPy can write, of numbers; SciPy 1.15 cannot read what has not two dimensions."""
        return len(value.shape) == 2 and value.format in _FORMATS and value.dtype.kind in "biufc"

    def content(self, value: Any) -> Any:
        """Lists of all the values, unless they would be very long."""
        return value.toarray() if math.prod(value.shape) <= MAX_CELLS else NEEDS_OWN_FILE

    def summary(self, value: Any) -> Scalar:
        # Of some formats `nnz` counts, so that it takes as long as there are values.
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
        digest.note(list(value.shape), str(value.dtype))
        for name, part in _parts(value).items():
            feed_array(digest, name, part)
        size = int(value.nnz) * value.dtype.itemsize
        return tensor_profile(digest, {None: (mlflow_dtype(value.dtype), tuple(value.shape), size)})


def _short_digest(value: Any) -> str:
    """Of what is stored, as it is stored; an error for a format that keeps it in no arrays."""
    parts = [getattr(value, name, None) for name in ("data", "indices", "indptr", "offsets")]
    if value.format == "coo":
        parts.extend(value.coords)
    return digest_of([short_digest(part) for part in parts if part is not None])


def _parts(value: Any) -> dict[str, Any]:
    """Where values are and which, in the order of their places, each place once; the format is no content."""
    import numpy as np
    from scipy import sparse

    if len(value.shape) != 2:
        places = value.tocoo(copy=True)
        places.sum_duplicates()
        return {**{f"axis{axis}": np.asarray(c, np.int64) for axis, c in enumerate(places.coords)}, "data": places.data}
    rows = value if value.format == "csr" else value.tocsr()
    # A shell of our own: asking for the form would leave marks on the value.
    shell = sparse.csr_matrix((rows.data, rows.indices, rows.indptr), shape=rows.shape, copy=False)
    if not shell.has_canonical_format:
        shell = shell.copy()
        shell.sum_duplicates()
    indices, starts = shell.indices.astype(np.int64, copy=False), shell.indptr.astype(np.int64, copy=False)
    return {"indices": indices, "starts": starts, "data": shell.data[: shell.indptr[-1]]}


handler = _Sparse()
