"""Annotations, read one by one for the markers in them: one that cannot be read must not lose those of the others.

A name that is not defined here, such as an import for type checkers alone, is stood in for, so that what is around it
is still found; of an annotation that cannot be evaluated at all, what its text names counts.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import re
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from trackdsl import markers
from trackdsl._core.redaction import remember
from trackdsl.handlers.json import MAX_LIST

_MARKERS: tuple[type, ...] = (
    markers.Param,
    markers.Metric,
    markers.Artifact,
    markers.Model,
    markers.Dataset,
    markers.Secret,
    markers.Ignore,
)
#: What says what is to become of a value.
_VALUE_MARKERS = _MARKERS[:-2]
_HIDING = {"Secret": markers.Secret, "Ignore": markers.Ignore}
#: What stands around an annotation and changes nothing about the value itself.
_TRANSPARENT = frozenset(["Union", "Optional", "Final", "ClassVar", "Required", "NotRequired", "ReadOnly"])
_MAX_DEPTH = 20
_MAX_CLASSES = 1000


class _Unknown:
    """Stands for what a name would mean that is not defined."""

    __slots__ = ("_trackdsl_name", "_trackdsl_parts")
    __iter__ = None  # It can be subscripted, and would otherwise be unpacked without end.

    def __init__(self, name: str, parts: tuple[Any, ...] = ()) -> None:
        self._trackdsl_name = name
        self._trackdsl_parts = parts

    def __getattr__(self, name: str) -> _Unknown:
        if name.startswith("__"):  # By these `typing` tells its own forms.
            raise AttributeError(name)
        return _Unknown(name)

    def __getitem__(self, parts: Any) -> _Unknown:
        return _Unknown(self._trackdsl_name, parts if type(parts) is tuple else (parts,))

    def __call__(self, *_: Any, **__: Any) -> _Unknown:
        return _Unknown(self._trackdsl_name)

    def __or__(self, other: Any) -> Any:
        return Union[self, other]  # noqa: UP007 - neither side may be a type

    def __ror__(self, other: Any) -> Any:
        return Union[other, self]  # noqa: UP007


class _Unread:
    """An annotation that cannot be evaluated."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Names(dict[str, Any]):
    """The names that annotations are evaluated with: those of several scopes, nearest first, then of Python."""

    def __init__(self, *scopes: Mapping[str, Any]) -> None:
        super().__init__()
        self._scopes = (*scopes, vars(builtins))
        self.missing: set[str] = set()
        #: Whether an annotation could not be evaluated, for another reason than a name that is missing.
        self.failed = False

    def __missing__(self, name: str) -> Any:
        for scope in self._scopes:
            if name in scope:
                return scope[name]
        self.missing.add(name)
        return _Unknown(name)

    def evaluated(self, annotation: Any) -> Any:
        """An annotation as what its text means."""
        if type(annotation) is typing.ForwardRef:
            annotation = annotation.__forward_arg__
        if type(annotation) is not str:
            return annotation
        try:
            return eval(annotation, {}, self)  # noqa: S307 - the annotation is the user's own code, as `typing` runs it
        except Exception:  # Whatever it raises, the function still runs.
            self.failed = True
            return _Unread(annotation)


class Annotations:
    """The annotations of one function or class.

    Args:
        found: the annotations as they stand, by name.
        scopes: where their names are looked up, nearest first.
    """

    def __init__(self, found: Mapping[str, Any], *scopes: Mapping[str, Any]) -> None:
        self._found = found
        self._names = _Names(*scopes)

    def get(self, name: str) -> Any:
        """One annotation, evaluated."""
        return self._names.evaluated(self._found.get(name))

    @property
    def missing(self) -> frozenset[str]:
        """The names that were asked for and are not defined (yet)."""
        return frozenset(self._names.missing)

    @property
    def failed(self) -> bool:
        """Whether an annotation that was asked for could not be evaluated, which may yet change."""
        return self._names.failed

    def markers(self, annotation: Any) -> tuple[Any, ...]:
        """The markers of an annotation, innermost first, also below `Optional`, `Final` and their like."""
        try:
            return tuple(self._walk(annotation, False, 0))
        except Exception:  # What the user has put there may raise whatever it is asked.
            return ()

    def hides(self, annotation: Any) -> tuple[bool, bool]:
        """Whether an annotation has `Secret` in it, and `Ignore`: also for items, such as those of a list."""
        try:
            found = list(self._walk(annotation, True, 0))
        except Exception:
            found = []
        return _has(found, markers.Secret), _has(found, markers.Ignore)

    def fields(self, annotation: Any) -> Fields | None:
        """The marked fields of a `TypedDict`, or of those in a list; None where there are none."""
        try:
            found = self._typed_dict(annotation, 0)
        except Exception:
            return None
        # Of one that is still being read, such as the class whose field this is, nobody can say.
        return found if found is not None and (not found._read or found.hide_anything()) else None

    def typed_dict(self, annotation: Any) -> Fields | None:
        """The fields of a `TypedDict`, marked or not; None for anything else."""
        annotation = self._names.evaluated(annotation)
        inner = (annotation, *map(self._names.evaluated, _inner(annotation, get_origin(annotation))))
        return next((fields_of(part) for part in inner if _is_typed_dict(part)), None)

    def unpacked(self, annotation: Any) -> tuple[type, ...]:
        """The `TypedDict` that an `Unpack` names."""
        annotation = self._names.evaluated(annotation)
        if getattr(get_origin(annotation), "_name", None) != "Unpack":
            return ()
        inner = tuple(self._names.evaluated(part) for part in get_args(annotation))
        return tuple(part for part in inner if _is_typed_dict(part))

    def tuple_parts(self, annotation: Any, depth: int = 0) -> tuple[Any, ...]:
        """The parts of an annotated tuple; nothing for what is none, or has any number of them."""
        annotation = self._names.evaluated(annotation)
        origin, args = get_origin(annotation), get_args(annotation)
        if origin is tuple:
            return () if Ellipsis in args else args
        inner = _inner(annotation, origin)
        found = (self.tuple_parts(part, depth + 1) for part in inner) if depth < _MAX_DEPTH else ()
        return next((parts for parts in found if parts), ())

    def _walk(self, annotation: Any, deep: bool, depth: int) -> Iterator[Any]:
        annotation = self._names.evaluated(annotation)
        if depth > _MAX_DEPTH:
            return
        if type(annotation) is not _Unknown and _marker_of(annotation) is not None:  # `-> Model` alone.
            yield annotation
            return
        if type(annotation) is _Unknown:
            for part in annotation._trackdsl_parts:
                marker = _marker_of(part)
                yield from self._walk(part, deep, depth + 1) if marker is None else [marker]
            return
        if type(annotation) is _Unread:
            yield from self._words(annotation.text, deep, depth)
            return
        origin = get_origin(annotation)
        inner = _inner(annotation, origin)
        if deep and not inner and not _is_apart(origin):
            inner = get_args(annotation)
            if not _is_listing(origin) and any(self.fields(part) for part in inner):
                yield markers.Secret  # Of a mapping of these, say, which are not looked into one by one.
        for part in inner:
            yield from self._walk(part, deep, depth + 1)
        if origin is Annotated:
            yield from filter(None, map(_marker_of, annotation.__metadata__))

    def item_markers(self, annotation: Any) -> tuple[Any, ...]:
        """The markers of the items of a list, or of the values of a dict."""
        try:
            return self._of_items(annotation, 0)
        except Exception:
            return ()

    def _of_items(self, annotation: Any, depth: int) -> tuple[Any, ...]:
        annotation = self._names.evaluated(annotation)
        origin, args = get_origin(annotation), get_args(annotation)
        inner = _inner(annotation, origin)
        if not inner and (_is_listing(origin) or _is_mapping(origin)) and (origin is not tuple or Ellipsis in args):
            inner = tuple(arg for arg in args if arg is not Ellipsis)[-1:]
        found = (tuple(self._walk(part, False, 0)) or self._of_items(part, depth + 1) for part in inner)
        return next(filter(None, found), ()) if depth < _MAX_DEPTH else ()

    def _words(self, text: str, deep: bool, depth: int) -> Iterator[Any]:
        for word in dict.fromkeys(re.findall(r"[^\W\d]\w*", text)):
            if word in _HIDING:
                yield _HIDING[word]
            else:
                meant = self._names[word]
                yield from self._walk(meant, deep, depth + 1) if _marker_of(meant) is None else [_marker_of(meant)]

    def _typed_dict(self, annotation: Any, depth: int) -> Fields | None:
        annotation = self._names.evaluated(annotation)
        if depth > _MAX_DEPTH:
            return None
        if _is_typed_dict(annotation):
            return fields_of(annotation)
        origin = get_origin(annotation)
        inner = _inner(annotation, origin) or (get_args(annotation) if _is_listing(origin) else ())
        return next(filter(None, (self._typed_dict(part, depth + 1) for part in inner)), None)


@dataclass(eq=False)
class Fields:
    """Which fields of a class are marked.

    Attributes:
        hidden: those that are `Secret`.
        ignored: those that are `Ignore`.
        typed: those that are a `TypedDict` which has such fields.
        marked: the other markers of fields, such as `Metric`.
        parts: those that are any `TypedDict`, whose markers a value does not tell.
    """

    hidden: set[str] = field(default_factory=set)
    ignored: set[str] = field(default_factory=set)
    typed: dict[str, Fields] = field(default_factory=dict)
    marked: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    parts: dict[str, Fields] = field(default_factory=dict)
    #: The names that were not defined, each with the module that may yet define it; whether something else failed.
    _awaited: list[tuple[Mapping[str, Any], str]] = field(default_factory=list, repr=False)
    _failed: bool = False
    _read: bool = False

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_awaited": []}  # Modules do not travel.

    def settled(self) -> bool:
        """Whether reading the annotations anew would tell the same."""
        return not self._failed and not any(name in scope for scope, name in self._awaited)

    def hide_anything(self, around: tuple[int, ...] = ()) -> bool:
        """Whether there is a marked field, here or further in."""
        if self.hidden or self.ignored:
            return True
        inside = (*around, id(self))
        return any(id(part) not in inside and part.hide_anything(inside) for part in self.typed.values())

    def conceal(self, value: Any, depth: int = 0) -> Any:
        """A dict without what is marked, and lists of such dicts: copies, whose other parts are the very same."""
        kind = type(value)
        if depth > _MAX_DEPTH or kind is list or kind is tuple:
            if depth > _MAX_DEPTH or len(value) > MAX_LIST:
                return f"{kind.__name__} of {len(value)}"
            return [self.conceal(item, depth + 1) for item in value]
        if not issubclass(kind, dict):
            return value
        return {
            name: remember(part) if name in self.hidden and part is not None
            else self.typed[name].conceal(part, depth + 1) if name in self.typed
            else part
            for name, part in dict.copy(value).items()
            if name not in self.ignored
        }  # fmt: skip


_fields: dict[type, Fields] = {}


class _Begun(threading.local):
    """The classes that this thread is reading: one may have fields of its own type."""

    def __init__(self) -> None:
        self.fields: dict[type, Fields] = {}


_begun = _Begun()


def fields_of(kind: type) -> Fields:
    """The marked fields of a class. What depends on a name that is not defined yet is asked for anew."""
    known = _fields.get(kind) or _begun.fields.get(kind)
    if known is not None and known.settled():
        return known
    outermost = not _begun.fields
    found = _begun.fields[kind] = Fields()
    try:
        for base in reversed(kind.__mro__):
            _read_class(found, base)
        found._read = True
    finally:
        if outermost:
            begun, _begun.fields = _begun.fields, {}
    if outermost:  # Nobody else is to see one that is half read.
        if len(_fields) >= _MAX_CLASSES:  # Of a program that makes classes all the time, none must be kept for ever.
            _fields.clear()
        _fields.update(begun)
    return found


def _read_class(found: Fields, base: type) -> None:
    raw = _annotations_of(base)
    if not raw:
        return
    module = vars(sys.modules.get(base.__module__, builtins))
    own = {**_type_parameters(base), base.__name__: base}
    annotations = Annotations(raw, own, module, vars(base))
    for name in raw:
        _read_field(found, annotations, name)
    found._awaited += [(module, name) for name in annotations.missing]
    found._failed |= annotations.failed


def _read_field(found: Fields, annotations: Annotations, name: str) -> None:
    annotation = annotations.get(name)
    hidden, ignored = annotations.hides(annotation)
    for chosen, where in ((hidden, found.hidden), (ignored, found.ignored)):
        if chosen:
            where.add(name)
        else:  # A class further down may have annotated it anew.
            where.discard(name)
    told: tuple[tuple[dict[str, Any], Any], ...] = (
        (found.typed, annotations.fields(annotation)),
        (found.parts, annotations.typed_dict(annotation)),
        (found.marked, () if hidden or ignored else value_markers(annotations, annotation)),
    )
    for known, of_field in told:
        known.pop(name, None)
        if of_field:
            known[name] = of_field


@dataclass(frozen=True)
class PartsMarked:
    """Stands among markers for those of the values of a tuple.

    Attributes:
        parts: the markers of each value.
    """

    parts: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class EachMarked:
    """Stands among markers for that of each item of a list, or each value of a dict.

    Attributes:
        marker: a marker, or its class.
    """

    marker: Any


def value_markers(annotations: Annotations, annotation: Any) -> tuple[Any, ...]:
    """What an annotation says is to become of a value: markers, or their classes where no name is given.

    One that is to be hidden is not recorded, whatever else it is marked with.
    """
    own = own_markers(annotations, annotation)
    if own and own[0] in (markers.Secret, markers.Ignore):
        return own
    parts = tuple(value_markers(annotations, part) for part in annotations.tuple_parts(annotation))
    return (*own, PartsMarked(parts)) if any(parts) else own


def own_markers(annotations: Annotations, annotation: Any) -> tuple[Any, ...]:
    """The same without what is said of the values of a tuple one by one."""
    parts = annotations.tuple_parts(annotation)
    hidden, ignored = (False, False) if parts else annotations.hides(annotation)
    if hidden or ignored:
        return (markers.Secret if hidden else markers.Ignore,)
    own = tuple(m for m in annotations.markers(annotation) if kind_of_marker(m) in _VALUE_MARKERS)
    # A list of numbers is one metric, and a list of files is kept by one path; a list of models is several.
    return own or tuple(
        EachMarked(m) if kind_of_marker(m) in (markers.Model, markers.Dataset) else m
        for m in annotations.item_markers(annotation)
        if kind_of_marker(m) in _VALUE_MARKERS
    )


def kind_of_marker(marker: Any) -> Any:
    """The class of a marker, which may stand for itself."""
    return marker if isinstance(marker, type) else type(marker)


def annotations_of(fn: Callable[..., Any]) -> Annotations:
    """The annotations of a function, or of what is called like one, with the names of where it is defined.

    While it is decorated, those include the locals of the functions and classes around it.
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not isinstance(fn, type) and not hasattr(fn, "__qualname__"):
        fn = type(fn).__call__
    inner = inspect.unwrap(fn)
    inner = getattr(inner, "__func__", inner)
    raw = _annotations_of(fn) or _annotations_of(inner)
    if not raw:
        return Annotations({})
    return Annotations(
        raw, _type_parameters(inner), _closure(inner), *_locals(inner), getattr(inner, "__globals__", {})
    )


def _closure(fn: Any) -> dict[str, Any]:
    found = {}
    names = getattr(getattr(fn, "__code__", None), "co_freevars", ())
    for name, cell in zip(names, getattr(fn, "__closure__", None) or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # Not assigned yet.
            continue
    return found


def _locals(fn: Any) -> Iterator[Mapping[str, Any]]:
    """The locals of the function and the classes that `fn` is written in, as far as they still run."""
    around = str(getattr(fn, "__qualname__", "")).split(".")[:-1]
    frame = decorating_frame() if around else None
    while frame is not None and frame.f_code.co_name in around:
        yield frame.f_locals
        frame = frame.f_back


def _type_parameters(owner: Any) -> dict[str, Any]:
    return {parameter.__name__: parameter for parameter in getattr(owner, "__type_params__", ())}


def _annotations_of(owner: Any) -> Mapping[str, Any]:
    try:
        if sys.version_info >= (3, 14):
            import annotationlib

            return annotationlib.get_annotations(owner, format=annotationlib.Format.FORWARDREF)
        return inspect.get_annotations(owner)
    except Exception:  # There is nothing that an object of the user's may not have under this name.
        return {}


def _inner(annotation: Any, origin: Any) -> tuple[Any, ...]:
    """What an annotation says of the value itself: the parts of a union, what is annotated, final, required."""
    if origin is Annotated:
        return (annotation.__origin__,)
    if origin is Union or origin is types.UnionType or getattr(origin, "_name", None) in _TRANSPARENT:
        return get_args(annotation)
    kind = type(annotation).__name__
    if kind == "TypeAliasType":
        return (annotation.__value__,)
    if kind == "NewType":
        return (annotation.__supertype__,)
    return (annotation.type,) if kind == "InitVar" else ()


def _marker_of(extra: Any) -> Any:
    """The marker that a part of `Annotated` is; by identity and type, as its `==` may do or say anything."""
    if type(extra) is _Unknown:
        return _HIDING.get(extra._trackdsl_name)
    if any(extra is kind for kind in _MARKERS) or issubclass(type(extra), _MARKERS):
        return extra
    return None


def _has(found: list[Any], marker: type) -> bool:
    return any(extra is marker or issubclass(type(extra), marker) for extra in found)


def _is_apart(origin: Any) -> bool:
    """Whether the arguments of a form say nothing of what the value holds."""
    apart = (Literal, type, get_origin(Callable[[], None]))
    return any(origin is form for form in apart) or getattr(origin, "_name", None) == "Unpack"


def _is_listing(origin: Any) -> bool:
    return (isinstance(origin, type) and issubclass(list, origin)) or origin is tuple


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(dict, origin)


def _is_typed_dict(kind: Any) -> bool:
    is_dict = isinstance(kind, type) and issubclass(kind, dict)
    return is_dict and hasattr(kind, "__required_keys__") and hasattr(kind, "__total__")


def decorating_frame() -> types.FrameType | None:
    """The frame, outside of this library, that a function is being decorated in."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "trackdsl":
        frame = frame.f_back
    return frame
