"""The registry: finds the handler for a type."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any

from trackdsl._core import runtime
from trackdsl.errors import OptionError, format_error, report, reraise_from_signal
from trackdsl.handlers._builtin_handlers import BUILTIN_HANDLERS, kinds_of
from trackdsl.handlers._handler import AdaptedHandler, Handler
from trackdsl.handlers._types import full_name

#: The group of entry points: full name of a type → `module:attribute` of its handler.
ENTRY_POINTS = "trackdsl.handlers"
#: Full name of a type → its handler, or `module:attribute` until the handler is needed.
_by_name: dict[str, str | Handler] = {**BUILTIN_HANDLERS}
_cache: dict[type, Handler] = runtime.forgets_at_exit({})
#: The key of `_by_name` under which the handler of a type was found. Artifacts store this key.
_names: dict[type, str] = runtime.forgets_at_exit({})
#: A program that creates classes all the time must not fill the memory.
_MAX_TYPES = 1000


def register_handler(type_name: type | str, handler: Any) -> None:
    """Record values of a type and of its subclasses with a handler of your own.

    Args:
        type_name: the type, or its full name (`polars.DataFrame`), which avoids importing it early.
        handler: a `Handler`, or any object that has a `suffix` and `write(value, path)`.

    Raises:
        OptionError: the handler has neither.

    Example:
        >>> from trackdsl.handlers import Handler
        >>> class Upper(Handler):
        ...     suffix = ".txt"
        ...     def write(self, value, path):
        ...         path.write_text(value.name.upper())
        >>> register_handler("shop.Customer", Upper())
    """
    if not isinstance(handler, Handler):
        if not callable(getattr(handler, "write", None)) or not isinstance(getattr(handler, "suffix", None), str):
            raise OptionError(
                f"register_handler({type_name!r}, ...) takes an object with a `suffix` and `write(value, path)`, such "
                "as a subclass of trackdsl.handlers.Handler.",
                option="handler",
            )
        handler = AdaptedHandler(handler)
    name = type_name if isinstance(type_name, str) else full_name(type_name)
    _by_name[name] = handler
    _cache.clear()
    _names.clear()


@functools.cache
def load_entry_points() -> None:
    """Register the handlers of other packages by name. Their modules are imported when a value needs them."""
    import importlib.metadata

    try:
        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
            _by_name.setdefault(entry.name, entry.value)
    except Exception as error:  # The metadata of an installed package is damaged. Decorators must work all the same.
        reraise_from_signal(error)
        report("handler", f"trackdsl cannot read which handlers the installed packages offer: {format_error(error)}")


def handler_of(value: Any) -> Handler:
    """The handler that can write a value: that of its type if it accepts the value, else the one that pickles."""
    handler = handler_for(type(value))
    try:
        accepted = handler.accepts(value)
    except Exception:
        accepted = False
    return handler if accepted else handler_for(object)


def handler_for(kind: type) -> Handler:
    """The handler for values of a type: that of the nearest base class that has one."""
    handler = _cache.get(kind)
    if handler is None:
        handler = _resolve(kind)
    return handler


def writer_for(value: Any, own: Handler, suffix: str) -> Handler | None:
    """The handler that writes a value in the format of a suffix; None if no handler can.

    Args:
        value: the value.
        own: the handler of the value.
        suffix: the suffix of the path that the user chose.
    """
    if not suffix or suffix == own.suffix or suffix in own.suffixes:
        return own
    typed = handler_for(type(value))
    # `own` differs if the handler of the type cannot write the value in its first format. Another format may do.
    if suffix in typed.suffixes:
        return typed
    if suffix in (".pkl", ".pickle"):
        return handler_for(object)
    if suffix == ".npz" and isinstance(value, Mapping) and value:  # Arrays by name.
        part = handler_for(type(next(iter(value.values()))))
        return part if suffix in part.suffixes else None
    return handler_for(str) if suffix == ".txt" else None


def name_of(handler: Handler, kind: type) -> str:
    """The name that an artifact stores for the handler that wrote a value of type `kind`."""
    for known in (kind, object, str, dict):
        if _cache.get(known) is handler:
            return _names[known]
    return next((_names[known] for known, cached in _cache.items() if cached is handler), "object")


def handler_named(name: str) -> Handler | None:
    """The handler for the name that an artifact stores; None if no such handler is registered here."""
    load_entry_points()
    entry = _by_name.get(name)
    return None if entry is None else _load(name, entry)


def _resolve(kind: type) -> Handler:
    load_entry_points()
    name = next((name for name in _candidates(kind) if name in _by_name), "object")
    try:
        handler = _load(name, _by_name[name])
    except Exception as error:  # A handler of another package cannot be imported. Its values are pickled instead.
        reraise_from_signal(error)
        report("handler", f"trackdsl cannot load the handler for {name}: {format_error(error)}", key=name)
        name, handler = "object", _load("object", _by_name["object"])
    if len(_cache) >= _MAX_TYPES:
        _cache.clear()
        _names.clear()
    _names[kind] = name
    _cache[kind] = handler
    return handler


def _candidates(kind: type) -> list[str]:
    """The names under which the handler of a type may be registered, nearest first.

    A kind such as `<dataclass>` comes after the classes of libraries and before Python's own.
    """
    names = [full_name(base) for base in kind.__mro__]
    own = [name for name in names if not name.startswith("builtins.")][:-1]
    builtin = [name for name in names if name.startswith("builtins.")]
    return [*own, *kinds_of(kind), *builtin]


def _load(name: str, entry: str | Handler) -> Handler:
    if isinstance(entry, Handler):
        return entry
    module, _, attribute = entry.partition(":")
    loaded = getattr(importlib.import_module(module), attribute or "handler")
    handler = _by_name[name] = loaded if isinstance(loaded, Handler) else AdaptedHandler(loaded)
    return handler
