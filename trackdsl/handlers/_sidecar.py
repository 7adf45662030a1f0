"""What a file of text does not say of the types in it, in a small file of JSON beside it: `train.csv.dtypes.json`.

It is written only where reading the file alone would give back another value; and what even it cannot mend is noted
in it, so that it is reported when the file is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trackdsl.errors import format_error, reraise_from_signal

SUFFIX = ".dtypes.json"
#: The key of why the value that is read differs from what was written.
DIFFERS = "differs"
#: Of a larger file the types are noted without a look: reading it would take long.
_MAX_CHECKED = 64 << 20


def place_of(place: str) -> str:
    """The path in a run of the types of an artifact."""
    return f"{place}{SUFFIX}"


def beside(path: Path) -> Path:
    """The place of the types of a file."""
    return path.with_name(f"{path.name}{SUFFIX}")


def move(path: Path, to: Path) -> None:
    """Keep the types of a file beside it under its new name."""
    if beside(path).exists():
        beside(path).rename(beside(to))


def types_of(path: Path) -> dict[str, Any]:
    """The types of a file; nothing where there are none beside it."""
    place = beside(path)
    found = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
    return found if isinstance(found, dict) else {}


def note_types(path: Path, differs: Callable[[], str], describe: Callable[[], dict[str, Any]]) -> None:
    """Note the types of what a file holds, where reading it without them gives something else.

    Args:
        path: the file, which is written already.
        differs: reads it, and says how that differs from what was written, or nothing.
        describe: gives the types.
    """
    large = path.stat().st_size > _MAX_CHECKED
    try:
        if not large and not differs():
            return
    except Exception:  # noqa: S110 - whatever reading without types may raise: they are needed
        pass
    try:
        types = describe()
        _write(path, types)
        why = "" if large else differs()
        if why:
            _write(path, {**types, DIFFERS: why})
    except Exception as error:  # With these types it cannot be read at all.
        reraise_from_signal(error)
        _write(path, {DIFFERS: format_error(error)[:500]})


def _write(path: Path, types: dict[str, Any]) -> None:
    beside(path).write_text(json.dumps(types, ensure_ascii=False), encoding="utf-8")
