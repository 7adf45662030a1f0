"""Modules that a program imports again: `importlib.reload`, or an import after it was removed from `sys.modules`.

wrapt's hooks run at the first import only. So what is imported once is followed by a finder of our own.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from trackdsl._core import runtime
from trackdsl._core.runtime import Phase

#: What is called with a module right after it was imported again, by its name.
_hooks: dict[str, list[Callable[[ModuleType], object]]] = {}


def when_imported_again(name: str, hook: Callable[[ModuleType], object]) -> None:
    """Have a function called with a module each time after it was imported again; each function once.

    Args:
        name: the name of a module that was imported.
        hook: the function.
    """
    hooks = _hooks.setdefault(name, [])
    if hook not in hooks:
        hooks.append(hook)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def _reset() -> None:
    _hooks.clear()
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)


class _Finder:
    """Finds a module as Python does, and has the functions called when it is imported again."""

    def __init__(self) -> None:
        self._searching = threading.local()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        # Other libraries' finders may ask all finders in turn.
        if name not in _hooks or getattr(self._searching, "now", False):
            return None
        self._searching.now = True
        try:
            others = (getattr(finder, "find_spec", None) for finder in [*sys.meta_path] if finder is not self)
            spec = next((found for find in others if find and (found := find(name, path, target)) is not None), None)
        finally:
            self._searching.now = False
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader:
    """Loads a module by its own loader, which the program sees as before."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        for hook in _hooks.get(module.__name__, ()):
            hook(module)


_finder = _Finder()
runtime.register("modules that are imported again", Phase.MEMORY, reset=_reset)
