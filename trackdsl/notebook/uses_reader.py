"""Reads what code does with objects: calls, changes, iterations; see `names_reader` for the names that it writes."""

# ruff: noqa: D102 - `ast.NodeVisitor` says what its methods are.
from __future__ import annotations

import ast
from typing import Any

from trackdsl.notebook import effects
from trackdsl.notebook.effects import ANY_NAME, FILES, PROCESS, SHOWING, UNKNOWN, base_name
from trackdsl.notebook.scopes import Scope


class UseReader(ast.NodeVisitor):
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
        self.parts: set[tuple[str, str]] = set()
        self.defined: set[str] = set()
        self.stateful: set[str] = set()
        self.logs = False
        #: Names that are surely written at this point.
        self.bound: set[str] = set()
        self._local: list[Scope] = []
        #: How many functions are around this point.
        self._functions = 0

    def visit_all(self, nodes: list[Any]) -> None:
        for node in nodes:
            self.visit(node)

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
        if name and name != "__import__" and not self._is_local(name):
            (self.later if self._functions else names).add(name)
        elif names is self.changed:
            self._sets(node)

    def _uses(self, what: str, node: ast.AST) -> None:
        """Note that an object is used in a way that changes objects of some types, such as iterators."""
        if (path := effects.path_of(node)) and not self._is_local(base_name(node)):
            (self.later if self._functions else self.acts).add(effects.use(what, path))

    def _sets(self, node: ast.AST) -> None:
        """Note that something of a module is set, if an expression begins with one."""
        name = base_name(node)
        acts = self.later if self._functions else self.acts
        if name == "__import__":
            acts.add(PROCESS)
        elif name and not self._is_local(name):
            acts.add(f"{name}();")
        elif any(scope.modules.get(name, "trackdsl") not in SHOWING for scope in self._local):
            acts.add(PROCESS)

    def visit_Expr(self, node: ast.Expr) -> None:
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(value, ast.Call):
            self._sets(value)
        self.generic_visit(node)

    def visit_YieldFrom(self, node: ast.YieldFrom) -> None:
        self._uses("iter", node.value)
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        if isinstance(node.ctx, ast.Load):
            self._uses("iter", node.value)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for operator, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(operator, (ast.In, ast.NotIn)):
                self._uses("iter", right)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._uses("iter", node.iter)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            if effects.changes_object(node):
                self._changes(node.func, self.called)
                self._calls(node.func)
            else:
                self._uses(node.func.attr, node.func.value)
        else:
            self._calls(node.func)
            if isinstance(node.func, ast.Name):
                tracked = node.func.id == effects.TRACKED and node.args
                self._uses("call", node.args[0] if tracked else node.func)
            elif isinstance(node.func, ast.Subscript):
                self._changes(node.func, self.called)
        if effects.sets(node):
            self._sets(node)
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
