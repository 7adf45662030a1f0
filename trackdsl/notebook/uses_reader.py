"""Reads what code does with objects: calls, changes, iterations; see `names_reader` for the names that it writes."""

# ruff: noqa: D102 - `ast.NodeVisitor` says what its methods are.
from __future__ import annotations

import ast
import contextlib
from typing import Any

from trackdsl.notebook import effects
from trackdsl.notebook.effects import ANY_NAME, EVERYTHING, FIGURES, FILES, PROCESS, SHOWING, UNKNOWN, base_name
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
        self.copies: set[tuple[str, str]] = set()
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
        #: How many generator expressions are around this point of which the items are made later.
        self._late = 0
        #: The ids of generator expressions of which the items are made at once.
        self._consumed: set[int] = set()
        #: The ids of calls such as `globals()` that have been read together with what is done with their value.
        self._read_calls: set[int] = set()

    def visit_all(self, nodes: list[Any]) -> None:
        for node in nodes:
            self.visit(node)

    def _reads(self, name: str) -> None:
        if self._is_local(name):
            return
        self.read.add(name)
        if self._functions or self._late:
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
                self.copies.update((name, other) for other in effects.shared_by(value, copies=True) if other != name)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load):
            self._uses(f".{node.attr}", node.value)
        else:
            self._changes(node, self.changed)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if effects.is_namespace(node.value):
            self._read_calls.add(id(node.value))
            self._variable(node.slice, node.ctx)
        elif isinstance(node.ctx, ast.Load):
            self._uses("[]", node.value)
        else:
            self._changes(node, self.changed)
        self.generic_visit(node)

    def _variable(self, key: ast.expr, context: ast.expr_context) -> None:
        """A variable by its name as a string: `globals()["x"]`."""
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            self.visit(ast.Name(key.value, context))
        elif isinstance(context, ast.Load):
            self._reads(EVERYTHING)
        else:
            self._any_name()

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self._operands(node.left, node.right)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        self._operands(node.operand)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self._operands(*node.values)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._operands(node.test)
        self.generic_visit(node)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
        self._operands(node.value)
        self.generic_visit(node)

    def _operands(self, *operands: ast.expr) -> None:
        """Operators and functions such as `len` call methods of their operands, such as `__add__`."""
        for operand in operands:
            self._uses("op", operand)

    def _changes(self, node: ast.AST, names: set[str]) -> None:
        name = base_name(node)
        if (function := effects.inner_call(node)) and not self._is_local(function):
            (self.later if self._functions else self.acts).add(effects.use(effects.RESULT, function))
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
        self._operands(node.left, *node.comparators)
        for operator, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(operator, (ast.In, ast.NotIn)):
                self._uses("iter", right)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._uses("iter", node.iter)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self._by_name(node)
        if effects.consumes(node):
            self._consumed.update(map(id, node.args))
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
        if not effects.changes_arguments(node):
            self._operands(*node.args)
        else:
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

    def _by_name(self, node: ast.Call) -> None:
        """What a call does with variables of which the names are in strings."""
        function = effects.called_name(node)
        first = node.args[0] if node.args else None
        if isinstance(node.func, ast.Attribute):
            self._method_by_name(node, node.func.value)
        elif function in ("setattr", "delattr") and first is not None:
            self._changes(ast.Attribute(first, "", ast.Store()), self.changed)
            if base_name(first) in ("", "sys", "__import__"):
                self._any_name()
        elif function in ("exec", "eval") and self._is_builtin(node.func):
            self._executes(first)
        elif effects.is_namespace(node) and id(node) not in self._read_calls and self._is_builtin(node.func):
            self._any_name()
            if not self._functions or function == "globals":
                self._reads(EVERYTHING)

    def _method_by_name(self, node: ast.Call, of: ast.expr) -> None:
        function = effects.called_name(node)
        if effects.is_namespace(of):
            self._read_calls.add(id(of))
            if function == "get" and node.args:
                self._variable(node.args[0], ast.Load())
            elif function in effects.ADDING:
                self._any_name()
            else:
                self._reads(EVERYTHING)
        elif function in ("query", "eval"):
            for name in effects.local_names(node):
                self._reads(name)

    def _is_builtin(self, function: ast.AST) -> bool:
        return not self._is_local(base_name(function))

    def _executes(self, code: ast.expr | None) -> None:
        """`exec` and `eval`: text that is written there is read as code; other text may do anything."""
        if isinstance(code, ast.Constant) and isinstance(code.value, str):
            with contextlib.suppress(SyntaxError, ValueError):
                self.visit_all(ast.parse(code.value.strip()).body)
            return
        self._reads(EVERYTHING)
        self._any_name()
        (self.later if self._functions else self.acts).add(PROCESS)

    def _any_name(self) -> None:
        (self.later if self._functions else self.written).add(ANY_NAME)

    def _acts(self, node: ast.Call) -> None:
        (self.later if self._functions else self.acts).update(effects.effects_of(node))
        if effects.reads_files(node):
            self._reads(FILES)
        if effects.called_name(node) in effects.READING_FIGURES:
            self._reads(FIGURES)
        self.logs = self.logs or (effects.logs(node) and not self._functions)
