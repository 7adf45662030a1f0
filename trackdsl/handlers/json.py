"""Dicts, lists and tuples → JSON, where JSON can hold all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trackdsl._secrets import MASK, is_secret_name, mask_text


class _Json:
    suffix = ".json"

    def accepts(self, value: Any) -> bool:
        """Whether JSON can hold the value; otherwise it is pickled."""
        return is_plain(value)

    def write(self, value: Any, path: Path) -> None:
        with open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(masked(value), file, indent=2, ensure_ascii=False)


def masked(value: Any) -> Any:
    """A structure with its secrets masked, by name and by shape."""
    if isinstance(value, dict):
        return {str(k): MASK if is_secret_name(str(k)) and v is not None else masked(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(item) for item in value]
    return mask_text(value) if isinstance(value, str) else value


def is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value is made of what JSON knows, down to the last leaf."""
    if value is None or isinstance(value, (str, int, float)):
        return True
    if depth > 50:
        return False
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item, depth + 1) for key, item in value.items())
    return isinstance(value, (list, tuple)) and all(is_plain(item, depth + 1) for item in value)


handler = _Json()
