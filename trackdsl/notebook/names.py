"""What the code of a cell says: names read and written, literals assigned."""

from __future__ import annotations

import ast
import builtins
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from trackdsl.notebook.effects import ANY_NAME
from trackdsl.notebook.names_reader import reader_of

#: Magics whose cell is Python.
_PYTHON_MAGICS = ("%%time", "%%capture", "%%prun", "%%timeit")
#: Longer cells, in characters, are data: they are not read, as that takes as long as executing them.
MAX_CELL = 200_000
#: The names of longer cells are not remembered.
_LONGEST_KEPT = 20_000
#: Those that IPython adds are not there in a program.
_SHOWING = {"display", "get_ipython"}
BUILTIN = frozenset(vars(builtins)) - _SHOWING


@dataclass(frozen=True)
class Names:
    """The names of a piece of code.

    Attributes:
        read: names of the namespace that it reads, before it has written them or after; also inside of functions.
        needed: names whose value comes from elsewhere, because it reads them before it writes them; also those of
            `builtins`, which another cell may have written.
        deferred: names that functions in it read, which happens when they are called.
        written: names that it writes at top level.
        changed: names whose objects it changes: `x[0] = …`, `x.a = …`, `x += …`.
        called: names whose objects it may change by calling a method of theirs, or passing them to a function.
        literals: names that it assigns literals to at top level, with the last value of each.
        sure: of the names written, those that it writes whatever happens in it.
        shares: pairs of names that may have objects in common afterwards, as after `a = b`.
        copies: the same if the first holds an object that can contain others, as after `a = b.copy()`.
        calls: the names at the beginning of what it calls, such as `np` of `np.zeros(3)`.
        acts: what it does besides: effects, and `np();` for a call that is a statement.
        later: what functions in it do when they are called: names of objects that they change, `np()` for what they
            call, and what they do besides.
        modules: names that it imports, with the module each is from, without the packages in it.
        parts: pairs of a name and another one of which it may be a part, if that is a module: `p = sys.path`.
        defined: functions and classes that it defines.
        stateful: of these, functions that may keep something between their calls.
        logs: whether it calls a function such as `log_metric`.
    """

    read: frozenset[str] = frozenset()
    needed: frozenset[str] = frozenset()
    deferred: frozenset[str] = frozenset()
    written: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()
    called: frozenset[str] = frozenset()
    literals: dict[str, Any] = field(default_factory=dict)
    sure: frozenset[str] = frozenset()
    shares: frozenset[tuple[str, str]] = frozenset()
    copies: frozenset[tuple[str, str]] = frozenset()
    calls: frozenset[str] = frozenset()
    acts: frozenset[str] = frozenset()
    later: frozenset[str] = frozenset()
    modules: dict[str, str] = field(default_factory=dict)
    parts: frozenset[tuple[str, str]] = frozenset()
    defined: frozenset[str] = frozenset()
    stateful: frozenset[str] = frozenset()
    logs: bool = False


def parsed(source: str) -> ast.Module | None:
    """The syntax tree of a cell without magics, or of a Python magic's cell; None if it is not Python."""
    first, _, rest = source.lstrip().partition("\n")
    if first.startswith(_PYTHON_MAGICS):
        source = rest
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def names_of(tree: ast.AST | None) -> Names:
    """The names of a syntax tree."""
    if tree is None:
        return Names()
    reader = reader_of(tree.body if isinstance(tree, ast.Module) else [tree])
    known = BUILTIN - reader.written
    return Names(
        read=frozenset(reader.read) - known,
        needed=frozenset(reader.needed),
        deferred=frozenset(reader.deferred),
        written=frozenset(reader.written),
        changed=frozenset(reader.changed) - known,
        called=frozenset(reader.called) - known,
        literals=dict(_literals(tree)) if isinstance(tree, ast.Module) else {},
        sure=frozenset(reader.written & reader.bound),
        shares=frozenset(reader.shares),
        copies=frozenset(reader.copies - reader.shares),
        calls=frozenset(reader.calls) - _SHOWING,
        acts=frozenset(reader.acts),
        later=frozenset(reader.later) - known,
        modules=dict(reader.modules),
        parts=frozenset(reader.parts),
        defined=frozenset(reader.defined),
        stateful=frozenset(reader.stateful),
        logs=reader.logs,
    )


def is_long(code: str) -> bool:
    """Whether code is too long to be read: it is data."""
    return len(code) > MAX_CELL


def names_in(source: str) -> Names:
    """The names of a cell without magics. Cells are executed again and again, so the latest ones are remembered.

    Those of a long cell are not read: it may write any name.
    """
    if is_long(source):
        return Names(written=frozenset({ANY_NAME}))
    return _names_in(source) if len(source) <= _LONGEST_KEPT else names_of(parsed(source))


@functools.lru_cache(maxsize=128)
def _names_in(source: str) -> Names:
    return names_of(parsed(source))


def _literals(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _pairs(target, node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield from _pairs(node.target, node.value)


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, Any]]:
    if isinstance(target, ast.Name):
        try:
            yield target.id, ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for one, its in zip(target.elts, value.elts, strict=True):
            yield from _pairs(one, its)


def with_expressions(names: Names, expressions: Mapping[str, str], also: Iterable[str]) -> Names:
    """The names of a cell together with those of its magic.

    Args:
        names: of the cell.
        expressions: what the magic assigns.
        also: variables that its options name.
    """
    before = names_in("\n".join(f"{key} = ({text})" for key, text in expressions.items()))
    listed = set(also) - names.written - before.written
    both = {
        each.name: getattr(before, each.name) | getattr(names, each.name)
        for each in fields(Names) if each.name not in ("needed", "literals", "logs")
    }  # fmt: skip
    both["read"] |= listed
    needed = before.needed | (names.needed - before.written) | listed
    return Names(**both, needed=needed, literals=names.literals, logs=before.logs or names.logs)
