"""Write examples of a model's input and output to files without code, and read them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trackdsl._core.redaction import mask_text
from trackdsl.handlers._examples import array_of, is_array, is_sparse

#: What Arrow and JSON make lists of.
_NO_LISTS = frozenset([tuple, set, frozenset])


def write(value: Any, folder: Path, stem: str) -> dict[str, str]:
    """Write an example.

    Args:
        value: the result of `rows_of`, a dict of arrays, or a value that JSON can hold.
        folder: the folder of the model.
        stem: the name of the file without its suffix.

    Returns:
        the description from which `read` finds it.

    Raises:
        Exception: it can only be pickled.
    """
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    if pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series)):
        return _write_frame(value, folder / f"{stem}.arrow")
    if is_sparse(value):
        import scipy.sparse

        scipy.sparse.save_npz(folder / f"{stem}.npz", value)
        return {"kind": "sparse", "file": f"{stem}.npz"}
    if numpy is not None and isinstance(value, numpy.ndarray) and value.dtype.kind != "O":
        texts = [mask_text(str(text)) for text in value.flat] if value.dtype.kind == "U" else []
        masked = numpy.array(texts).reshape(value.shape) if texts != value.ravel().tolist() and texts else value
        numpy.save(folder / f"{stem}.npy", masked, allow_pickle=False)
        return {"kind": "array", "file": f"{stem}.npy"}
    if numpy is not None and isinstance(value, dict) and all(is_array(part) for part in value.values()) and value:
        arrays = {str(name): array_of(part) for name, part in value.items()}
        numpy.savez(folder / f"{stem}.npz", allow_pickle=False, **arrays)
        return {"kind": "arrays", "file": f"{stem}.npz"}
    kind = "objects" if hasattr(value, "tolist") else "json"
    tree = value.tolist() if kind == "objects" else value
    (folder / f"{stem}.json").write_text(json.dumps(plain(tree)), encoding="utf-8")
    return {"kind": kind, "file": f"{stem}.json"}


def read(spec: Mapping[str, str], folder: Path) -> Any:
    """Read an example that `write` has written. No code in it is executed.

    Args:
        spec: the result of `write`.
        folder: the folder of the model.

    Raises:
        ValueError: the description names a file outside of the folder.
    """
    name = spec["file"]
    if os.path.basename(name) != name or name in ("", ".", ".."):
        raise ValueError(f"an example names a file outside of its model: {name!r}")
    path = folder / name
    kind = spec["kind"]
    if kind in ("frame", "series"):
        import pyarrow as pa

        with pa.OSFile(str(path)) as file:
            frame = pa.ipc.open_file(file).read_all().to_pandas()
        if spec.get("names"):
            frame.columns = _names(json.loads(spec["names"]))
        return frame if kind == "frame" else frame.iloc[:, 0].rename(spec.get("name"))
    if kind == "sparse":
        import scipy.sparse

        return scipy.sparse.load_npz(path)
    if kind == "json":
        return json.loads(path.read_text(encoding="utf-8"))
    import numpy as np

    if kind == "objects":
        return np.array(json.loads(path.read_text(encoding="utf-8")), dtype=object)
    loaded = np.load(path, allow_pickle=False)
    return dict(loaded) if kind == "arrays" else loaded


def _write_frame(value: Any, path: Path) -> dict[str, str]:
    import pyarrow as pa

    spec = {"kind": "frame", "file": path.name}
    frame = value
    if value.ndim == 1:
        frame = value.to_frame("answer")
        spec["kind"] = "series"
        if isinstance(value.name, str):
            spec["name"] = value.name
    if not frame.columns.is_unique:
        raise ValueError("two columns have the same name")
    if not all(isinstance(name, str) for name in frame.columns):
        # In Arrow, names are always texts.
        spec["names"] = json.dumps([_plain_name(name) for name in frame.columns])
        frame = frame.set_axis([str(position) for position in range(frame.shape[1])], axis=1)
    for name in frame.columns:
        kinds = {type(cell) for cell in frame[name]} if frame[name].dtype == object else set()
        if refused := kinds & _NO_LISTS:
            raise TypeError(f"column {name!r} holds {refused.pop().__name__}s, which MLflow reads back as lists")
    texts = {
        name: frame[name].map(lambda cell: mask_text(cell) if isinstance(cell, str) else cell)
        for name in frame.columns
        if frame[name].dtype == object or str(frame[name].dtype).startswith(("str", "string"))
    }
    frame = frame.assign(**texts)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return spec


def _plain_name(name: Any) -> Any:
    """The name of a column in a form that JSON can hold.

    Raises:
        TypeError: JSON cannot hold it.
    """
    if isinstance(name, tuple):
        return [_plain_name(part) for part in name]
    name = name.item() if hasattr(name, "item") else name
    if type(name) not in (str, int):
        raise TypeError(f"a column has a name of type {type(name).__name__}")
    return name


def _names(names: list[Any]) -> Any:
    import pandas as pd

    if any(isinstance(name, list) for name in names):
        return pd.MultiIndex.from_tuples([tuple(name) for name in names])
    return pd.Index(names)


def plain(value: Any) -> Any:
    """A tree of values in a form that JSON can hold, with secrets masked.

    Raises:
        TypeError: a value in it is not plain.
    """
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, str):
        return mask_text(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise TypeError(f"{type(value).__name__} cannot be stored as an example")
