"""The state that modules keep for the whole process: forks and `reset` know of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .syntax_trees import trees


def values_of_modules(word: str) -> Iterator[tuple[str, str]]:
    """Where a variable of a module is assigned, and what; of the modules that have a word."""
    for name, tree in trees(word):
        for node in tree.body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                yield f"{name}:{node.lineno}", ast.unparse(node.value or node)


def test_the_runtime_has_the_only_fork_hook() -> None:
    """No other module calls `os.register_at_fork`, where the order would be that of the imports."""
    callers = {
        name
        for name, tree in trees("register_at_fork")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "register_at_fork"
    }
    assert callers == {"_core/runtime.py"}


def test_locks_of_modules_are_free_after_a_fork() -> None:
    """A lock that a module keeps for the whole process is a `ForkSafeLock`."""
    plain = {f"threading.{name}()" for name in ("Lock", "RLock", "Condition", "Event", "Semaphore")}
    assert [where for where, value in values_of_modules("threading.") if value in plain] == []
    assert "ForkSafeLock()" in dict(values_of_modules("ForkSafeLock(")).values()


def test_each_state_has_a_name_of_its_own() -> None:
    """No two modules register the same name: the second registration would replace the first."""
    names = [
        ast.literal_eval(node.args[0])
        for _, tree in trees("Phase.")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("runtime.register", "register")
        and len(node.args) == 2
        and ast.unparse(node.args[1]).startswith("Phase.")
    ]
    assert len(names) > 10
    assert sorted(names) == sorted(set(names))
