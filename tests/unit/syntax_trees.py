"""The syntax trees of the package's modules, which several tests read; parsing all of them takes seconds."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import trackdsl

PACKAGE = Path(trackdsl.__file__).parent


@functools.cache
def source_of(path: Path) -> str:
    """The source of a module."""
    return path.read_text(encoding="utf-8")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(source_of(path))


def trees(*words: str) -> Iterator[tuple[str, ast.Module]]:
    """The path below the package and the syntax tree of each module that has one of the words, or of every module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if not words or any(word in source_of(path) for word in words):
            yield path.relative_to(PACKAGE).as_posix(), tree_of(path)
