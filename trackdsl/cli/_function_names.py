"""The functions that `--stage` and `--track-returns` may name: those of modules below the current folder.

Nothing is imported, because that would execute the program.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path


def names(start: str) -> Iterator[str]:
    """Names that begin with what is typed: `package.` and `module:`, and behind the colon `module:function`.

    Args:
        start: what is typed.
    """
    module, colon, function = start.rpartition(":")
    if colon:
        yield from (f"{module}:{name}" for name in _functions(module) if name.startswith(function))
    else:
        yield from _modules(start)


def _modules(start: str) -> Iterator[str]:
    package, dot, name = start.rpartition(".")
    if dot and not _is_module(package):
        return
    with os.scandir(Path(*package.split("."))) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        stem, ending = os.path.splitext(entry.name)
        if not stem.isidentifier() or not stem.startswith(name) or stem == "__init__":
            continue
        if ending == ".py" and entry.is_file():
            yield f"{package}{dot}{stem}:"
        elif not ending and entry.is_dir() and any(Path(entry.path).glob("*.py")):
            yield f"{package}{dot}{stem}."


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _functions(module: str) -> Iterator[str]:
    if not _is_module(module):
        return
    path = Path(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if not file.is_file():  # Nor is a FIFO read, which may never end.
            continue
        for node in ast.parse(file.read_bytes()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name
            elif isinstance(node, ast.ClassDef):
                yield from (f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef))
        return
