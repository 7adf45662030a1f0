"""A plugin of pytest: every function and method of the packages in `DECORATED_PACKAGES` is decorated as it is imported.

Lambdas stay as they are, and so does everything that is not a `def`. Each call is recorded, save in the tests that
`DECORATED_UNRECORDED` names. `DECORATED_REPORT` is the file for the number of decorated functions.
"""

from __future__ import annotations

import ast
import builtins
import importlib.abc
import importlib.machinery
import json
import os
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

from trackdsl import configure, stage

#: Names of builtins, so that no module has a name more than it had. Of each four functions one is a section.
_DECORATORS = {"_trackdsl_stage": stage, "_trackdsl_section": stage(nested=False)}
_UNRECORDED = [name for name in os.environ.get("DECORATED_UNRECORDED", "").split(",") if name]


class Decorating(ast.NodeTransformer):
    """Adds the decorator as the innermost one of every function, where it is always allowed."""

    #: Functions that have been decorated, in all modules.
    count = 0

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Any:
        """Decorate the function, and those in it."""
        name = list(_DECORATORS)[Decorating.count % 4 == 3]
        Decorating.count += 1
        self.generic_visit(node)
        node.decorator_list.append(ast.copy_location(ast.Name(name, ast.Load()), node))
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815


class Loader(importlib.machinery.SourceFileLoader):
    """An import loader that compiles the source with decorators and ignores cached bytecode."""

    def get_code(self, fullname: str) -> CodeType:
        """See `importlib.abc.InspectLoader`."""
        path = self.get_filename(fullname)
        tree = Decorating().visit(ast.parse(self.get_data(path), path))
        return compile(tree, path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of some packages as Python does, and has them loaded by `Loader`."""

    def __init__(self, packages: list[str]) -> None:
        self._packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        if fullname.split(".")[0] not in self._packages:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(fullname, str(spec.origin))
        return spec


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Record nothing in the tests that say so."""
    if not any(name in item.nodeid for name in _UNRECORDED):
        return (yield)
    configure(mode="disabled")
    try:
        return (yield)
    finally:
        configure(mode="offline")


def pytest_unconfigure() -> None:
    """Write how many functions were decorated."""
    Path(os.environ["DECORATED_REPORT"]).write_text(json.dumps({"functions": Decorating.count}))


vars(builtins).update(_DECORATORS)
sys.meta_path.insert(0, Finder(os.environ["DECORATED_PACKAGES"].split(",")))
