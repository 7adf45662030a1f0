"""Bytes → the file they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class _Binary:
    suffix = ".bin"

    def write(self, value: Any, path: Path) -> None:
        path.write_bytes(value)


handler = _Binary()
