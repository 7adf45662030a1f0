"""Functions, classes and other callables: as parameters by their names and what they carry, pickled as return values.

What they carry is the arguments of a `partial`, the values that a function has captured, and the state of the object
that a method is bound to: two that differ in these read differently.
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
from trackdsl.handlers._handler import Scalar
from trackdsl.handlers._line import line_of
from trackdsl.handlers._pickled import Pickled
from trackdsl.handlers._plain import is_plain
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._types import class_name, is_mock
from trackdsl.handlers._value_digest import digest_of

#: The longest text of one argument or captured value, and of all together.
_MAX_PART = 300
_MAX_TEXT = 2000
#: So many arguments of each sort are shown.
_MAX_GIVEN = 50
#: So many functions may be in one another's arguments.
_MAX_DEPTH = 5
_MAX_SOURCE = 120
_MAX_ATTRIBUTES = 10
_PLAIN = frozenset([bool, int, float, str, type(None)])
#: How many functions are just being named, one in another's arguments: they may hold each other.
_within = threading.local()
#: Where what has no module is known from, in this order.
_PUBLIC = ("numpy", "scipy.special", "torch", "torch.nn.functional")
#: Attributes by which wrappers written in C, and of just-in-time compilers, tell what they wrap.
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
        word = "partial" if isinstance(value, functools.partial) else "partialmethod"
        return _call(word, [_named(value.func), *_given(value.args, value.keywords, value.func)])


class _Getter(_Named):
    """`itemgetter`, `attrgetter` and `methodcaller`: they tell their arguments as they are pickled."""

    def summary(self, value: Any) -> Scalar:
        kind, args, *_ = value.__reduce__()
        keywords: Mapping[str, Any] = {}
        if isinstance(kind, functools.partial):
            args, keywords = (*kind.args, *args), kind.keywords
        return _call(f"operator.{type(value).__name__}", _given(args, keywords, None))


class _Compiled(_Named):
    """Functions with a wrapper that is no function: `lru_cache`, ufuncs, and those of just-in-time compilers."""

    def summary(self, value: Any) -> Scalar:
        name = _own_name(value)
        if name is not None:
            return name
        inner = _wrapped(value)
        kind = type(value)
        shown = kind.__qualname__ if kind.__qualname__.startswith(f"{kind.__module__}.") else class_name(value)
        told = getattr(value, "name", None) if inner is None else _named(inner)
        return _call(shown, [told]) if isinstance(told, str) else shown


class _Scorer(_Named):
    """What `sklearn.metrics.make_scorer` makes."""

    def summary(self, value: Any) -> Scalar:
        parts = vars(value)
        keywords = dict(parts.get("_kwargs") or {})
        if parts.get("_sign", 1) < 0:
            keywords["greater_is_better"] = False
        if parts.get("_response_method", "predict") != "predict":
            keywords["response_method"] = parts["_response_method"]
        function = parts.get("_score_func")
        return (
            class_name(value) if function is None else _call("make_scorer", [_named(function), *_given((), keywords)])
        )


class _Distribution(_Named):
    """A distribution of SciPy's with its parameters."""

    def summary(self, value: Any) -> Scalar:
        return _call(f"scipy.stats.{value.dist.name}", _given(value.args, value.kwds))


def _wrapped(value: Any) -> Any:
    """The function inside a wrapper of a library's; None where there is none."""
    return next((inner for name in _WRAPPED if callable(inner := getattr(value, name, None))), None)


def _named(value: Any) -> str:
    """The name of any callable, with what it carries."""
    depth = getattr(_within, "depth", 0)
    if depth > _MAX_DEPTH:
        return class_name(value)
    _within.depth = depth + 1
    try:
        if isinstance(value, types.MethodType):
            return _bound(value)
        if isinstance(value, types.FunctionType):
            return _function(value)
        if isinstance(value, type):
            return f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, (types.BuiltinFunctionType, types.MethodWrapperType)):
            return _builtin(value)
        told = _own_name(value) if isinstance(value, _DESCRIPTORS) else handler_for(type(value)).summary(value)
        return class_name(value) if told is None else str(told)
    finally:
        _within.depth = depth


_DESCRIPTORS = (types.MethodDescriptorType, types.WrapperDescriptorType)


def _function(value: types.FunctionType) -> str:
    name = f"{value.__module__}.{value.__qualname__}"
    if "<" not in value.__qualname__:
        return name
    if value.__name__ == "<lambda>":
        name = f"{name} ({_source(value.__code__)})"
    held = dict(_captured(value))
    return name if not held else f"{name} [{_joined(_given((), held))}]"


def _captured(value: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function inside another one has of its surroundings: as defaults, and as variables from there."""
    code = value.__code__
    defaults = value.__defaults__ or ()
    yield from zip(code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount], defaults, strict=False)
    yield from (value.__kwdefaults__ or {}).items()
    for name, cell in sorted(zip(code.co_freevars, value.__closure__ or (), strict=False), key=itemgetter(0)):
        try:
            content = cell.cell_contents
        except ValueError:  # It has no value yet.
            continue
        if content is not value and name != "__class__":
            yield name, content


def _source(code: types.CodeType) -> str:
    """The source of a lambda where it is on one line, else that line; the code tells those of one line apart."""
    text = _segment(code)
    if text is None:
        constants = [constant for constant in code.co_consts if is_plain(constant)]
        return f"line {code.co_firstlineno}, digest {digest_of([code.co_code.hex(), code.co_names, constants])}"
    return mask_text(text if len(text) <= _MAX_SOURCE else f"{text[:_MAX_SOURCE]}…, digest {digest_of(text)}")


def _segment(code: Any) -> str | None:
    places = [place for place in code.co_positions() if None not in place and place[3] > 0]
    lines = {line for start, end, *_ in places for line in (start, end)}
    if len(lines) != 1:
        return None
    line = linecache.getline(code.co_filename, lines.pop()).encode()
    first, last = min(place[2] for place in places), max(place[3] for place in places)
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
    """What is told of the object that a method is bound to, beside its class."""
    if handler_for(type(owner)) is handler_for(object):
        return attributes_of(owner)
    return f" [self={line_of(owner, _MAX_PART)[0]}]"


def attributes_of(value: Any) -> str:
    """What an object of an unknown type was made with, as far as that is numbers, text, arrays, functions and the like.

    Nothing where it has so many attributes that it rather is a small program.
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
    return f" [{_joined(_given((), plain))}]" if 0 < len(plain) <= _MAX_ATTRIBUTES else ""


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
    """The full name that a callable has itself; None for one that has none."""
    module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    name = getattr(value, "__name__", None)
    if isinstance(name, str):
        places = [module] if isinstance(module, str) else []
        for place in (*places, *_PUBLIC):
            if getattr(sys.modules.get(place), name, None) is value:
                return f"{place}.{name}"
    if not isinstance(qualname, str) or qualname.rpartition(".")[2] == type(value).__name__:
        return None
    return f"{module}.{qualname}" if isinstance(module, str) else qualname


def _given(args: tuple[Any, ...], keywords: Mapping[str, Any], function: Any = None) -> list[str]:
    """Arguments as they would be written, without the secrets among them."""
    code = getattr(function, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if isinstance(code, types.CodeType) else ()
    shown = [
        remember(value) if index < len(names) and is_secret(names[index], value) else value
        for index, value in enumerate(mask_items(args[:_MAX_GIVEN]))
    ]
    words = [line_of(value, _MAX_PART)[0] for value in shown]
    for name, value in islice(keywords.items(), _MAX_GIVEN):
        words.append(f"{name}={line_of(remember(value) if is_secret(name, value) else value, _MAX_PART)[0]}")
    if len(args) > _MAX_GIVEN or len(keywords) > _MAX_GIVEN:
        words.append(f"… {len(args) + len(keywords)} in all, digest {digest_of([args, dict(keywords)])}")
    return words


def _joined(words: list[str]) -> str:
    text = ", ".join(words)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…, digest {digest_of(text)}"


def _call(name: str, words: list[str]) -> str:
    return f"{name}({_joined(words)})"


handler = _Function()
partial = _Partial()
getter = _Getter()
compiled = _Compiled()
scorer = _Scorer()
distribution = _Distribution()
