"""Patches that stand while a scope is open, and are taken away when the last one closes.

What starts threads and processes is told nothing of scopes by the program, so it is patched where it is defined. A
patch passes straight through where no scope is current.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from trackdsl._core import runtime
from trackdsl._core.runtime import ForkSafeLock, Phase
from trackdsl.errors import format_error, report, reraise_from_signal

#: Makes of an original what stands in its place. A plain function: a proxy would cost more than all it does.
Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]
#: Is given a module that has been imported.
Hook = Callable[[ModuleType], None]


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
    """Where a patch stands, and what.

    Attributes:
        owner: the class or module whose attribute is replaced.
        namespace: of the owner, as it is at any time.
        attribute: its name there.
        original: what stood there.
        wrapper: what stands in its place.
    """

    owner: Any
    namespace: Mapping[str, Any]
    attribute: str
    original: Any
    wrapper: Any


#: Everything that holds the patches in place: scopes, and work that runs inside one.
_open: set[object] = set()
_installed = _installing = False
_lock = ForkSafeLock(threading.RLock)
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
    global _installed, _installing
    with _lock.current:
        if _installed or _installing:  # The latter by this very thread, further out.
            return
        _installing = True
        try:
            if not _patches:
                _prepare()
            # A loop over roots comes by here each time.
            for owner, namespace, attribute, original, wrapper in _places.values():
                if namespace.get(attribute) is original:
                    setattr(owner, attribute, wrapper)
                else:
                    _stack()
                    break
            # Not before: scopes of other threads go on without waiting once it is set.
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
        # In this order: whoever opens a scope from here on sees that it has to install, and waits for the lock.
        _installed = False
        if _open:
            _installed = True
            return
        for owner, namespace, attribute, original, wrapper in _places.values():
            # Where somebody else has patched on top of ours, theirs stays.
            if namespace.get(attribute) is wrapper:
                setattr(owner, attribute, original)


def _stack() -> None:
    """Put every patch in place where others have patched too: below theirs if ours is there still, else on top."""
    for patch, place in list(_places.items()):
        found = place.namespace.get(place.attribute)
        if found is not place.original and not _wraps(found, place.wrapper):
            place = _places[patch] = _made(patch, place.owner, place.attribute, found)
        if found is place.original:
            setattr(place.owner, place.attribute, place.wrapper)


def _prepare() -> None:
    """Find what is to be patched, once; what is imported later is found then."""
    import wrapt

    from trackdsl import mlflow_bridge
    from trackdsl.distributed._starters import hooks, patches

    mlflow_bridge.install()
    for name, hook in hooks().items():
        wrapt.register_post_import_hook(hook, name)
    _patches.extend(patches())
    for name in dict.fromkeys(patch.module for patch in _patches):
        module = sys.modules.get(name)
        if module is None:
            wrapt.register_post_import_hook(_on_import, name)
        else:
            _find(module)


def _on_import(module: ModuleType) -> None:
    with _lock.current:
        for place in _find(module):
            if _installed:
                setattr(place.owner, place.attribute, place.wrapper)


def _find(module: ModuleType) -> list[_Place]:
    """Note where the patches of a module go; another version of a library may lack the one or other."""
    import wrapt

    found = []
    for patch in _patches:
        if patch.module == module.__name__:
            with contextlib.suppress(AttributeError, KeyError):
                found_in, attribute, _ = wrapt.resolve_path(module, patch.name)
                # gevent puts a class of its own in the place of `Thread`, which inherits what is patched.
                classes = getattr(found_in, "__mro__", ())
                owner = next((each for each in classes if attribute in vars(each)), found_in)
                place = _places[patch] = _made(patch, owner, attribute, vars(owner)[attribute])
                found.append(place)
    return found


def _made(patch: Patch, owner: Any, attribute: str, original: Any) -> _Place:
    # What others have put there may be an object that has to be asked for by the class, to know its instance.
    called = original if type(original) is FunctionType else getattr(owner, attribute)
    wrapper = functools.wraps(original)(patch.wrapper(called))
    return _Place(owner, vars(owner), attribute, original, wrapper)


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
    global _installed, _installing
    _installed = _installing = False  # Another thread may have been at it: the next scope looks at every patch again.


def _reset() -> None:
    for holder in list(_open):
        closed(holder)


runtime.register("patches", Phase.SCOPES, after_fork=_after_fork, reset=_reset)
