"""Whether using an object changes it, which depends on its type. No code of the user is executed to find out."""

from __future__ import annotations

import ast
import collections
import dis
import functools
import inspect
import logging
import re
import sys
import types
from collections.abc import Mapping
from typing import Any

from trackdsl.notebook.effects import ADDING, READING_METHODS

#: Stands for an object that is not known.
UNSEEN = object()
_FIXED = (int, float, complex, str, bytes, bool, type(None), frozenset, range, type(...))
#: Packages whose objects only their own changing methods change.
_PLAIN = frozenset({"builtins", "collections", "pandas", "numpy", "polars", "pyarrow", "re", "pathlib", "datetime"})
_CONTAINERS = (dict, list, tuple)
#: Packages whose objects share nothing with those that they are computed from by an operator, or copied from.
_NEW_BY_OPERATORS = frozenset({"pandas", "polars", "pyarrow", "torch", "datetime", "pathlib", "re"})
#: What functions call to change an object, and the instructions that change one.
_CHANGING = ADDING | {"next", "write", "put", "send", "setattr", "random", "normal", "choice", "randint", "shuffle"}
_STORING = ("STORE_ATTR", "STORE_SUBSCR", "STORE_GLOBAL", "STORE_DEREF", "DELETE_ATTR", "DELETE_SUBSCR")
#: Longer containers are not looked through.
_MOST = 10_000
#: Special methods that no operator calls.
_NOT_OPERATORS = frozenset({
    "__init__", "__new__", "__init_subclass__", "__post_init__", "__class_getitem__", "__enter__", "__exit__",
    "__call__", "__iter__", "__next__", "__getitem__", "__setattr__", "__setitem__", "__delitem__", "__getattr__",
    "__getattribute__", "__missing__",
})  # fmt: skip


def value_of(path: str, namespace: Mapping[str, Any]) -> Any:
    """The object at a path such as `d['a'].b`; `UNSEEN` if finding it would execute code."""
    if path.isidentifier():
        return namespace.get(path, UNSEEN)
    try:
        return _value(_parsed(path), namespace)
    except Exception:  # Of a type that hides what it has.
        return UNSEEN


@functools.lru_cache(maxsize=1024)
def _parsed(path: str) -> ast.expr:
    return ast.parse(path, mode="eval").body


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
        what: `iter`, `call`, `with`, `class` for the base of a class, `op` for an operator, `[]` for an item, `.a` for
            an attribute, or the name of a method.
        value: the object, or `UNSEEN`.
    """
    if is_implicit(what):
        return value is not UNSEEN and _runs_code(what, value)
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


def is_implicit(what: str) -> bool:
    """Whether a use is one that only classes of the notebook notice: no call is written there."""
    return what in ("with", "class", "op", "[]") or what.startswith(".")


def _runs_code(what: str, value: Any) -> bool:
    """Whether a use that is no call executes code of the notebook, or changes the object all the same."""
    kind = type(value)
    if what == "class":
        own = _own(value) if isinstance(value, type) else []
        return _is_own(kind) or any("__init_subclass__" in vars(one) or issubclass(one, type) for one in own)
    if what == "with":
        return not is_fixed(value)
    if what == "[]" and hasattr(kind, "__missing__") and kind is not collections.Counter:  # As `defaultdict` has.
        return True
    members = [vars(one) for one in _own(kind)]
    if what == "[]":
        found = [one["__getitem__"] for one in members if "__getitem__" in one]
    elif what == "op":
        found = [one[name] for one in members for name in one if name.startswith("__") and name not in _NOT_OPERATORS]
    else:
        found = [_getter(one[name]) for one in members for name in (what[1:], "__getattr__") if name in one]
    return any(isinstance(one, types.FunctionType) and _changes_something(one) for one in found)


def _getter(member: Any) -> Any:
    """What computes an attribute; None if that is a method."""
    if isinstance(member, types.FunctionType):
        return member if member.__name__ == "__getattr__" else None
    return getattr(member, "fget", getattr(member, "func", None))


def _changes_something(function: Any) -> bool:
    """Whether a function changes anything but its own variables, as far as its code shows."""
    function = getattr(function, "__wrapped__", function)
    code = getattr(function, "__code__", None)
    if code is None or code.co_filename == "<string>" or not _is_own(function):  # `dataclass` has written it.
        return False
    if not _CHANGING.isdisjoint(code.co_names):
        return True
    return any(one.opname.startswith(_STORING) for one in dis.get_instructions(code))


def _own(kind: type) -> list[type]:
    """The classes of the notebook among a class and its bases."""
    return [one for one in kind.__mro__ if _is_own(one)]


def _is_own(kind: Any) -> bool:
    return bool(kind.__module__ == "__main__")


def may_share(value: Any) -> bool:
    """Whether an object may have parts in common with the one that it was computed or copied from."""
    if value is UNSEEN:
        return True
    if is_fixed(value):
        return False
    kind = type(value)
    package = str(kind.__module__).partition(".")[0]
    if package == "numpy":
        return str(getattr(value, "dtype", "")) == "object"
    if package in _NEW_BY_OPERATORS:
        return False
    if kind in (dict, list, tuple, set) and len(value) <= _MOST:
        return not all(map(is_fixed, value.values() if kind is dict else value))
    return True


def is_computed(value: Any) -> bool:
    """Whether going through an object makes its items, as `DataLoader` does, and so may draw random numbers."""
    if value is UNSEEN:
        return True
    return not is_fixed(value) and str(type(value).__module__).partition(".")[0] not in _PLAIN


def keeps_objects(value: Any) -> bool:
    """Whether a class of the notebook may keep its new objects in itself."""
    if not isinstance(value, type):
        return False
    made_by = [vars(one).get(name) for one in _own(value) for name in ("__init__", "__new__", "__post_init__")]
    found = [one for one in map(_getter_or_self, made_by) if one is not None]
    return any({"type", "__class__"} & set(one.__code__.co_names) and _changes_something(one) for one in found)


def _getter_or_self(member: Any) -> types.FunctionType | None:
    inner = getattr(member, "__func__", member)
    return inner if isinstance(inner, types.FunctionType) else None


def keeps_values(module: str) -> bool:
    """Whether a module of the user may keep something between calls: in a `global` variable, or in an object."""
    found = sys.modules.get(module)
    path = getattr(found, "__file__", None)
    if found is None or path is None or "site-packages" in path or path.startswith((sys.prefix, sys.base_prefix)):
        return False
    values = dict(vars(found))
    classes = [one for one in values.values() if isinstance(one, type) and one.__module__ == module]
    members = [*values.values(), *(_getter_or_self(one) for each in classes for one in vars(each).values())]
    functions = [one for one in members if isinstance(one, types.FunctionType) and one.__module__ == module]
    objects = {
        name for name, one in values.items() if not (is_fixed(one) or callable(one) or isinstance(one, _CONSTANTS))
    }
    return any(_keeps_in(one, objects) for one in functions)


def _keeps_in(function: types.FunctionType, objects: set[str]) -> bool:
    """Whether a function writes global variables, or changes one of these objects, as far as its code shows."""
    names = set(function.__code__.co_names)
    stores = [one.opname for one in dis.get_instructions(function) if one.opname.startswith(_STORING)]
    return "STORE_GLOBAL" in stores or bool(names & objects and (stores or names & _CHANGING))


#: What a module has as constants, in general.
_CONSTANTS = (tuple, re.Pattern, types.ModuleType, logging.Logger)


def is_drawing(value: Any) -> bool:
    """Whether an object is a figure of matplotlib, or part of one."""
    return str(type(value).__module__).startswith("matplotlib.")


def figures_stay() -> bool:
    """Whether matplotlib has the figures of earlier cells; its backend for notebooks closes them after each cell."""
    found = sys.modules.get("matplotlib")
    backend = "" if found is None else str(dict.get(found.rcParams, "backend", ""))
    return "inline" not in backend


def _keeps_state(value: Any, package: str) -> bool:
    """Whether what is called may keep something between its calls."""
    if isinstance(value, types.FunctionType):
        return value.__closure__ is not None or not all(map(is_fixed, value.__defaults__ or ()))
    if isinstance(value, types.BuiltinFunctionType):
        return not isinstance(value.__self__, (types.ModuleType, type(None)))
    return not (isinstance(value, type) or package == "numpy")
