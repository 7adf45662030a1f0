"""The names of tags: each is written in one place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from .syntax_trees import trees
from .test_package_structure import MODULES

#: The name of a tag, or its beginning.
_TAG = re.compile(r"trackdsl(\.[a-z_]+)+\.?|mlflow\.(parentRunId|runName|user|note\.content|source(\.\w+)+)")


def test_names_of_tags_are_written_once() -> None:
    """A tag that several modules use is a constant where all of them can import it, and is not written again."""
    named: dict[str, set[str]] = {}
    for name, tree in trees("trackdsl.", "mlflow."):
        for text in _texts(tree):
            if _TAG.fullmatch(text) and text.rstrip(".") not in MODULES:
                named.setdefault(text, set()).add(name)
    del named["trackdsl.omitted."]  # Nearly every module reports by such a tag, and sentences name it too.
    wrong = {}
    for text, paths in named.items():
        others = sorted(
            path for path in paths if not path.startswith("delivery/")
        )  # Delivery writes some of them again.
        if len(paths) > 1 and others and not (len(others) == 1 and others[0].startswith(("store_format/", "_core/"))):
            wrong[text] = others
    assert wrong == {}


def _texts(tree: ast.Module) -> Iterator[str]:
    """The strings in a file, and the parts of f-strings, except docstrings."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value
