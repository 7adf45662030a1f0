"""Functions, classes and other callables: as parameters their names and the values inside them, as files pickles.

The values inside a callable are the arguments of a `partial`, the variables that a function captures, and the state of
the object that a method is bound to. Two callables that differ in these have different summaries.
"""

from __future__ import annotations

import functools
import linecache
import sys
import threading
import types
from collections.abc import Iterator, Mapping
from itertools import islice
from operator import itemgetter
from typing import Any

from trackdsl._core.redaction import is_secret, mask_items, mask_text, remember
from trackdsl._core.source_text import leave_pipe_unread
from trackdsl.handlers._handler import Scalar
from trackdsl.handlers._line import line_of
from trackdsl.handlers._pickled import Pickled
from trackdsl.handlers._plain import is_plain
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._types import class_name, is_mock
from trackdsl.handlers._value_digest import digest_of

#: The maximum length of the text of one argument or captured value, and of all of them together.
_MAX_PART = 300
_MAX_TEXT = 2000
#: How many positional and how many keyword arguments are shown.
_MAX_SHOWN = 50
#: How deeply callables may be nested in the arguments of others.
_MAX_DEPTH = 5
_MAX_SOURCE = 120
_MAX_ATTRIBUTES = 10
_PLAIN = frozenset([bool, int, float, str, type(None)])
#: The current nesting depth in this thread. Callables may contain each other.
_nesting = threading.local()
#: Modules in which the public name of a callable without a module is looked up, in this order.
_PUBLIC_MODULES = ("numpy", "scipy.special", "torch", "torch.nn.functional")
#: Attributes with the wrapped function in wrappers written in C and of just-in-time compilers.
_WRAPPED = ("__wrapped__", "py_func", "_torchdynamo_inline", "_torchdynamo_orig_callable", "pyfunc", "func")


class _Named(Pickled):
    named = True

    def content(self, value: Any) -> Any:
        return self.summary(value)


class _Function(_Named):
    def summary(self, value: Any) -> Scalar:
        return _named(value)


class _Partial(_Named):
    def summary(self, value: Any) -> Scalar:
        name = "partial" if isinstance(value, functools.partial) else "partialmethod"
        return _call(name, [_named(value.func), *_argument_texts(value.args, value.keywords, value.func)])


class _Getter(_Named):
    """`itemgetter`, `attrgetter` and `methodcaller`. Their arguments are read from how they are pickled."""

    def summary(self, value: Any) -> Scalar:
        kind, args, *_ = value.__reduce__()
        keywords: Mapping[str, Any] = {}
        if isinstance(kind, functools.partial):
            args, keywords = (*kind.args, *args), kind.keywords
        return _call(f"operator.{type(value).__name__}", _argument_texts(args, keywords, None))


class _Compiled(_Named):
    """Wrappers of functions that are not functions: of `lru_cache`, ufuncs, and of just-in-time compilers."""

    def summary(self, value: Any) -> Scalar:
        name = _own_name(value)
        if name is not None:
            return name
        inner = _wrapped(value)
        kind = type(value)
        shown = kind.__qualname__ if kind.__qualname__.startswith(f"{kind.__module__}.") else class_name(value)
        name = getattr(value, "name", None) if inner is None else _named(inner)
        return _call(shown, [name]) if isinstance(name, str) else shown


class _Scorer(_Named):
    """Scorers from `sklearn.metrics.make_scorer`."""

    def summary(self, value: Any) -> Scalar:
        parts = vars(value)
        keywords = dict(parts.get("_kwargs") or {})
        if parts.get("_sign", 1) < 0:
            keywords["greater_is_better"] = False
        if parts.get("_response_method", "predict") != "predict":
            keywords["response_method"] = parts["_response_method"]
        function = parts.get("_score_func")
        return (
            class_name(value)
            if function is None
            else _call("make_scorer", [_named(function), *_argument_texts((), keywords)])
        )


class _Distribution(_Named):
    """SciPy distributions with their parameters."""

    def summary(self, value: Any) -> Scalar:
        return _call(f"scipy.stats.{value.dist.name}", _argument_texts(value.args, value.kwds))


def _wrapped(value: Any) -> Any:
    """The function inside the wrapper of a library; None if there is none."""
    return next((inner for name in _WRAPPED if callable(inner := getattr(value, name, None))), None)


def _named(value: Any) -> str:
    """The name of any callable, with the values inside it."""
    depth = getattr(_nesting, "depth", 0)
    if depth > _MAX_DEPTH:
        return class_name(value)
    _nesting.depth = depth + 1
    try:
        if isinstance(value, types.MethodType):
            return _bound(value)
        if isinstance(value, types.FunctionType):
            return _function(value)
        if isinstance(value, type):
            return f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, (types.BuiltinFunctionType, types.MethodWrapperType)):
            return _builtin(value)
        name = _own_name(value) if isinstance(value, _DESCRIPTORS) else handler_for(type(value)).summary(value)
        return class_name(value) if name is None else str(name)
    finally:
        _nesting.depth = depth


_DESCRIPTORS = (types.MethodDescriptorType, types.WrapperDescriptorType)


def _function(value: types.FunctionType) -> str:
    name = f"{value.__module__}.{value.__qualname__}"
    if "<" not in value.__qualname__:
        return name
    if value.__name__ == "<lambda>":
        name = f"{name} ({_source(value.__code__)})"
    held = dict(_captured(value))
    return name if not held else f"{name} [{_joined(_argument_texts((), held))}]"


def _captured(value: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The values that an inner function takes from outside: its defaults, and the variables of enclosing functions."""
    code = value.__code__
    defaults = value.__defaults__ or ()
    yield from zip(code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount], defaults, strict=False)
    yield from (value.__kwdefaults__ or {}).items()
    for name, cell in sorted(zip(code.co_freevars, value.__closure__ or (), strict=False), key=itemgetter(0)):
        try:
            content = cell.cell_contents
        except ValueError:  # The variable has no value yet.
            continue
        if content is not value and name != "__class__":
            yield name, content


def _source(code: types.CodeType) -> str:
    """The source of a lambda that is on one line; else its line number and a digest of its code."""
    text = _segment(code)
    if text is None:
        constants = [constant for constant in code.co_consts if is_plain(constant)]
        return f"line {code.co_firstlineno}, digest {digest_of([code.co_code.hex(), code.co_names, constants])}"
    return mask_text(text if len(text) <= _MAX_SOURCE else f"{text[:_MAX_SOURCE]}…, digest {digest_of(text)}")


def _segment(code: Any) -> str | None:
    """The text of a lambda in its source line; None if it spans several lines or cannot be found."""
    positions = [position for position in code.co_positions() if None not in position and position[3] > 0]
    lines = {line for start, end, *_ in positions for line in (start, end)}
    if len(lines) != 1:
        return None
    leave_pipe_unread(code.co_filename)
    line = linecache.getline(code.co_filename, lines.pop()).encode()
    first, last = min(position[2] for position in positions), max(position[3] for position in positions)
    start = line.rfind(b"lambda", 0, first + len(b"lambda"))
    if start < 0:
        return None
    text = line[start:last].decode("utf-8", "replace")
    return text + ")" * max(0, text.count("(") - text.count(")"))


def _bound(value: types.MethodType) -> str:
    owner = value.__self__
    name = getattr(value, "__name__", None) or type(value.__func__).__name__
    if isinstance(owner, type):
        return f"{owner.__module__}.{owner.__qualname__}.{name}"
    return f"{class_name(owner)}.{name}{_state(owner)}"


def _builtin(value: Any) -> str:
    owner = getattr(value, "__self__", None)
    name = value.__name__
    if isinstance(owner, type):
        return f"{owner.__module__}.{owner.__qualname__}.{name}"
    if owner is not None and not isinstance(owner, types.ModuleType):
        return f"{class_name(owner)}.{name}{_state(owner)}"
    return _own_name(value) or class_name(value)


def _state(owner: Any) -> str:
    """The summary of the object that a method is bound to, without its class."""
    if handler_for(type(owner)) is handler_for(object):
        return attributes_of(owner)
    return f" [self={line_of(owner, _MAX_PART)[0]}]"


def attributes_of(value: Any) -> str:
    """The attributes of an object of an unknown type that are numbers, texts, arrays or functions.

    The result is empty if there are more than `_MAX_ATTRIBUTES`.
    """
    kind = type(value)
    if is_mock(kind):
        return ""
    try:
        held = dict(object.__getattribute__(value, "__dict__"))
    except AttributeError:
        held = {}
    for base in kind.__mro__:
        for name in _slots_of(base):
            if isinstance(vars(base).get(name), types.MemberDescriptorType) and hasattr(value, name):
                held.setdefault(name, getattr(value, name))
    plain = {name: item for name, item in held.items() if not name.startswith("__") and _is_plain(item)}
    return f" [{_joined(_argument_texts((), plain))}]" if 0 < len(plain) <= _MAX_ATTRIBUTES else ""


def _slots_of(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind in (list, tuple):
        return len(value) <= _MAX_ATTRIBUTES and all(type(item) in _PLAIN for item in value)
    handler = handler_for(kind)
    return handler.named or handler.is_text or kind.__name__ == "ndarray"


def _own_name(value: Any) -> str | None:
    """The full name of a callable from its own attributes; None if it has no name."""
    module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    name = getattr(value, "__name__", None)
    if isinstance(name, str):
        modules = [module] if isinstance(module, str) else []
        for known_in in (*modules, *_PUBLIC_MODULES):
            if getattr(sys.modules.get(known_in), name, None) is value:
                return f"{known_in}.{name}"
    if not isinstance(qualname, str) or qualname.rpartition(".")[2] == type(value).__name__:
        return None
    return f"{module}.{qualname}" if isinstance(module, str) else qualname


def _argument_texts(args: tuple[Any, ...], keywords: Mapping[str, Any], function: Any = None) -> list[str]:
    """The arguments of a call as text, with secrets masked."""
    code = getattr(function, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if isinstance(code, types.CodeType) else ()
    shown = [
        remember(value) if index < len(names) and is_secret(names[index], value) else value
        for index, value in enumerate(mask_items(args[:_MAX_SHOWN]))
    ]
    texts = [line_of(value, _MAX_PART)[0] for value in shown]
    for name, value in islice(keywords.items(), _MAX_SHOWN):
        texts.append(f"{name}={line_of(remember(value) if is_secret(name, value) else value, _MAX_PART)[0]}")
    if len(args) > _MAX_SHOWN or len(keywords) > _MAX_SHOWN:
        texts.append(f"… {len(args) + len(keywords)} in all, digest {digest_of([args, dict(keywords)])}")
    return texts


def _joined(texts: list[str]) -> str:
    text = ", ".join(texts)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…, digest {digest_of(text)}"


def _call(name: str, arguments: list[str]) -> str:
    return f"{name}({_joined(arguments)})"


handler = _Function()
partial = _Partial()
getter = _Getter()
compiled = _Compiled()
scorer = _Scorer()
distribution = _Distribution()
