"""The types of the values in a text file, in a small JSON file next to it: `train.csv.dtypes.json`.

The file is written only if reading the text file without it would return another value. If the value differs even with
the types, the file says how, and trackdsl reports it when the file is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trackdsl.errors import format_error, reraise_from_signal

SUFFIX = ".dtypes.json"
#: The key for how the value that is read differs from the one that was written.
DIFFERS = "differs"
#: A larger file always gets a file of types: checking whether it needs one would take too long.
_MAX_CHECKED = 64 << 20


def path_of_types(path: str) -> str:
    """The artifact path of the types of an artifact."""
    return f"{path}{SUFFIX}"


def sidecar_path(path: Path) -> Path:
    """The path of the types of a file."""
    return path.with_name(f"{path.name}{SUFFIX}")


def move(path: Path, to: Path) -> None:
    """Rename the types of a file, after the file itself was renamed."""
    if sidecar_path(path).exists():
        sidecar_path(path).rename(sidecar_path(to))


def types_of(path: Path) -> dict[str, Any]:
    """The types of a file; empty if there are none next to it."""
    file = sidecar_path(path)
    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return content if isinstance(content, dict) else {}


def write_types(path: Path, differs: Callable[[], str], describe: Callable[[], dict[str, Any]]) -> None:
    """Write the types of the value in a file, if reading the file without them returns another value.

    Args:
        path: the file, which has been written.
        differs: reads the file and returns how the value differs from the one that was written, or an empty text.
        describe: returns the types.
    """
    large = path.stat().st_size > _MAX_CHECKED
    try:
        if not large and not differs():
            return
    except Exception as error:  # The file cannot be read without the types.
        reraise_from_signal(error)
    try:
        types = describe()
        _write(path, types)
        why = "" if large else differs()
        if why:
            _write(path, {**types, DIFFERS: why})
    except Exception as error:  # Even with these types the file cannot be read.
        reraise_from_signal(error)
        _write(path, {DIFFERS: format_error(error)[:500]})


def _write(path: Path, types: dict[str, Any]) -> None:
    sidecar_path(path).write_text(json.dumps(types, ensure_ascii=False), encoding="utf-8")
