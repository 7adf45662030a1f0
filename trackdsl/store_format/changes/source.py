"""The source of a recorded function, and of what it uses of its project: functions, classes, constants.

It is read from the files of the project when the run is delivered, a moment after the program began. A recorded
function counts only if its text has the hash that the program recorded. No hashes of other definitions are recorded, so
definitions in files that were edited after the program began are left out.
"""

from __future__ import annotations

import ast
import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from types import CodeType

from trackdsl._core.redaction import mask_text
from trackdsl._core.source_text import digest_of, text_of
from trackdsl.store_format.changes.modules import Imported, Module, Modules

#: A function that uses more definitions is described by the first of them.
_MOST = 500
#: How many imports lead from a name to its definition at most: a package may pass on what its modules define.
_MOST_STEPS = 8
_LONGEST_TEXT = 100_000
#: How functions of a program's file are recorded.
_MAIN = "__main__"
#: What makes a function generic: other modules may register implementations.
_GENERIC = ("singledispatch", "singledispatchmethod")
#: These do nothing themselves.
_NO_STATEMENTS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class Definition:
    """A function, a class or a constant.

    Attributes:
        name: its full name.
        digest: the first 16 hex digits of the SHA-256 of its text.
        text: its source, with secrets masked.
    """

    name: str
    digest: str
    text: str


@dataclass
class Used:
    """The source that a recorded function depends on.

    Attributes:
        definitions: by their names; the function itself is the first.
        edited: files whose definitions are left out, because they were edited after the program began.
        masked: the names of those that have secrets, whose digests are those of the masked text.
    """

    definitions: dict[str, Definition] = field(default_factory=dict)
    edited: set[str] = field(default_factory=set)
    masked: set[str] = field(default_factory=set)

    def add(self, name: str, source: str) -> None:
        """Add a definition of which no hash was recorded. Its hash is made without secrets, which one could guess."""
        text = _masked(source)
        self.definitions.setdefault(name, Definition(name, digest_of(text), text))
        if text != source[:_LONGEST_TEXT]:
            self.masked.add(name)


@dataclass(frozen=True)
class _Definition:
    """A definition that is still to be read: its module, name and syntax."""

    module: Module
    name: str
    node: ast.stmt


def used_by(function: str, file: str, digest: str, modules: Modules, began: int, main: str = "") -> Used | None:
    """The definitions of its project that a recorded function uses.

    Args:
        function: its full name.
        file: its file.
        digest: the hash of its source that the program recorded.
        modules: those of the project.
        began: when the program began, in nanoseconds since 1970.
        main: the program's file, whose imports say which modules may have registered implementations.

    Returns:
        the function and what it uses; None if its source is not there any more.
    """
    module = modules.at(file)
    code = None if module is None else _code(module, function, digest)
    if module is None or code is None:
        return None
    own = function.removesuffix(code.co_qualname).rstrip(".") or module.name
    program = None if not main or main == file else modules.at(main)
    used = Used({function: Definition(function, digest, _masked(text_of(code, module.lines)))})
    node = module.functions.get((code.co_firstlineno, code.co_name))
    if node is not None:  # Else it is a lambda.
        begin = [_Definition(module, code.co_qualname, node)]
        _follow(used, begin, own, _Followed(modules, [module, *([] if program is None else [program])]), began)
    return used


def used_by_program(name: str, file: str, digest: str, modules: Modules, began: int) -> Used | None:
    """The statements at the top level of a program's file, and the definitions of its project that they use.

    Functions and classes of the file count if they are used, as those of other files do.

    Args:
        name: what the program is called.
        file: its file.
        digest: the hash of the file that was recorded; empty if none was: then it must not have been edited since.
        modules: those of the project.
        began: when the program began, in nanoseconds since 1970.

    Returns:
        the statements, as the first definition, and what they use; None if the file is not there any more.
    """
    module = modules.at(file)
    if module is None or (digest and _file_digest(module.path) != digest):
        return None
    if not digest and module.edited > began:
        return Used({}, {module.path})
    nodes = [node for node in module.tree.body if not isinstance(node, _NO_STATEMENTS)]
    used = Used()
    used.add(name, "".join(map(module.text, nodes)))
    _follow(used, [_Definition(module, "", node) for node in nodes], _MAIN, _Followed(modules, [module]), began)
    return used


class _Followed:
    """The modules of a project, and those of them that a program may import.

    Args:
        modules: those of the project.
        begin: the modules whose imports are followed.
    """

    def __init__(self, modules: Modules, begin: list[Module]) -> None:
        self.modules = modules
        self._begin = begin

    @cached_property
    def imported(self) -> list[Module]:
        """The modules that these import, and so on, and these themselves. All of them are parsed."""
        found = {one.path: one for one in self._begin}
        waiting, names = deque(self._begin), set[str]()
        while waiting:
            for name in waiting.popleft().imported_modules:
                module = None if name in names else self.modules.named(name)
                names.add(name)
                if module is not None and module.path not in found:
                    found[module.path] = module
                    waiting.append(module)
        return [*found.values()]


def _follow(used: Used, begin: list[_Definition], own: str, followed: _Followed, began: int) -> None:
    """Add what some definitions of one module use; `own` is how the program calls that module."""
    module = begin[0].module if begin else None
    waiting = deque(begin)
    seen = {(one.module.path, one.node) for one in begin}
    while waiting and len(used.definitions) < _MOST:
        for definition in _needed_by(waiting.popleft(), followed):
            if (definition.module.path, definition.node) in seen:
                continue
            seen.add((definition.module.path, definition.node))
            waiting.append(definition)
            if definition.module.edited > began:
                used.edited.add(definition.module.path)
                continue
            name = f"{own if definition.module is module else definition.module.name}.{definition.name}"
            used.add(name, definition.module.text(definition.node))


def _file_digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()[:16]
    except OSError:
        return ""


def _code(module: Module, function: str, digest: str) -> CodeType | None:
    for code in module.codes:
        if function.endswith(f".{code.co_qualname}") and digest_of(text_of(code, module.lines)) == digest:
            return code
    return None


def _masked(text: str) -> str:
    return mask_text(text[:_LONGEST_TEXT])


def _needed_by(definition: _Definition, followed: _Followed) -> Iterator[_Definition]:
    """The definitions of the project that a definition names, and those that are registered with it."""
    modules = followed.modules
    yield from _registered_with(definition, followed)
    imported = {**definition.module.imports, **definition.module.imported_by(*ast.walk(definition.node))}
    for names in dict.fromkeys(_dotted_names(definition.node)):
        found = _beside(definition, names) or _resolved(definition.module, names, imported, modules)
        if found is not None:
            yield found


def _registered_with(definition: _Definition, followed: _Followed) -> Iterator[_Definition]:
    """What its own module registers with a definition; with a generic function, what any imported module does."""
    module, top = definition.module, definition.name.partition(".")[0]
    others = [one for one in followed.imported if one is not module] if _is_generic(definition.node) else []
    for one in [module, *others]:
        for names, found in one.registered.items():
            if one is module:
                meant = names[0] == definition.name
            else:
                target = _resolved(one, names, one.imports, followed.modules)
                meant = target is not None and (target.module.path, target.name) == (module.path, top)
            if meant:
                yield from (_Definition(one, name, node) for name, node in found)


def _is_generic(node: ast.stmt) -> bool:
    """Whether a function is one of `singledispatch`, or a class has a method of `singledispatchmethod`."""
    if isinstance(node, ast.ClassDef):
        return any(map(_is_generic, node.body))
    decorators = getattr(node, "decorator_list", [])
    return any(getattr(one, "attr", getattr(one, "id", "")) in _GENERIC for one in decorators)


def _dotted_names(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """The names that a definition reads, such as `("features", "scale")`."""
    for one in ast.walk(node):
        names: list[str] = []
        if isinstance(one, ast.Call) and (name := _got_attribute(one)) is not None:
            names, one = [name], one.args[0]
        while isinstance(one, ast.Attribute):
            names.insert(0, one.attr)
            one = one.value
        if isinstance(one, ast.Name):
            yield (one.id, *names)


def _got_attribute(call: ast.Call) -> str | None:
    """The name that `getattr` is called with; None for other calls."""
    if not isinstance(call.func, ast.Name) or call.func.id != "getattr" or len(call.args) < 2:
        return None
    name = call.args[1].value if isinstance(call.args[1], ast.Constant) else None
    return name if isinstance(name, str) else None


def _beside(definition: _Definition, names: tuple[str, ...]) -> _Definition | None:
    """A function in the same class or function: `self.scale`, or `scale` where both are inside of another function."""
    around, dot, _ = definition.name.rpartition(".")
    if not dot:
        return None
    wanted = names[1] if names[0] in ("self", "cls") and len(names) > 1 else names[0]
    for code in definition.module.codes:
        if code.co_qualname == f"{around}.{wanted}":
            node = definition.module.functions.get((code.co_firstlineno, code.co_name))
            return None if node is None else _Definition(definition.module, code.co_qualname, node)
    return None


def _resolved(
    module: Module, names: tuple[str, ...], imported: dict[str, Imported], modules: Modules, steps: int = _MOST_STEPS
) -> _Definition | None:
    """The definition that a dotted name stands for in a module."""
    node = module.definitions.get(names[0])
    if node is not None:
        return _Definition(module, names[0], node)
    if not steps:
        return None
    if names[0] in imported:
        source, name = imported[names[0]]
        rest = names[1:] if name is None else (name, *names[1:])
        return _inside(source, rest, modules, steps - 1)
    for source in module.stars:
        if (found := _inside(source, names, modules, steps - 1)) is not None:
            return found
    return None


def _inside(source: str, names: tuple[str, ...], modules: Modules, steps: int) -> _Definition | None:
    """The definition that a dotted name stands for inside of a module, or of a module in this package."""
    while names:
        module = modules.named(source)
        if module is not None and (found := _resolved(module, names, module.imports, modules, steps)) is not None:
            return found
        source, names = f"{source}.{names[0]}", names[1:]
    return None
