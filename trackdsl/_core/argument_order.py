"""Accept a value and its name or path in either order, if it is clear which is which."""

from __future__ import annotations

import enum
import os
import re
from pathlib import PurePosixPath
from typing import Any

from trackdsl.errors import OptionError

_LONGEST = 250
_LONGEST_PATH = 1000
#: Suffixes of text files.
_TEXT_FILES = frozenset(
    [".txt", ".md", ".rst", ".log", ".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".csv", ".tsv", ".html", ".xml",
     ".py", ".sh", ".sql", ".tex"]
)  # fmt: skip
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]*$")


def in_order(function: str, value: Any, place: Any, kind: str) -> tuple[Any, str]:
    """Return the value to record and its path. Of two texts, the one that looks more like a path is the path.

    Args:
        function: the function that was called, for messages.
        value: its first argument.
        place: its second argument.
        kind: the name of the first argument, for messages.

    Raises:
        OptionError: neither argument is a path, or the path names no file.

    >>> in_order("log_text", "notes.txt", "two words", "text")
    ('two words', 'notes.txt')
    """
    if _are_swapped(value, place):
        value, place = place, value
    if not is_path(place) or not os.path.basename(place):
        given = f"a {type(place).__name__}" if not is_path(place) else repr(os.fspath(place))
        example = "results/first.json" if function == "log_table" else "results/first"
        raise OptionError(
            f"{function}({kind}, path): the path is text that names a file, such as {function}({kind}, "
            f"{example!r}), and not "
            f"{given}.",
            option="artifact_file",
        )
    return value, os.fspath(place)


def file_in_order(source: Any, place: Any) -> tuple[Any, str | None]:
    """Return an existing file or folder, or a value that becomes a file, and its artifact path.

    Raises:
        OptionError: neither argument is a path.
    """
    several = isinstance(source, (list, tuple)) and bool(source) and all(map(is_path, source))
    if is_path(source) and place is not None and (not is_path(place) or (_is_there(place) and not _is_there(source))):
        source, place = place, source
    elif place is None and not several and not is_path(source) and source is not None:
        raise OptionError(
            f"log_artifact takes the path of a file or folder, and not a {type(source).__name__}. With a path for it, "
            "log_artifact(value, 'results/first.json'), it is written to a file.",
            option="local_path",
        )
    return source, None if place is None else os.fspath(place)


def model_in_order(model: Any, name: Any, options: dict[str, Any]) -> tuple[Any, str]:
    """Return a model, which may be a path, and its name. Before version 3, MLflow called the name `artifact_path`.

    Raises:
        OptionError: neither argument is a name.
    """
    name = options.pop("artifact_path", None) if name is None else name
    if name is not None and not isinstance(name, str):
        model, name = name, model
    if not isinstance(name, str) or not name:
        given = "is missing" if not name else f"is text, and not a {type(model).__name__}"
        message = f"log_model(model, name): the name {given}, as in log_model(model, 'classifier')."
        raise OptionError(message, option="name")
    return model, name


def name_first(name: Any, value: Any) -> tuple[Any, Any]:
    """Return a name and its value. If neither is a text, their order stays.

    >>> name_first(0.1, "lr"), name_first("optimizer", "adam")
    (('lr', 0.1), ('optimizer', 'adam'))
    """
    if isinstance(value, str) and not isinstance(name, (str, bytes, enum.Enum, tuple)):
        return value, name
    return name, value


def has_suffix(place: str) -> bool:
    """Whether a path has the suffix of a format; `roc_0.5` has none."""
    return len(place) <= _LONGEST and _SUFFIX.search(PurePosixPath(place).name) is not None


def is_path(value: Any) -> bool:
    """Whether a value has a type of paths."""
    return isinstance(value, (str, os.PathLike))


def _is_there(path: Any) -> bool:
    return os.path.exists(path)


def _are_swapped(value: Any, place: Any) -> bool:
    if not is_path(place) or isinstance(value, os.PathLike):
        return is_path(value) and not isinstance(place, os.PathLike)
    if not isinstance(value, str) or isinstance(place, os.PathLike):
        return False
    if _is_text(value) or _is_text(place):
        return not _is_text(value)
    return _names_text(value) and _likeness(value) > _likeness(place)


def _is_text(text: str) -> bool:
    """Whether a text cannot be a path, because it has several lines or is long."""
    return len(text) > _LONGEST_PATH or len(text.splitlines()) > 1


def _names_text(text: str) -> bool:
    return PurePosixPath(text).suffix.lower() in _TEXT_FILES


def _likeness(text: str) -> int:
    """How much a text of one line looks like the path of a text file."""
    return (len(text.split()) == 1) + _names_text(text)
