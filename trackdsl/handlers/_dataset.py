"""Descriptions of data: digest, schema and size for MLflow dataset inputs, and summaries for parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trackdsl._core.redaction import mask_text
from trackdsl.handlers._digest import Digest, feed_objects

#: MLflow's limit for a schema, see mlflow/store/tracking/dbmodels/models.py. A longer schema is left out.
_MAX_SCHEMA = 1_048_575
_MAX_SUMMARY = 400
_MAX_NAME = 40
#: How many columns a summary shows.
SHOWN = 8
_DATA = frozenset([bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None)])
_COLUMN_TYPES = {bool: "boolean", int: "long", float: "double", str: "string", bytes: "binary"}


@dataclass(frozen=True)
class DatasetProfile:
    """The description of a dataset that MLflow stores.

    Attributes:
        digest: hash of the content, 32 hexadecimal digits. It changes if any value, name, type or shape changes.
        schema: JSON, in the form of MLflow's data package (`mlflow_colspec` or `mlflow_tensorspec`).
        profile: JSON of sizes, such as `num_rows`.
    """

    digest: str
    schema: str
    profile: str


def frame_profile(digest: Digest, rows: int, columns: Sequence[tuple[Any, str, bool]]) -> DatasetProfile:
    """The profile of a frame.

    Args:
        digest: the digest of all its content.
        rows: the number of rows.
        columns: name, MLflow's type, and whether no value is missing, for each column.
    """
    specs = [
        {"type": kind, "name": name if isinstance(name, str) else str(name), "required": required}
        for name, kind, required in columns
    ]
    sizes = {"num_rows": rows, "num_elements": rows * len(columns)}
    return DatasetProfile(digest.hexdigest(), _bounded({"mlflow_colspec": specs}), json.dumps(sizes))


def tensor_profile(digest: Digest, tensors: Mapping[str | None, tuple[str, Sequence[int], int]]) -> DatasetProfile:
    """The profile of arrays, in the form of `mlflow.data.numpy_dataset`.

    Args:
        digest: the digest of all their content.
        tensors: dtype, shape and number of bytes for each name; the name is None for a single array.
    """
    features = []
    for name, (dtype, shape, _) in tensors.items():
        spec = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *shape[1:]] if shape else []}}
        features.append(spec if name is None else {"name": name, **spec})
    schema = {"mlflow_tensorspec": {"features": json.dumps(features), "targets": None}}
    shapes = {name: tuple(shape) for name, (_, shape, _) in tensors.items()}
    counts = {name: _product(shape) for name, shape in shapes.items()}
    bytes_of = {name: size for name, (_, _, size) in tensors.items()}
    single = None in tensors
    first = next(iter(shapes.values()), ())
    sizes = {
        "num_rows": first[0] if first else 1,
        "num_elements": sum(counts.values()),
        "features_shape": shapes[None] if single else shapes,
        "features_size": counts[None] if single else counts,
        "features_nbytes": bytes_of[None] if single else bytes_of,
    }
    return DatasetProfile(digest.hexdigest(), _bounded(schema), json.dumps(sizes))


def plain_profile(value: Any) -> DatasetProfile | None:
    """The profile of data in lists: columns by name, records, or one column; None if the value is not data.

    Example:
        >>> plain_profile({"a": [1, 2], "b": ["x", None]}).profile
        '{"num_rows": 2, "num_elements": 4}'
        >>> plain_profile({"lr": 0.1}) is None
        True
    """
    if isinstance(value, Mapping):
        columns = dict(value)
        lengths = {len(column) if isinstance(column, (list, tuple)) else -1 for column in columns.values()}
        if not columns or len(lengths) != 1 or -1 in lengths:
            return None
    elif value and all(isinstance(record, dict) for record in value):
        names = dict.fromkeys(name for record in value for name in record)
        columns = {name: [record.get(name) for record in value] for name in names}
    else:
        columns = {None: value}
    if not all(_is_data(kind) for column in columns.values() for kind in set(map(type, column))):
        return None
    digest = Digest("plain")
    if isinstance(value, Mapping):
        digest.add_facts(list(columns))
        for index, column in enumerate(columns.values()):
            digest.add_facts(type(column).__name__, len(column))
            feed_objects(digest, str(index), column)
    else:  # Whole records: a missing name must differ from a value of None.
        digest.add_facts(type(value).__name__, len(value))
        feed_objects(digest, "", value)
    rows = max((len(column) for column in columns.values()), default=0)
    return frame_profile(digest, rows, [(name, *_column_type(column)) for name, column in columns.items()])


def column_type(kinds: Iterable[type]) -> str:
    """MLflow's type for a column of Python objects. `NoneType` does not count."""
    present = {kind for kind in kinds if kind is not type(None)}
    if len(present) != 1:
        return "double" if present == {int, float} else "any"
    (kind,) = present
    # In `DataType` of mlflow/types/schema.py, `datetime` includes dates.
    return "datetime" if kind.__module__ == "datetime" and hasattr(kind, "year") else _COLUMN_TYPES.get(kind, "any")


def summary_of_table(
    kind: str, shape: str, columns: Iterable[tuple[Any, Any]], count: int, digest: Callable[[], str] | None = None
) -> str:
    """The summary of a table in one line.

    Args:
        kind: the name of its type.
        shape: its size.
        columns: names and types of the first columns, at most `SHOWN`.
        count: the number of all columns.
        digest: returns the digest of a sample of the values. If it raises an error, the digest is left out.

    Example:
        >>> summary_of_table("Series", "1000", [("age", "int64")], 1)
        'Series 1000 [age int64]'
    """
    shown = [" ".join(filter(None, (_short(name), _short(dtype)))) for name, dtype in columns]
    if count > len(shown):
        shown.append(f"… {count - len(shown)} more")
    return with_digest(one_line(f"{kind} {shape} [{', '.join(shown)}]"), digest)


def with_digest(text: str, digest: Callable[[], str] | None) -> str:
    """A summary with a digest at its end; without the digest if computing it raises an error."""
    try:
        return f"{text}, digest {digest()}" if digest else text
    except Exception:  # For example, an extension type lacks a method.
        return text


def by(rows: Any, count: int) -> str:
    """The size of a table."""
    return f"{rows}\N{MULTIPLICATION SIGN}{count}"


def one_line(text: str) -> str:
    """A text as one short line, with secrets masked."""
    text = text[:_MAX_SUMMARY]
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    return mask_text(text)


def _short(name: Any) -> str:
    text = name if isinstance(name, str) else str(name)
    return text if len(text) <= _MAX_NAME else f"{text[: _MAX_NAME - 1]}…"


def _column_type(column: Sequence[Any]) -> tuple[str, bool]:
    kinds = set(map(type, column))
    return column_type(kinds), type(None) not in kinds


def _is_data(kind: type) -> bool:
    return kind in _DATA or kind.__module__ in ("numpy", "datetime", "decimal", "uuid")


def _bounded(schema: dict[str, Any]) -> str:
    text = json.dumps(schema)
    return text if len(text) <= _MAX_SCHEMA else ""


def _product(shape: Iterable[int]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product
