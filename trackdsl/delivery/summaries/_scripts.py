"""Which script a root run is of, where the name of its function does not say it.

A script in a git working tree is its path in there, so it is the same one in every checkout, on every machine. Any
other script is its absolute path: two folders may each have a `train.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from trackdsl._core.redaction import mask_name
from trackdsl.journal._origin import Origin, is_front_end
from trackdsl.store_format.call_tag import call_of
from trackdsl.store_format.changes.stored import SCRIPT_TAG
from trackdsl.store_format.tags import REPOSITORY_TAG, SOURCE_NAME_TAG

#: A package that is installed is the same one in every environment.
_INSTALLED = re.compile(r".*[/\\](?:site|dist)-packages[/\\]")
_MAIN = ("__main__.", "?.")


def script_of(origin: Origin) -> str:
    """The script of a program, as text for a tag; empty if it has none, or the file is not there any more."""
    path = os.path.join(origin.cwd, origin.source).rstrip(os.sep)
    try:
        if is_front_end(origin.source) or not os.path.exists(path):
            return ""
        folder = Path(os.path.realpath(os.path.dirname(path)))
        file = folder / os.path.basename(path)
        if installed := _INSTALLED.match(str(file)):
            return mask_name(str(file)[installed.end() :])
        top = next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)
        return mask_name(str(file if top is None else file.relative_to(top)))
    except (OSError, ValueError):
        return ""


def by_script(tags: Mapping[str, str]) -> bool:
    """Whether runs with these tags are alike if their script is the same one: their function does not say it."""
    call = call_of(tags)
    function = str(call.get("function") or "")
    # `trackdsl run` records the name of a script as a function.
    return function.startswith(_MAIN) or function in ("", os.path.basename(str(call.get("file") or "")))


def same_script(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether runs with these tags are of one script.

    A run whose script is not known, as in a notebook, or of an earlier version, has the program's name only.
    """
    scripts = one.get(SCRIPT_TAG), other.get(SCRIPT_TAG)
    if scripts[0] and scripts[1]:
        repositories = _repository(one), _repository(other)
        return scripts[0] == scripts[1] and (repositories[0] == repositories[1] or not all(repositories))
    return one.get(SOURCE_NAME_TAG) == other.get(SOURCE_NAME_TAG)


def _repository(tags: Mapping[str, str]) -> str:
    """The name of a repository: a checkout may have its URL in other forms, or be of a fork."""
    return re.split(r"[/:\\]", tags.get(REPOSITORY_TAG, "").rstrip("/").removesuffix(".git"))[-1].lower()
