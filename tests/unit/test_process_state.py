"""State of the process: a module registers what it keeps, or the note on such state says why it need not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from .syntax_trees import PACKAGE, trees

NOTE = PACKAGE.parent / ".github/design/process-state.md"
#: The methods that change a container.
_CHANGES = frozenset(
    ["add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove",
     "setdefault", "update"]
)  # fmt: skip
_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _values(tree: ast.Module) -> dict[str, ast.expr]:
    """The variables of a module, with their first values."""
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = getattr(node, "value", None)
        found.update({each.id: value for each in targets if isinstance(each, ast.Name) and value is not None})
    return found


def _changed(function: ast.AST) -> Iterator[str]:
    """The names that a function declares as global, and those of objects that it changes."""
    own = {each.arg for each in ast.walk(function) if isinstance(each, ast.arg)}
    own |= {each.id for each in ast.walk(function) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    for node in ast.walk(function):
        if isinstance(node, ast.Global):
            yield from node.names
        inner: ast.AST | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES:
            inner = node.func.value
        elif isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
            inner = node.value
        if isinstance(inner, ast.Name) and inner.id not in own:
            yield inner.id


def _renewed(tree: ast.Module, state: dict[str, ast.expr]) -> set[str]:
    """The state that functions of `runtime.register` renew, or that is renewed by its kind."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    found: set[str] = set()
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Call) and isinstance(called, ast.Attribute) and called.attr == "register":
            if isinstance(called.value, ast.Name) and called.value.id == "runtime":
                found |= _names(node)
        elif isinstance(node, ast.Call) and isinstance(called, ast.Name) and called.id == "register":
            found |= _names(node)
    waiting = sorted(found)
    while waiting:
        new = _names(functions.get(waiting.pop(), ast.Pass())) - found
        found |= new
        waiting += new
    # A cache by type is the same in every process and test, and a lock is renewed with all others.
    return found | {
        name for name, value in state.items() if re.search("forgets_at_exit|ForkSafeLock", ast.unparse(value))
    }


def unregistered(tree: ast.Module) -> set[str]:
    """The module's variables that functions change, and that nothing renews."""
    state = _values(tree)
    changed: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, _Function):
            changed.update(name for name in _changed(node) if name in state)
    return changed - _renewed(tree, state)


@pytest.mark.skipif(not NOTE.exists(), reason="the notes are not part of the source distribution")
def test_state_of_the_process_is_registered_or_may_stay() -> None:
    """Each variable of a module that functions change is registered, or the note says why it stays; and no others."""
    found = {(module, name) for module, tree in trees() for name in unregistered(tree)}
    rows = re.findall(r"^\| `([\w/]+\.py)` \| ([^|]+) \| [^|]{20,} \|$", NOTE.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {(module, name) for module, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert sorted(found - listed) == []
    assert sorted(listed - found) == []


@pytest.mark.parametrize(
    "change",
    ["global kept; kept = 1", "kept.append(1)", "kept[0] = 1", "del kept[0]", "kept[:] = ()", "kept.x = 1"],
)
def test_every_kind_of_change_is_found(change: str) -> None:
    """The check above sees each way to change a variable, and that it is registered."""
    source = f"kept = []\ndef change():\n    {change}\n"
    assert unregistered(ast.parse(source)) == {"kept"}
    for renewed in (
        source + "runtime.register('it', Phase.MEMORY, reset=kept.clear)",
        source + "def renew():\n    print(kept)\nruntime.register('it', 1, reset=renew)",
        "kept = []\ndef change(kept):\n    kept.append(1)",
    ):
        assert unregistered(ast.parse(renewed)) == set()
