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


def in_order(function: str, value: Any, path: Any, kind: str) -> tuple[Any, str]:
    """Return the value to record and its path. If both are strings, the one that looks more like a path is the path.

    Args:
        function: the function that was called, for messages.
        value: its first argument.
        path: its second argument.
        kind: the name of the first argument, for messages.

    Raises:
        OptionError: neither argument is a path, or the path names no file.

    >>> in_order("log_text", "notes.txt", "two words", "text")
    ('two words', 'notes.txt')
    """
    if _are_swapped(value, path):
        value, path = path, value
    if not is_path(path) or not os.path.basename(path):
        given = f"a {type(path).__name__}" if not is_path(path) else repr(os.fspath(path))
        example = "results/first.json" if function == "log_table" else "results/first"
        raise OptionError(
            f"{function}({kind}, path): the path must be a string that names a file, such as {function}({kind}, "
            f"{example!r}), and not "
            f"{given}.",
            option="artifact_file",
        )
    return value, os.fspath(path)


def file_in_order(source: Any, path: Any) -> tuple[Any, str | None]:
    """Return what to record, a file, a folder or another value, and its artifact path.

    Raises:
        OptionError: neither argument is a path.
    """
    several = isinstance(source, (list, tuple)) and bool(source) and all(map(is_path, source))
    if is_path(source) and path is not None and (not is_path(path) or (_exists(path) and not _exists(source))):
        source, path = path, source
    elif path is None and not several and not is_path(source) and source is not None:
        raise OptionError(
            f"log_artifact takes the path of a file or folder, and not a {type(source).__name__}. With a path for it, "
            "log_artifact(value, 'results/first.json'), it is written to a file.",
            option="local_path",
        )
    return source, None if path is None else os.fspath(path)


def model_in_order(model: Any, name: Any, options: dict[str, Any]) -> tuple[Any, str]:
    """Return a model, which may be a path, and its name. Before version 3, MLflow called the name `artifact_path`.

    Raises:
        OptionError: neither argument is a name.
    """
    name = options.pop("artifact_path", None) if name is None else name
    if name is not None and not isinstance(name, str):
        model, name = name, model
    if not isinstance(name, str) or not name:
        given = "is missing" if not name else f"is a string, and not a {type(model).__name__}"
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


def has_suffix(path: str) -> bool:
    """Whether a path has the suffix of a format; `roc_0.5` has none."""
    return len(path) <= _LONGEST and _SUFFIX.search(PurePosixPath(path).name) is not None


def is_path(value: Any) -> bool:
    """Whether a value has the type of a path: text, or `os.PathLike`."""
    return isinstance(value, (str, os.PathLike))


def _exists(path: Any) -> bool:
    return os.path.exists(path)


def _are_swapped(value: Any, path: Any) -> bool:
    """Whether the value was given as the path, and the path as the value."""
    if not is_path(path) or isinstance(value, os.PathLike):
        return is_path(value) and not isinstance(path, os.PathLike)
    if not isinstance(value, str) or isinstance(path, os.PathLike):
        return False
    if _is_text(value) or _is_text(path):
        return not _is_text(value)
    return _names_text(value) and _likeness(value) > _likeness(path)


def _is_text(text: str) -> bool:
    """Whether a text cannot be a path, because it has several lines or is long."""
    return len(text) > _LONGEST_PATH or len(text.splitlines()) > 1


def _names_text(text: str) -> bool:
    """Whether a text has the suffix of a text file."""
    return PurePosixPath(text).suffix.lower() in _TEXT_FILES


def _likeness(text: str) -> int:
    """How much a text of one line looks like the path of a text file."""
    return (len(text.split()) == 1) + _names_text(text)
