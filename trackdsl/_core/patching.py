"""Patches that are installed while a scope is open, and are removed when the last scope closes.

A program does not declare which run its threads and processes belong to, so the functions that start them are patched.
A patch calls straight through where no scope is current.

This module knows none of the patches: `_engines` registers them.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from trackdsl._core import runtime
from trackdsl._core.runtime import ForkSafeLock, Phase
from trackdsl.errors import format_error, report, reraise_from_signal

#: Makes the replacement of a function. It returns a plain function, as a proxy would cost more than the patch itself.
Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]
#: Gets a module that has just been imported.
Hook = Callable[[ModuleType], None]


class Patch(NamedTuple):
    """One function that is replaced while a scope is open.

    Attributes:
        module: the module that defines the function. The patch waits for its import, and never imports it.
        name: the function's name there, such as `Thread.start`.
        wrapper: makes the replacement.
    """

    module: str
    name: str
    wrapper: Wrapper


class _Patched(NamedTuple):
    """The attribute that a patch replaces.

    Attributes:
        owner: the class or module that has the attribute.
        namespace: the owner's `__dict__`.
        attribute: the attribute's name.
        original: its value without the patch.
        wrapper: its value with the patch.
    """

    owner: Any
    namespace: Mapping[str, Any]
    attribute: str
    original: Any
    wrapper: Any


#: Everything that keeps the patches installed: scopes, and work that runs inside one.
_open: set[object] = set()
_installed = _installing = False
_lock = ForkSafeLock(threading.RLock)
#: What is called before the first scope opens, in this order.
_preparations: list[Callable[[], None]] = []
_patches: list[Patch] = []
_patched: dict[Patch, _Patched] = {}


def before_first_scope(prepare: Callable[[], None]) -> None:
    """Have a function called once, right before the first scope of the process opens: to register what it patches."""
    _preparations.append(prepare)


def add_patches(patches: Iterable[Patch]) -> None:
    """Register patches. Each one is installed while a scope is open, once its module has been imported."""
    with _lock.current:
        added = [patch for patch in patches if patch not in _patches]
        _patches.extend(added)
    for name in dict.fromkeys(patch.module for patch in added):
        when_imported(name, _on_import)


def when_imported(name: str, hook: Hook) -> None:
    """Have a function called with a module: at once if the module has been imported, else right after its import."""
    module = sys.modules.get(name)
    if module is not None:
        hook(module)
        return
    import wrapt  # When a scope opens, and not with trackdsl.

    wrapt.register_post_import_hook(hook, name)


def opened(holder: object) -> None:
    """Install the patches: a scope opens."""
    _open.add(holder)
    if not _installed:
        _install()


def closed(holder: object) -> None:
    """Remove the patches if this was the last scope that was open."""
    _open.discard(holder)
    if not _open:
        _uninstall()


def _install() -> None:
    global _installed, _installing
    with _lock.current:
        if _installed or _installing:  # The latter if this thread is installing already, further up the stack.
            return
        _installing = True
        try:
            while _preparations:
                _preparations.pop(0)()
            # A loop that opens one root run after the other gets here each time, so the usual case is quick.
            for owner, namespace, attribute, original, wrapper in _patched.values():
                if namespace.get(attribute) is original:
                    setattr(owner, attribute, wrapper)
                else:
                    _install_among_others()
                    break
            # Last: scopes of other threads do not wait for the lock once this is set.
            _installed = True
        except Exception as error:
            _installed = True
            reraise_from_signal(error)
            report("patching", f"trackdsl cannot follow threads and processes to where they run: {format_error(error)}")
        finally:
            _installing = False


def _uninstall() -> None:
    global _installed
    with _lock.current:
        # First: a thread that opens a scope from here on sees that it has to install, and waits for the lock.
        _installed = False
        if _open:
            _installed = True
            return
        for owner, namespace, attribute, original, wrapper in _patched.values():
            # If another library has patched on top of our patch, its patch stays.
            if namespace.get(attribute) is wrapper:
                setattr(owner, attribute, original)


def _install_among_others() -> None:
    """Install every patch where other libraries patch the same functions.

    Our wrapper stays where it is if theirs still calls it. Otherwise our wrapper is put on top of theirs.
    """
    for patch, patched in list(_patched.items()):
        current = patched.namespace.get(patched.attribute)
        if current is not patched.original and not _calls(current, patched.wrapper):
            patched = _patched[patch] = _wrap(patch, patched.owner, patched.attribute, current)
        if current is patched.original:
            setattr(patched.owner, patched.attribute, patched.wrapper)


def _on_import(module: ModuleType) -> None:
    with _lock.current:
        for patched in _find(module):
            if _installed:
                setattr(patched.owner, patched.attribute, patched.wrapper)


def _find(module: ModuleType) -> list[_Patched]:
    """Remember what the patches of a module replace. Another version of a library may lack some of it."""
    import wrapt

    found = []
    for patch in _patches:
        # Two engines may patch the same module, which is searched for each of them.
        if patch.module == module.__name__ and patch not in _patched:
            with contextlib.suppress(AttributeError, KeyError):
                found_in, attribute, _ = wrapt.resolve_path(module, patch.name)
                # gevent replaces `Thread` by a subclass, which inherits the function.
                classes = getattr(found_in, "__mro__", ())
                owner = next((each for each in classes if attribute in vars(each)), found_in)
                patched = _patched[patch] = _wrap(patch, owner, attribute, vars(owner)[attribute])
                found.append(patched)
    return found


def _wrap(patch: Patch, owner: Any, attribute: str, original: Any) -> _Patched:
    # Another library may have put a descriptor there, which needs the class to return what can be called.
    called = original if type(original) is FunctionType else getattr(owner, attribute)
    wrapper = functools.wraps(original)(patch.wrapper(called))
    return _Patched(owner, vars(owner), attribute, original, wrapper)


def _calls(function: Any, wrapper: Any) -> bool:
    """Whether a function is our wrapper, or wraps it."""
    for _ in range(100):
        if function is wrapper:
            return True
        function = getattr(function, "__wrapped__", None)
        if function is None:
            return False
    return False


def _after_fork() -> None:
    global _installed, _installing
    _installed = _installing = False  # The fork may have interrupted another thread, so the next scope checks all.


def _reset() -> None:
    for holder in list(_open):
        closed(holder)


runtime.register("patches", Phase.SCOPES, after_fork=_after_fork, reset=_reset)
