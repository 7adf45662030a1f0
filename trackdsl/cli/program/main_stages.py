"""`--stage` for functions of the program's main file, which no import hook sees: its syntax tree gets a decorator.

The decorator is the innermost one, right at the function. So it also records what `@app.command()` or `@hydra.main`
have registered. Lines and columns stay as they are.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from types import CodeType
from typing import Any

from trackdsl.cli.program.stages import Pattern, Stages

#: The name under which the changed code finds the decorator; no module of the program uses it.
_NAME = "__trackdsl_stage__"
_OURS = ("stage", "experiment")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class MainStages:
    """Compiles the main file of a program, with its stages.

    Args:
        stages: the patterns.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._patterns = stages.for_main()

    def compile(self, source: bytes, path: str) -> CodeType:
        """The code of the main file."""
        tree = ast.parse(source, path)
        functions = dict(_functions(tree.body))
        for index, pattern in enumerate(self._patterns):
            chosen = [(name, node) for name, node in functions.items() if pattern.matches(name)]
            for name, node in chosen:
                if pattern.returns or not _is_stage(node):
                    _decorate(node, index, name)
            if not chosen:
                self._stages.warn(pattern, "the program", list(functions))
        vars(builtins)[_NAME] = self._decorator
        code: CodeType = compile(tree, path, "exec", dont_inherit=True)
        return code

    def _decorator(self, index: int, name: str) -> Any:
        pattern: Pattern = self._patterns[index]
        return lambda function: self._stages.decorated(function, pattern, name)


def _functions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, _Function]]:
    """The functions and methods that statements define, also those in `if` and `try`."""
    for node in body:
        if isinstance(node, _Function):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{prefix}{node.name}.")
        else:
            for field in ("body", "orelse", "finalbody"):
                yield from _functions(getattr(node, field, []), prefix)
            for handler in getattr(node, "handlers", []):
                yield from _functions(handler.body, prefix)


def _decorate(node: _Function, index: int, name: str) -> None:
    call = ast.Call(ast.Name(_NAME, ast.Load()), [ast.Constant(index), ast.Constant(name)], [])
    # With the line number of `def`, where no traceback of the program's points.
    ast.copy_location(call, node)
    node.decorator_list.append(ast.fix_missing_locations(call))


def _is_stage(node: _Function) -> bool:
    """Whether the program itself makes a function a stage or an experiment."""
    for one in node.decorator_list:
        called = one.func if isinstance(one, ast.Call) else one
        if getattr(called, "attr", getattr(called, "id", "")) in _OURS:
            return True
    return False
