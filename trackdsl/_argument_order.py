"""A value and its path in a run, given in whichever order: what can only be meant the other way round is taken so."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath
from typing import Any

from trackdsl.errors import OptionError

_LONGEST = 250
#: Of files that hold text.
_TEXT_FILES = frozenset(
    [".txt", ".md", ".rst", ".log", ".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".csv", ".tsv", ".html", ".xml",
     ".py", ".sh", ".sql", ".tex"]
)  # fmt: skip
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]*$")


def in_order(word: str, value: Any, place: Any, kind: str) -> tuple[Any, str]:
    """What is to be recorded, and its path.

    Args:
        word: the function that was called, for messages.
        value: its first argument.
        place: its second.
        kind: what the first is called, for messages.

    Raises:
        OptionError: neither of them is a path.
    """
    if not _is_path(place):
        if not _is_path(value):
            raise OptionError(
                f"{word}({kind}, path): the path is text, such as {word}({kind}, 'results/first'), not a "
                f"{type(place).__name__}.",
                option="artifact_file",
            )
        value, place = place, value
    return value, os.fspath(place)


def text_in_order(text: Any, place: Any) -> tuple[Any, str]:
    """The same for a text, which may look like a path itself: its file is the one that has a suffix of text files.

    >>> text_in_order("notes.txt", "two words")
    ('two words', 'notes.txt')
    """
    if isinstance(text, os.PathLike) or (_names_text(text) and isinstance(place, str) and not has_suffix(place)):
        text, place = place, text
    return in_order("log_text", text, place, "text")


def has_suffix(place: str) -> bool:
    """Whether a path has a suffix that names a format; `roc_0.5` has none."""
    return len(place) <= _LONGEST and _SUFFIX.search(PurePosixPath(place).name) is not None


def _names_text(text: Any) -> bool:
    if not isinstance(text, str) or len(text) > _LONGEST or len(text.split()) != 1:
        return False
    return PurePosixPath(text).suffix.lower() in _TEXT_FILES


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))
