"""The registry behind `trackdsl.handlers`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol


class Handler(Protocol):
    """Writes values of some types to files.

    A handler must not change the value, must not keep it, and must write the whole of it before it returns.
    """

    #: The ending of the files it writes, with the dot.
    suffix: str

    def write(self, value: Any, path: Path) -> None:
        """Write `value` to the new file `path`.

        Raises:
            Exception: whatever goes wrong; it is recorded as an omission on the run.
        """


#: Full name of a type → where its handler lives (`module:attribute`), or the handler itself. Later entries win.
_by_name: dict[str, str | Handler] = {
    "object": "trackdsl.handlers.pickled:handler",
    "builtins.dict": "trackdsl.handlers.json:handler",
    "builtins.list": "trackdsl.handlers.json:handler",
    "builtins.tuple": "trackdsl.handlers.json:handler",
    "builtins.str": "trackdsl.handlers.text:handler",
    "builtins.bytes": "trackdsl.handlers.binary:handler",
    "pathlib.PurePath": "trackdsl.handlers.path:handler",
}
_cache: dict[type, Handler] = {}


def register_handler(type_name: type | str, handler: Handler) -> None:
    """Let `handler` write values of a type and its subclasses.

    Args:
        type_name: the type, or its full name (`polars.DataFrame`) where importing it early is not wanted.
        handler: see `Handler`.

    Example:
        >>> class Upper:
        ...     suffix = ".txt"
        ...     def write(self, value, path):
        ...         path.write_text(value.name.upper())
        >>> register_handler("shop.Customer", Upper())
    """
    name = type_name if isinstance(type_name, str) else _full_name(type_name)
    _by_name[name] = handler
    _cache.clear()


def handler_of(value: Any) -> Handler:
    """The handler for one value: its type's, unless that has an `accepts` which declines."""
    found = handler_for(type(value))
    accepts = getattr(found, "accepts", None)
    return found if accepts is None or accepts(value) else handler_for(object)


def handler_for(kind: type) -> Handler:
    """The handler for values of a type: that of the nearest base class which has one."""
    found = _cache.get(kind)
    if found is None:
        found = _cache[kind] = _resolve(kind)
    return found


def _resolve(kind: type) -> Handler:
    for base in kind.__mro__:
        entry = _by_name.get(_full_name(base))
        if entry is not None:
            return _load(entry)
    return _load(_by_name["object"])


def _load(entry: str | Handler) -> Handler:
    if not isinstance(entry, str):
        return entry
    module, _, attribute = entry.partition(":")
    loaded: Handler = getattr(importlib.import_module(module), attribute)
    return loaded


def _full_name(kind: type) -> str:
    # pathlib moved into a package in Python 3.13; its public name stays.
    module = "pathlib" if kind.__module__.startswith("pathlib") else kind.__module__
    return "object" if kind is object else f"{module}.{kind.__qualname__}"
