"""Reads the names of code in the order in which it is executed, as far as that is known."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from trackdsl.notebook import effects
from trackdsl.notebook.effects import ANY_NAME, FILES, MODULE_FILES, UNKNOWN, base_name

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


@dataclass
class _Scope:
    """The names of a function, class or comprehension, and those that it declares as global."""

    own: set[str]
    of_class: bool = False
    outside: set[str] = field(default_factory=set)


def reader_of(nodes: list[Any]) -> _Reader:
    """The names of some nodes of a syntax tree."""
    reader = _Reader()
    reader.visit_all(nodes)
    return reader


class _Reader(ast.NodeVisitor):
    """Collects names; see `Names` for what each attribute is."""

    def __init__(self) -> None:
        self.read: set[str] = set()
        self.needed: set[str] = set()
        self.deferred: set[str] = set()
        self.written: set[str] = set()
        self.changed: set[str] = set()
        self.called: set[str] = set()
        self.shares: set[tuple[str, str]] = set()
        self.calls: set[str] = set()
        self.acts: set[str] = set()
        self.later: set[str] = set()
        self.modules: dict[str, str] = {}
        self.defined: set[str] = set()
        self.logs = False
        #: Names that are surely written at this point.
        self.bound: set[str] = set()
        self._local: list[_Scope] = []
        #: How many functions are around this point.
        self._functions = 0

    def visit_all(self, nodes: list[Any]) -> None:
        for node in nodes:
            self.visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._reads(node.id)
        elif isinstance(node.ctx, ast.Del):
            self._reads(node.id)
            self.bound.discard(node.id)
        else:
            self._writes(node.id)

    def _reads(self, name: str) -> None:
        if self._is_local(name):
            return
        self.read.add(name)
        if self._functions:
            self.deferred.add(name)
        if name not in self.bound:
            self.needed.add(name)

    def _is_local(self, name: str) -> bool:
        """Whether a scope around this point has the name. Functions do not see the names of a class around them."""
        inner = len(self._local) - 1
        return any(name in one.own and (at == inner or not one.of_class) for at, one in enumerate(self._local))

    def _writes(self, name: str) -> None:
        if self._local and name not in self._local[-1].outside:
            self._local[-1].own.add(name)
            return
        if self._functions:  # It is declared as global.
            self.later.add(name)
            return
        self.written.add(name)
        self.bound.add(name)

    def _shared(self, target: ast.AST | None, value: ast.expr) -> None:
        """Note that a target may have objects in common with a value from now on."""
        if self._functions or target is None:
            return
        parts = target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
        for part in parts:
            if isinstance(part, (ast.Tuple, ast.List)):
                self._shared(part, value)
            elif name := base_name(part):
                self.shares.update((name, other) for other in effects.shared_by(value) if other != name)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        self.visit_all(node.targets)
        for target in node.targets:
            self._shared(target, node.value)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.generic_visit(node)
        self._shared(node.target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if not self._functions:  # Inside of functions, it is not evaluated.
            self.visit(node.annotation)
        if node.value is not None:
            self.visit(node.value)
            self.visit(node.target)
            self._shared(node.target, node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self._reads(node.target.id)
            self._changes(node.target, self.changed)
        self.visit(node.target)
        self._shared(node.target, node.value)

    def visit_For(self, node: Any) -> None:
        self.visit(node.iter)
        self.visit(node.target)
        self._shared(node.target, node.iter)
        self._maybe(node.body, node.orelse)

    visit_AsyncFor = visit_For  # noqa: N815

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        self._maybe(node.body, node.orelse, one_of_them=bool(node.orelse))

    def visit_While(self, node: ast.While) -> None:
        self.visit(node.test)
        self._maybe(node.body, node.orelse)

    def visit_Try(self, node: Any) -> None:
        self._maybe([*node.body, *node.orelse], *[[handler] for handler in node.handlers], one_of_them=True)
        self.visit_all(node.finalbody)

    visit_TryStar = visit_Try  # noqa: N815

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.bound.add(node.name)
        self.generic_visit(node)

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        self._maybe(*[[case] for case in node.cases])

    def visit_MatchAs(self, node: Any) -> None:
        if node.name:
            self._writes(node.name)
        self.generic_visit(node)

    visit_MatchStar = visit_MatchAs  # noqa: N815

    def _maybe(self, *branches: list[Any], one_of_them: bool = False) -> None:
        """Visit code of which only one branch is executed. Unless one surely is, it does not surely write its names."""
        before = set(self.bound)
        after = []
        for branch in branches:
            self.bound = set(before)
            self.visit_all(branch)
            after.append(self.bound)
        self.bound = before | set.intersection(*after) if one_of_them else before

    def visit_With(self, node: Any) -> None:
        self.visit_all(node.items)
        for item in node.items:
            self._shared(item.optional_vars, item.context_expr)
        self.visit_all(node.body)

    visit_AsyncWith = visit_With  # noqa: N815

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            self._imports(name, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self._imports(alias.asname or alias.name, node.module or "")

    def _imports(self, name: str, module: str) -> None:
        self._reads(MODULE_FILES)
        self._writes(name)
        if not self._local:
            self.modules[name] = module.partition(".")[0]

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._target(node)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._target(node)
        self.generic_visit(node)

    def _target(self, node: ast.Attribute | ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._changes(node, self.changed)

    def _changes(self, node: ast.AST, names: set[str]) -> None:
        name = base_name(node)
        if name and not self._is_local(name):
            (self.later if self._functions else names).add(name)

    def visit_Expr(self, node: ast.Expr) -> None:
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(value, ast.Call) and (name := base_name(value)) and not self._is_local(name):
            (self.later if self._functions else self.acts).add(f"{name}();")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if not isinstance(node.func, ast.Attribute):
            self._calls(node.func)
        elif effects.changes_object(node):
            self._changes(node.func, self.called)
            self._calls(node.func)
        if effects.changes_arguments(node):
            for argument in (*node.args, *(one.value for one in node.keywords)):
                self._changes(argument, self.called)
                if isinstance(node.func, ast.Attribute):
                    self._shared(node.func, argument)
        self._acts(node)
        self.generic_visit(node)

    def _calls(self, function: ast.AST) -> None:
        name = base_name(function)
        if name == effects.TRACKED:  # It calls its argument.
            if isinstance(function, ast.Call):
                self._calls(function.args[0])
            return
        if not name or self._is_local(name):
            name = UNKNOWN
        if self._functions:
            self.later.add(f"{name}()")
        else:
            self.calls.add(name)

    def _acts(self, node: ast.Call) -> None:
        (self.later if self._functions else self.acts).update(effects.effects_of(node))
        if effects.reads_files(node):
            self._reads(FILES)
        if effects.may_write_any_name(node) and not self._functions:
            self.written.add(ANY_NAME)
        self.logs = self.logs or (effects.logs(node) and not self._functions)

    def visit_FunctionDef(self, node: Any) -> None:
        arguments = node.args
        decorators = getattr(node, "decorator_list", ())
        self.visit_all([*decorators, *arguments.defaults])
        for decorator in decorators:
            self._calls(decorator)
        self.visit_all([default for default in arguments.kw_defaults if default is not None])
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        every = [one for one in every if one is not None]
        self.visit_all([one.annotation for one in every if one.annotation is not None])
        if getattr(node, "returns", None) is not None:
            self.visit(node.returns)
        if not isinstance(node, ast.Lambda):
            self._writes(node.name)
            self._defines(node.name)
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        own = {one.arg for one in every}
        own.update(_stored(body))
        outside = _globals(body)
        self._local.append(_Scope(own - outside, outside=outside))
        self._functions += 1
        self.visit_all(body)
        self._functions -= 1
        self._local.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815
    visit_Lambda = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.visit_all([*node.decorator_list, *node.bases, *node.keywords])
        self._local.append(_Scope(set(), of_class=True))
        self.visit_all(node.body)
        self._local.pop()
        self._writes(node.name)
        self._defines(node.name)

    def _defines(self, name: str) -> None:
        if not self._local:
            self.defined.add(name)

    def visit_ListComp(self, node: Any) -> None:
        # Only the names after `for` are of the comprehension alone.
        self._local.append(_Scope({name.id for part in node.generators for name in _names_in(part.target)}))
        self.generic_visit(node)
        self._local.pop()

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp  # noqa: N815


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


def _globals(body: list[Any]) -> set[str]:
    return {name for node in body for one in ast.walk(node) if isinstance(one, ast.Global) for name in one.names}
