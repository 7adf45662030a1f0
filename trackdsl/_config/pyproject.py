"""The table `[tool.trackdsl]` of the nearest `pyproject.toml`, in the working directory or above it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trackdsl.errors import SettingsError

_getcwd = os.getcwd  # A test of the program may replace `os.getcwd`, and should see its own calls only.


@dataclass(frozen=True)
class ProjectTable:
    """The settings of a project.

    Attributes:
        path: the path of the file; empty if there is none.
        values: the settings by name, with `_` for the `-` that is common in TOML.
    """

    path: str
    values: dict[str, Any]


_NONE = ProjectTable("", {})
#: Called with a setting's name, its value and where it was set; raises if the setting does not exist.
Check = Callable[[str, Any, str], None]


def project_table(check: Check) -> ProjectTable:
    """The table for the working directory. A program reads each folder once.

    Raises:
        SettingsError: the file is not valid TOML, or has a setting that does not exist.
    """
    try:
        return _table_above(_getcwd(), check)
    except OSError:  # The working directory has been deleted.
        return _NONE


def forget() -> None:
    """Read the files again when they are next needed."""
    _table_above.cache_clear()


@functools.lru_cache(maxsize=64)
def _table_above(folder: str, check: Check) -> ProjectTable:
    while True:
        path = os.path.join(folder, "pyproject.toml")
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            above = os.path.dirname(folder)
            if above == folder:
                return _NONE
            folder = above
            continue
        # A file that does not contain the name is not parsed, so the parser is not imported.
        return _parsed(path, content, check) if b"trackdsl" in content else _NONE


def _parsed(path: str, content: bytes, check: Check) -> ProjectTable:
    import tomllib  # It is slow to import, and most projects have no table of trackdsl.

    try:
        table = tomllib.loads(content.decode("utf-8")).get("tool", {}).get("trackdsl", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}", setting=path, value=None) from None
    if not isinstance(table, dict):
        raise SettingsError(f"[tool.trackdsl] in {path} must be a table, not {table!r}.", setting=path, value=table)
    values = {name.replace("-", "_"): value for name, value in table.items()}
    for name, value in values.items():
        check(name, value, f"[tool.trackdsl] in {path}")
    return ProjectTable(path, values)
