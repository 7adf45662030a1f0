"""Reads the names of code in the order in which it is executed, as far as that is known."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any

from trackdsl.notebook import effects
from trackdsl.notebook.effects import LAMBDA, MODULE_FILES
from trackdsl.notebook.scopes import Scope, arguments_of, keeps_state, scope_of, scope_of_comprehension
from trackdsl.notebook.uses_reader import UseReader


def reader_of(nodes: list[Any]) -> _Reader:
    """The names of some nodes of a syntax tree."""
    reader = _Reader()
    reader.visit_all(nodes)
    return reader


class _Reader(UseReader, ast.NodeVisitor):
    """Collects names; see `Names` for what each attribute is."""

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._reads(node.id)
        elif isinstance(node.ctx, ast.Del):
            self._reads(node.id)
            self._writes(node.id)  # What reads the name later finds none, or the one of `builtins`.
            self.bound.discard(node.id)
        else:
            self._writes(node.id)

    def _writes(self, name: str) -> None:
        if self._local and name not in self._local[-1].outside:
            self._local[-1].own.add(name)
            return
        if self._functions:  # It is declared as global.
            self.later.add(name)
            return
        self.written.add(name)
        self.bound.add(name)

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.value, ast.Lambda):  # As a function with this name.
            self.visit_FunctionDef(node.value)
            self.visit_all(node.targets)
            for target in node.targets:
                if isinstance(target, ast.Name):
                    self._defines(target.id)
        else:
            self.visit(node.value)
            self.visit_all(node.targets)
        part = effects.part_of(node.value)
        for target in node.targets[1:]:
            self._shared(target, node.targets[0])
        for target in node.targets:
            self._shared(target, node.value)
            if isinstance(target, (ast.Tuple, ast.List)):
                self._uses("iter", node.value)
            elif part and isinstance(target, ast.Name) and not self._local:
                self.parts.add((target.id, part))

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        scopes = self._local
        self._local = [scope for scope in scopes if not scope.of_comprehension]
        self.visit(node.target)
        self._local = scopes
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
        self._uses("iter", node.iter)
        self.visit(node.iter)
        self.visit(node.target)
        self._shared(node.target, node.iter)
        self._maybe(node.body, node.orelse)

    visit_AsyncFor = visit_For  # noqa: N815

    def visit_If(self, node: ast.If) -> None:
        self._operands(node.test)
        self.visit(node.test)
        self._maybe(node.body, node.orelse, one_of_them=bool(node.orelse))

    def visit_While(self, node: ast.While) -> None:
        self._operands(node.test)
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
        for each in (one for case in node.cases for one in ast.walk(case.pattern)):
            if name := getattr(each, "name", None) or getattr(each, "rest", None):
                self._shared(ast.Name(name, ast.Store()), node.subject)
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
            self._uses("with", item.context_expr)
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
        modules = self._local[-1].modules if self._local else self.modules
        modules[name] = module.partition(".")[0]

    def visit_FunctionDef(self, node: Any) -> None:
        decorators = getattr(node, "decorator_list", ())
        self.visit_all([*decorators, *node.args.defaults])
        self._decorated(decorators, getattr(node, "name", ""))
        self.visit_all([default for default in node.args.kw_defaults if default is not None])
        self.visit_all([one.annotation for one in arguments_of(node) if one.annotation is not None])
        if getattr(node, "returns", None) is not None:
            self.visit(node.returns)
        if not isinstance(node, ast.Lambda):
            self._writes(node.name)
            self._defines(node.name)
            if not self._local:
                self._shares_with_its(node)
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        self._local.append(scope_of(node, body))
        self._functions += 1
        self.visit_all(body)
        self._functions -= 1
        self._local.pop()

    def _decorated(self, decorators: Iterable[ast.expr], name: str) -> None:
        """A decorator is called, also without parentheses, and may keep the function: `@f.register`."""
        for decorator in decorators:
            self._calls(decorator)
            self._shared(decorator, ast.Name(name, ast.Load()))
            if isinstance(decorator, ast.Attribute):
                self.visit_Call(ast.copy_location(ast.Call(decorator, [], []), decorator))

    def _shares_with_its(self, node: Any) -> None:
        """A function shares objects with its defaults and decorators, which may keep something between its calls."""
        defaults = [*node.args.defaults, *(one for one in node.args.kw_defaults if one is not None)]
        for part in (*defaults, *node.decorator_list):
            self._shared(ast.Name(node.name, ast.Store()), part)
        if keeps_state(node):
            self.stateful.add(node.name)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:
        if not self._functions:  # What gets it may call it.
            self.calls.add(LAMBDA)
        self.visit_FunctionDef(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.visit_all([*node.decorator_list, *node.bases, *node.keywords])
        self._decorated(node.decorator_list, node.name)
        own = ast.Name(node.name, ast.Store())
        if not self._local:
            values = [one.value for one in node.body if isinstance(one, (ast.Assign, ast.AnnAssign)) and one.value]
            for part in (*node.bases, *values):
                self._shared(own, part)
        for part in (*node.bases, *(one.value for one in node.keywords)):
            self._uses("class", part)
        self._local.append(Scope(set(), of_class=True))
        self.visit_all(node.body)
        self._local.pop()
        self._writes(node.name)
        self._defines(node.name)

    def _defines(self, name: str) -> None:
        if not self._local:
            self.defined.add(name)

    def visit_ListComp(self, node: Any) -> None:
        before = set(self.bound)
        self._local.append(scope_of_comprehension(node))
        self.generic_visit(node)
        self._local.pop()
        self.bound = before  # It may be executed for no item.

    visit_SetComp = visit_DictComp = visit_ListComp  # noqa: N815

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        late = id(node) not in self._consumed
        self._late += late
        self.visit_ListComp(node)
        self._late -= late
