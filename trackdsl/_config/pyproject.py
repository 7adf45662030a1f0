"""The table `[tool.trackdsl]` of the nearest `pyproject.toml`, in the working directory or above it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trackdsl.errors import SettingsError

_getcwd = os.getcwd  # Bound here: a test that fakes it is not to see calls of ours.


@dataclass(frozen=True)
class ProjectTable:
    """What a project says.

    Attributes:
        path: of the file; empty where there is none.
        values: its settings by name, with `_` where TOML likes `-`.
    """

    path: str
    values: dict[str, Any]


_NONE = ProjectTable("", {})
#: Is given a name, its value and where they stand, and refuses what is no setting.
Check = Callable[[str, Any, str], None]


def project_table(check: Check) -> ProjectTable:
    """The table for the working directory. Each folder is looked at once in the life of a program.

    Raises:
        SettingsError: the file cannot be read as TOML, or has a setting that does not exist.
    """
    try:
        return _table_above(_getcwd(), check)
    except OSError:  # The working directory is gone.
        return _NONE


def forget() -> None:
    """Look anew."""
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
        # Where it is not even named nothing has to be imported to read it.
        return _parsed(path, content, check) if b"trackdsl" in content else _NONE


def _parsed(path: str, content: bytes, check: Check) -> ProjectTable:
    import tomllib  # It takes a while, and most projects do not configure trackdsl there.

    try:
        table = tomllib.loads(content.decode("utf-8")).get("tool", {}).get("trackdsl", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise SettingsError(f"{path} is no valid TOML: {error}", setting=path, value=None) from None
    if not isinstance(table, dict):
        raise SettingsError(f"[tool.trackdsl] in {path} must be a table, not {table!r}.", setting=path, value=table)
    values = {name.replace("-", "_"): value for name, value in table.items()}
    for name, value in values.items():
        check(name, value, f"[tool.trackdsl] in {path}")
    return ProjectTable(path, values)
