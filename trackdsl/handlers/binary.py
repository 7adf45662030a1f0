"""Bytes → the file they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl.handlers._registry import Handler, Scalar


class _Binary(Handler):
    suffix = ".bin"

    def summary(self, value: Any) -> Scalar:
        return f"{type(value).__name__} of {len(value)}"

    def write(self, value: Any, path: Path) -> None:
        path.write_bytes(value)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()


handler = _Binary()
