"""Patches that stand while a scope is open, and are taken away when the last one closes.

What starts threads and processes is told nothing of scopes by the program, so it is patched where it is defined. A
patch passes straight through where no scope is current.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from trackdsl.errors import report, told

#: Makes of an original what stands in its place. A plain function: a proxy would cost more than all it does.
Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]


class Patch(NamedTuple):
    """One function to be wrapped.

    Attributes:
        module: the module that defines it; it is never imported for this.
        name: its name there, such as `Thread.start`.
        wrapper: makes what is called instead.
    """

    module: str
    name: str
    wrapper: Wrapper


class _Place(NamedTuple):
    """Where a patch stands, and what."""

    owner: Any
    attribute: str
    original: Any
    wrapper: Any


#: Everything that holds the patches in place: scopes, and work that runs inside one.
_open: set[object] = set()
_installed = False
_lock = threading.RLock()
_patches: list[Patch] = []
_places: dict[Patch, _Place] = {}


def opened(holder: object) -> None:
    """A scope opens: the patches stand from now on."""
    _open.add(holder)
    if not _installed:
        _install()


def closed(holder: object) -> None:
    """A scope has closed: with the last one the patches go."""
    _open.discard(holder)
    if not _open:
        _uninstall()


def _install() -> None:
    global _installed
    with _lock:
        if _installed:
            return
        _installed = True
        try:
            if not _patches:
                _prepare()
            for patch in _patches:
                module = sys.modules.get(patch.module)
                if module is not None:
                    _apply(patch, module)
        except Exception as error:
            report("patching", f"trackdsl cannot follow threads and processes to where they run: {told(error)}")


def _uninstall() -> None:
    global _installed
    with _lock:
        # In this order: whoever opens a scope from here on sees that it has to install, and waits for the lock.
        _installed = False
        if _open:
            _installed = True
            return
        for owner, attribute, original, wrapper in _places.values():
            # Where somebody else has patched on top of ours, theirs stays.
            if vars(owner).get(attribute) is wrapper:
                setattr(owner, attribute, original)


def _prepare() -> None:
    """Gather the patches, once; what is imported later is patched then."""
    import wrapt

    from trackdsl.distributed._starters import patches

    _patches.extend(patches())
    for module in dict.fromkeys(patch.module for patch in _patches):
        if module not in sys.modules:
            wrapt.register_post_import_hook(_on_import, module)


def _on_import(module: ModuleType) -> None:
    with _lock:
        if _installed:
            for patch in _patches:
                if patch.module == module.__name__:
                    _apply(patch, module)


def _apply(patch: Patch, module: ModuleType) -> None:
    place = _places.get(patch)
    if place is None:
        place = _place(patch, module)
        if place is None:
            return
    owner, attribute, original, wrapper = place
    found = vars(owner).get(attribute)
    if found is original:
        setattr(owner, attribute, wrapper)
    elif found is not wrapper and not _wraps(found, wrapper):
        del _places[patch]  # Somebody has replaced it in the meantime: theirs is the original now.
        _apply(patch, module)


def _place(patch: Patch, module: ModuleType) -> _Place | None:
    import wrapt

    try:
        owner, attribute, original = wrapt.resolve_path(module, patch.name)
        original = vars(owner)[attribute]
    except (AttributeError, KeyError):  # Another version of the library has no such function.
        return None
    wrapper = functools.wraps(original)(patch.wrapper(original))
    place = _places[patch] = _Place(owner, attribute, original, wrapper)
    return place


def _wraps(found: Any, wrapper: Any) -> bool:
    """Whether our wrapper is somewhere below what now stands there."""
    for _ in range(100):
        if found is wrapper:
            return True
        found = getattr(found, "__wrapped__", None)
        if found is None:
            return False
    return False


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
