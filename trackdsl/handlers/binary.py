"""Bytes → the file they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl._secrets import mask_text
from trackdsl.handlers._registry import Handler, Scalar

#: More bytes than this are data, and are written as they are.
_MAX_TEXT = 16 << 20


class _Binary(Handler):
    suffix = ".bin"

    def summary(self, value: Any) -> Scalar:
        return f"{type(value).__name__} of {len(value)}"

    def write(self, value: Any, path: Path) -> None:
        path.write_bytes(masked(value))

    def read(self, path: Path) -> bytes:
        return path.read_bytes()


def masked(value: Any) -> Any:
    """Bytes without the secrets in them, where they are text; the same bytes where there are none."""
    if memoryview(value).nbytes > _MAX_TEXT:
        return value
    try:
        text = bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        return value
    without = mask_text(text)
    return value if without == text else without.encode("utf-8")


handler = _Binary()
