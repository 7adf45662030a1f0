"""Complete digests of Arrow arrays. Chunks, offsets and the bytes under nulls do not change them."""

from __future__ import annotations

from typing import Any

from trackdsl.handlers._digest import GROUP, Digest, feed_objects


def feed_arrow(digest: Digest, stream: str, column: Any) -> None:
    """Feed an Arrow array or chunked array."""
    for chunk in getattr(column, "chunks", [column]):
        for start in range(0, len(chunk), GROUP):
            _feed(digest, stream, chunk.slice(start, GROUP))


def _feed(digest: Digest, stream: str, array: Any) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, nulls = array.type, None
    if str(kind) in ("string_view", "binary_view"):  # Arrow supports few operations on these types.
        array = array.cast(pa.large_string() if str(kind) == "string_view" else pa.large_binary())
        kind = array.type
    before = digest.passed.get(stream, 0)
    digest.passed[stream] = before + len(array)
    if array.null_count and not pa.types.is_null(kind):
        nulls = np.asarray(pc.is_null(array).to_numpy(zero_copy_only=False), bool)
        digest.feed(f"{stream}.nulls", np.flatnonzero(nulls).astype(np.int64) + before)
    if isinstance(array, pa.ExtensionArray):
        _feed(digest, f"{stream}.storage", array.storage)
    elif pa.types.is_dictionary(kind):
        # Each chunk may have another dictionary.
        values = array.dictionary
        if str(values.type) == "string_view":
            values = values.cast(pa.large_string())
        _feed(digest, f"{stream}.decoded", values.take(array.indices))
    elif pa.types.is_nested(kind):
        _feed_nested(digest, stream, array)
    else:
        _feed_plain(digest, stream, array, nulls)


def _feed_plain(digest: Digest, stream: str, array: Any, nulls: Any) -> None:
    import pyarrow as pa

    kind = array.type
    if pa.types.is_boolean(kind):
        digest.feed(f"{stream}.data", array.fill_null(False).cast(pa.uint8()).to_numpy())
    elif _is_bytes(kind):
        _feed_binary(digest, stream, array)
    elif pa.types.is_fixed_size_binary(kind) or pa.types.is_primitive(kind) or pa.types.is_decimal(kind):
        _feed_fixed(digest, stream, array, nulls)
    elif not pa.types.is_null(kind):
        _feed_one_by_one(digest, stream, array)


def _feed_one_by_one(digest: Digest, stream: str, array: Any) -> None:
    # One by one, so that the groups of objects do not depend on the chunks.
    for item in array.to_pylist():
        feed_objects(digest, stream, [item])


def _feed_nested(digest: Digest, stream: str, array: Any) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(array.type):
        for position, part in enumerate(array.flatten()):
            _feed(digest, f"{stream}.{position}", part)
        return
    if pa.types.is_union(array.type):
        _feed_one_by_one(digest, stream, array)
        return
    if pa.types.is_map(array.type):
        array = array.cast(pa.list_(pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])))
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    digest.feed(f"{stream}.lengths", lengths.to_numpy(zero_copy_only=False).astype(np.int64))
    inner = array.flatten()
    for start in range(0, len(inner), GROUP):
        _feed(digest, f"{stream}.items", inner.slice(start, GROUP))


def _feed_binary(digest: Digest, stream: str, array: Any) -> None:
    import numpy as np
    import pyarrow as pa

    if array.null_count:
        array = array.fill_null("" if "string" in str(array.type) else b"")
    large = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    _, offset_buffer, content = array.buffers()
    if offset_buffer is None or not len(array):
        return
    offsets = np.frombuffer(offset_buffer, np.int64 if large else np.int32)[
        array.offset : array.offset + len(array) + 1
    ]
    digest.feed(f"{stream}.lengths", np.diff(offsets).astype(np.int64, copy=False))
    if content is not None and offsets[-1] > offsets[0]:
        digest.feed(f"{stream}.data", memoryview(content)[int(offsets[0]) : int(offsets[-1])])


def _feed_fixed(digest: Digest, stream: str, array: Any, nulls: Any) -> None:
    import numpy as np

    width = array.type.bit_width // 8
    if not width or not len(array):
        return
    data = memoryview(array.buffers()[1])[array.offset * width : (array.offset + len(array)) * width]
    if nulls is None:
        digest.feed(f"{stream}.data", data)
        return
    copy = np.frombuffer(data, np.uint8).reshape(len(array), width).copy()
    copy[nulls] = 0
    digest.feed(f"{stream}.data", copy)


def _is_bytes(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")


def mlflow_type(kind: Any) -> str:
    """MLflow's type for a column of an Arrow type; `any` if there is none."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        bits = kind.bit_width + pa.types.is_unsigned_integer(kind)
        return "integer" if bits <= 32 else "long" if bits <= 64 else "any"
    if pa.types.is_floating(kind):
        return "double" if kind.bit_width == 64 else "float"
    if pa.types.is_boolean(kind):
        return "boolean"
    if _is_bytes(kind):
        return "string" if "string" in str(kind) else "binary"
    return "datetime" if pa.types.is_timestamp(kind) or pa.types.is_date(kind) else "any"
