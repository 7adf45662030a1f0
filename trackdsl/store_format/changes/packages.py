"""The packages that are installed for a program."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

#: `name-version.dist-info`, and the older `name-version-py3.11.egg-info`.
_FOLDER = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(?:-.*)?\.(?:dist|egg)-info")
_MOST = 5000


def installed(folders: Sequence[str]) -> dict[str, str]:
    """The versions of the installed packages, by name, from the names of folders: this takes a millisecond.

    Args:
        folders: where the program looks for modules (`sys.path`); the first that has a package counts.
    """
    found: dict[str, str] = {}
    for folder in folders:
        try:
            names = os.listdir(folder)
        except (OSError, ValueError):
            continue
        for match in filter(None, map(_FOLDER.fullmatch, names)):
            name = re.sub(r"[-_.]+", "-", match["name"]).lower()
            if name not in found and len(found) < _MOST:
                found[name] = match["version"]
    return dict(sorted(found.items()))
