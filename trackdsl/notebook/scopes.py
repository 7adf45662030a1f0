"""The names of functions, classes and comprehensions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_CHANGING = (ast.List, ast.Dict, ast.Set, ast.Call, ast.ListComp, ast.DictComp, ast.SetComp)
#: Decorators whose functions keep nothing that their calls change.
_KEEPING_NOTHING = frozenset({
    "stage", "experiment", "track_returns", "staticmethod", "classmethod", "property", "cached_property", "wraps",
    "lru_cache", "cache", "no_grad", "inference_mode", "njit", "jit", "contextmanager", "abstractmethod", "overload",
    "compile", "vectorize", "override",
})  # fmt: skip


@dataclass
class Scope:
    """The names of a function, class or comprehension, and those that it declares as global.

    Attributes:
        own: its names.
        of_class: whether it is a class.
        of_comprehension: whether it is a comprehension.
        outside: names that it declares as global.
        modules: its names that are imported, with the module each is from.
    """

    own: set[str]
    of_class: bool = False
    of_comprehension: bool = False
    outside: set[str] = field(default_factory=set)
    modules: dict[str, str] = field(default_factory=dict)


def scope_of(node: Any, body: list[Any]) -> Scope:
    """The names of a function."""
    own = {one.arg for one in arguments_of(node)}
    own.update(_stored(body))
    outside = {name for part in body for one in ast.walk(part) if isinstance(one, ast.Global) for name in one.names}
    return Scope(own - outside, outside=outside)


def scope_of_comprehension(node: Any) -> Scope:
    """The names after `for`: only these are of the comprehension alone."""
    own = {name.id for part in node.generators for name in _names_in(part.target)}
    return Scope(own, of_comprehension=True)


def arguments_of(node: Any) -> list[ast.arg]:
    """The parameters of a function."""
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return [one for one in every if one is not None]


def keeps_state(node: Any) -> bool:
    """Whether a function may keep something between its calls: it has a default that can change, or a decorator."""
    defaults = [*node.args.defaults, *(one for one in node.args.kw_defaults if one is not None)]
    decorators = [one.func if isinstance(one, ast.Call) else one for one in node.decorator_list]
    return any(isinstance(one, _CHANGING) for one in defaults) or any(
        (one.attr if isinstance(one, ast.Attribute) else getattr(one, "id", "")) not in _KEEPING_NOTHING
        for one in decorators
    )


def _names_in(node: ast.AST) -> Iterator[ast.Name]:
    return (one for one in ast.walk(node) if isinstance(one, ast.Name))


def _stored(body: list[Any]) -> set[str]:
    """The names that the code of a function binds, without those of functions in it."""
    found: set[str] = set()
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, _SCOPES):
            if not isinstance(node, ast.Lambda):
                found.add(node.name)
            continue
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
        waiting += ast.iter_child_nodes(node)
    return found
