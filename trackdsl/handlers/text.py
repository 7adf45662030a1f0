"""Text → a UTF-8 file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl._secrets import mask_text


class _Text:
    suffix = ".txt"

    def write(self, value: Any, path: Path) -> None:
        path.write_text(mask_text(str(value)), encoding="utf-8", errors="backslashreplace")


handler = _Text()
