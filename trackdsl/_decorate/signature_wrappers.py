"""Wrappers with the parameters of the function they wrap.

The body of a coroutine or a generator starts after its call. A wrapper that accepts any arguments would raise for wrong
ones only then. With the parameters of the function itself, Python raises at the call, as for the function.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import textwrap
from collections.abc import Callable
from types import FunctionType
from typing import Any

#: A function that defines `wrapper(*args, **kwargs)` and returns it.
Factory = Callable[..., Any]

#: The prefix of every name that a wrapper itself uses, so that it differs from all parameters.
_PREFIX = "_trackdsl_"


def wrapper_like(fn: Callable[..., Any], factory: Factory, *given: Any) -> Any:
    """A wrapper made by `factory`, with the parameters of `fn` if that is written in Python.

    Args:
        fn: the function to wrap.
        factory: a function that defines `wrapper(*args, **kwargs)` and returns it.
        *given: the arguments of `factory`.
    """
    if not isinstance(fn, FunctionType):
        return factory(*given)
    try:
        make = _specialized(factory, *_parameters(fn))
    except OSError:  # The source of trackdsl is not available.
        return factory(*given)
    wrapper = make(*given)
    wrapper.__defaults__ = fn.__defaults__
    wrapper.__kwdefaults__ = None if fn.__kwdefaults__ is None else dict(fn.__kwdefaults__)
    return wrapper


def _parameters(fn: FunctionType) -> tuple[str, str]:
    """The parameters of a function as source code, without defaults, and statements that collect the arguments."""
    code = fn.__code__
    count, keywords = code.co_argcount, code.co_argcount + code.co_kwonlyargcount
    names = list(code.co_varnames[:count])
    keyed = [f"{name!r}: {name}" for name in code.co_varnames[count:keywords]]
    further = iter(code.co_varnames[keywords:])
    written = names.copy()
    if code.co_posonlyargcount:
        written.insert(code.co_posonlyargcount, "/")
    if code.co_flags & inspect.CO_VARARGS:
        names.append(f"*{next(further)}")
        written.append(names[-1])
    elif keyed:
        written.append("*")
    written += code.co_varnames[count:keywords]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        keyed.append(f"**{next(further)}")
        written.append(keyed[-1])
    taken = [name.lstrip("*") for name in written if name not in ("*", "/")]
    gather = f"args = ({''.join(f'{name}, ' for name in names)})\nkwargs = {{{', '.join(keyed)}}}"
    return ", ".join(written), f"{gather}\ndel {', '.join(taken)}" if taken else gather


@functools.lru_cache(maxsize=1024)
def _specialized(factory: Factory, parameters: str, gather: str) -> Factory:
    """`factory`, whose wrappers have these parameters."""
    outer, names = _template(factory)
    wrapper = next(part for part in outer.body if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)))
    head = ast.parse(f"def head({parameters}):\n{textwrap.indent(gather, ' ')}").body[0]
    assert isinstance(head, ast.FunctionDef)
    for node in ast.walk(head):
        if isinstance(node, ast.Name) and node.id in ("args", "kwargs") and isinstance(node.ctx, ast.Store):
            node.id = _PREFIX + node.id
        if "lineno" in node._attributes:
            ast.copy_location(node, wrapper)
    # The template keeps the same nodes, which `compile` does not change.
    inner = _changed(wrapper, args=head.args, body=[*head.body, *wrapper.body])
    body = [inner if part is wrapper else part for part in outer.body]
    module = ast.Module([_changed(outer, body=body)], [])
    made: dict[str, Factory] = {}
    # The source is our own, and the names of parameters are names that Python has accepted.
    exec(compile(module, factory.__code__.co_filename, "exec", dont_inherit=True), names, made)  # noqa: S102
    return made[outer.name]


@functools.cache
def _template(factory: Factory) -> tuple[ast.FunctionDef, dict[str, Any]]:
    """The syntax tree of a factory, with the prefix on all names, and the values of its global names."""
    tree = ast.parse(inspect.getsource(factory))
    ast.increment_lineno(tree, factory.__code__.co_firstlineno - 1)
    outer = tree.body[0]
    assert isinstance(outer, ast.FunctionDef)
    renaming = _Renaming()
    renaming.visit(outer)
    known = {**vars(builtins), **factory.__globals__}
    outside = {_PREFIX + name: known[name] for name in renaming.names if name in known}
    return outer, {**outside, "__name__": factory.__module__}


class _Renaming(ast.NodeVisitor):
    """Puts the prefix on the names in a function, and removes its annotations."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def _renamed(self, name: str) -> str:
        self.names.add(name)
        return _PREFIX + name

    def visit_Name(self, node: ast.Name) -> None:
        if node.id != "wrapper":
            node.id = self._renamed(node.id)

    def visit_arg(self, node: ast.arg) -> None:
        node.arg = self._renamed(node.arg)
        node.annotation = None

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        node.returns = None
        self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name is not None:
            node.name = self._renamed(node.name)
        self.generic_visit(node)


def _changed(node: Any, **changes: Any) -> Any:
    fields = {name: getattr(node, name) for name in node._fields if hasattr(node, name)}
    return ast.copy_location(type(node)(**{**fields, **changes}), node)
