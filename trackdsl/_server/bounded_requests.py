"""Makes the requests of a command end, without an import of `requests`: most commands never send one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def bound_requests_of_process() -> None:
    """Make every request of this process end, also if `requests` is imported later."""
    if "requests" in sys.modules:
        _bound()
    else:
        _bound_when_imported()


def _bound() -> None:
    from trackdsl._server.http import bound_requests

    bound_requests()


@cache
def _bound_when_imported() -> None:
    sys.meta_path.insert(0, _Finder())


#: The module that makes requests end. It imports `requests`, so it may be what is imported first.
_HTTP = "trackdsl._server.http"


class _Finder:
    """Finds `requests` as Python does, and bounds it when it is imported.

    wrapt's hooks do the same, but importing wrapt takes as long as a whole command: it imports `asyncio`.
    """

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in ("requests", _HTTP):
            return None
        others = (getattr(finder, "find_spec", None) for finder in [*sys.meta_path] if finder is not self)
        spec = next((found for find in others if find and (found := find(name, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec


class _Loader:
    """Loads a module by its own loader, and bounds requests."""

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        http = sys.modules.get(_HTTP)
        if http is not None and not hasattr(http, "bound_requests"):
            return  # It is importing `requests`; requests are bounded once it is imported itself.
        # Only now: a program may ask whether there is a module without importing it.
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self._finder)
        _bound()
