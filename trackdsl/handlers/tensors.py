"""PyTorch tensors → `.npy` files. They are read as CPU tensors; device and gradient do not count as content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl.handlers import numpy as arrays
from trackdsl.handlers._array_digest import feed_array, short_digest
from trackdsl.handlers._dataset import DatasetProfile, one_line, tensor_profile, with_digest
from trackdsl.handlers._digest import Digest
from trackdsl.handlers._handler import MAX_CELLS, NEEDS_OWN_FILE, Handler, Scalar
from trackdsl.handlers._plain import is_scalar
from trackdsl.handlers._types import class_name
from trackdsl.handlers._value_digest import digest_of


class _Tensor(Handler):
    suffix = ".npy"
    suffixes = (".npz", ".csv", ".tsv", ".txt", ".json")

    def accepts(self, value: Any) -> bool:
        """Whether it is a dense tensor, no subclass, of a type that NumPy has."""
        import torch

        if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.layout != torch.strided or value.is_meta:
            return False
        return not value.is_quantized and _numpy_name(value.dtype) is not None

    def content(self, value: Any) -> Any:
        """Lists, unless they would be very long."""
        if value.is_meta or value.numel() > MAX_CELLS:
            return NEEDS_OWN_FILE
        plain = value.detach().cpu()
        plain = plain.dequantize() if plain.is_quantized else plain
        return (plain if str(plain.layout) == "torch.strided" else plain.to_dense()).tolist()

    def summary(self, value: Any) -> Scalar:
        if value.ndim == 0 and not value.is_meta:
            item = value.item()
            if is_scalar(item):
                return item  # type: ignore[no-any-return]
        kind = type(value)
        name = kind.__qualname__ if kind.__module__.partition(".")[0] == "torch" else class_name(value)
        parts = [name, _short_name(value.dtype), str(tuple(value.shape))]
        if value.device.type != "cpu":
            parts.append(str(value.device))
        if str(value.layout) != "torch.strided":
            parts.append(_short_name(value.layout))
        text = " ".join(parts)
        if value.device.type != "cpu" or value.is_meta:  # Reading its values would take time.
            return one_line(text)
        if self.accepts(value):
            return arrays.with_content(text, _as_array(value))
        return with_digest(one_line(text), lambda: _short_digest(value))

    def write(self, value: Any, path: Path) -> None:
        arrays.handler.write(_as_array(value), path)

    def read(self, path: Path) -> Any:
        import torch

        array = arrays.handler.read(path)
        return torch.from_numpy(array)

    def dataset(self, value: Any) -> DatasetProfile | None:
        import torch

        if value.is_meta or value.is_quantized:
            return None
        digest = Digest("tensor")
        digest.add_facts(_short_name(value.dtype), list(value.shape))
        if value.layout != torch.strided:
            parts = value.detach().to_sparse_coo().coalesce() if value.layout != torch.sparse_coo else None
            parts = value.detach().coalesce() if parts is None else parts
            digest.add_facts("sparse")
            feed_array(digest, "indices", _as_array(parts.indices()))
            feed_array(digest, "values", _bits(parts.values()))
        else:
            feed_array(digest, "values", _bits(value))
        size = value.element_size() * value.numel()
        return tensor_profile(digest, {None: (_short_name(value.dtype), tuple(value.shape), size)})


def _short_digest(value: Any) -> str:
    """The digest of a tensor that NumPy cannot hold: of its stored arrays if it is sparse, else of its bits."""
    plain = value.detach()
    if plain.is_quantized:
        return digest_of([str(plain.qscheme()), short_digest(plain.int_repr().numpy())])
    if str(plain.layout) == "torch.strided":
        return short_digest(_bits(plain))
    if str(plain.layout) == "torch.sparse_coo":
        parts = [plain._indices(), plain._values()]
    else:
        rows = str(plain.layout) in ("torch.sparse_csr", "torch.sparse_bsr")
        parts = [plain.crow_indices(), plain.col_indices()] if rows else [plain.ccol_indices(), plain.row_indices()]
        parts.append(plain.values())
    return digest_of([short_digest(_bits(part)) for part in parts])


def _as_array(value: Any) -> Any:
    return value.detach().cpu().resolve_conj().resolve_neg().numpy()


def _bits(value: Any) -> Any:
    """The values as an array; of a type that NumPy does not have, such as bfloat16, the bits as integers."""
    import torch

    if _numpy_name(value.dtype) is not None:
        return _as_array(value)
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[value.dtype.itemsize]
    return value.detach().cpu().contiguous().view(integer).numpy()


def _numpy_name(dtype: Any) -> str | None:
    import torch

    try:
        return str(torch.empty(0, dtype=dtype).numpy().dtype)
    except (TypeError, RuntimeError):
        return None


def _short_name(thing: Any) -> str:
    return str(thing).removeprefix("torch.")


handler = _Tensor()
