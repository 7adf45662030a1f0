"""Whether using an object changes it, which depends on its type. No code of the user is executed to find out."""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Mapping
from typing import Any

from trackdsl.notebook.effects import READING_METHODS

#: Stands for an object that is not known.
UNSEEN = object()
_FIXED = (int, float, complex, str, bytes, bool, type(None), frozenset, range, type(...))
#: Packages whose objects only their own changing methods change.
_PLAIN = frozenset({"builtins", "collections", "pandas", "numpy", "polars", "pyarrow", "re", "pathlib", "datetime"})
_CONTAINERS = (dict, list, tuple)


def value_of(path: str, namespace: Mapping[str, Any]) -> Any:
    """The object at a path such as `d['a'].b`; `UNSEEN` if finding it would execute code."""
    if path.isidentifier():
        return namespace.get(path, UNSEEN)
    try:
        return _value(ast.parse(path, mode="eval").body, namespace)
    except Exception:  # Of a type that hides what it has.
        return UNSEEN


def _value(node: ast.expr, namespace: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return namespace.get(node.id, UNSEEN)
    if isinstance(node, ast.Attribute):
        found = inspect.getattr_static(_value(node.value, namespace), node.attr, UNSEEN)
        return UNSEEN if hasattr(type(found), "__get__") else found
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        container, key = _value(node.value, namespace), node.slice.value
        if type(container) in _CONTAINERS:
            try:
                return container[key]
            except (KeyError, IndexError, TypeError):
                return UNSEEN
    return UNSEEN


def is_fixed(value: Any) -> bool:
    """Whether an object never changes."""
    return type(value) in _FIXED or type(value) is types.ModuleType


def changes(what: str, value: Any) -> bool:
    """Whether using an object changes it, or may change it.

    Args:
        what: `iter`, `call`, or the name of a method.
        value: the object, or `UNSEEN`.
    """
    if value is UNSEEN:
        return what not in READING_METHODS
    kind = type(value)
    package = str(kind.__module__).partition(".")[0]
    if is_fixed(value):
        return False
    if what == "iter":
        return package == "__main__" or any("__next__" in vars(one) for one in kind.__mro__)
    if what == "call":
        return _keeps_state(value, package)
    return package == "__main__" if what in READING_METHODS else package not in _PLAIN


def _keeps_state(value: Any, package: str) -> bool:
    """Whether what is called may keep something between its calls."""
    if isinstance(value, types.FunctionType):
        return value.__closure__ is not None or not all(map(is_fixed, value.__defaults__ or ()))
    if isinstance(value, types.BuiltinFunctionType):
        return not isinstance(value.__self__, (types.ModuleType, type(None)))
    return not (isinstance(value, type) or package == "numpy")
