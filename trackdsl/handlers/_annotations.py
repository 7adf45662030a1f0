"""Find the markers in annotations.

Each annotation is read separately, so that one that cannot be read does not hide the markers of the others. If an
annotation cannot be evaluated, the names in its text count.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from trackdsl import markers
from trackdsl.handlers._annotation_names import (
    Names,
    UndefinedName,
    UnevaluatedText,
    closure_variables,
    enclosing_locals,
    raw_annotations,
    type_parameters,
)

_MARKERS: tuple[type, ...] = (
    markers.Param,
    markers.Metric,
    markers.Artifact,
    markers.Model,
    markers.Dataset,
    markers.Secret,
    markers.Ignore,
)
_HIDING_MARKERS = {"Secret": markers.Secret, "Ignore": markers.Ignore}
#: Forms around an annotation that do not change the value.
_TRANSPARENT = frozenset(["Union", "Optional", "Final", "ClassVar", "Required", "NotRequired", "ReadOnly"])
_MAX_DEPTH = 20


class Annotations:
    """The annotations of one function or class.

    Args:
        raw: the annotations as they are stored, by name.
        scopes: mappings in which their names are looked up, nearest first.
    """

    def __init__(self, raw: Mapping[str, Any], *scopes: Mapping[str, Any]) -> None:
        self._raw = raw
        self._names = Names(*scopes)

    def get(self, name: str) -> Any:
        """One annotation, evaluated."""
        return self._names.evaluated(self._raw.get(name))

    @property
    def missing(self) -> frozenset[str]:
        """The names that were looked up so far and are not defined (yet)."""
        return frozenset(self._names.missing)

    @property
    def failed(self) -> bool:
        """Whether an annotation that was read so far could not be evaluated. A later try may succeed."""
        return self._names.failed

    def markers(self, annotation: Any) -> tuple[Any, ...]:
        """The markers of an annotation, innermost first, also inside `Optional`, `Final` and similar forms."""
        try:
            return tuple(self._walk(annotation, None, 0))
        except Exception:  # An object in the user's annotation may raise anything.
            return ()

    def all_markers(self, annotation: Any, hides: Callable[[Any], bool]) -> list[Any]:
        """The markers of an annotation and of its items, such as those of a list.

        Args:
            annotation: any annotation.
            hides: whether an annotation inside a mapping has secret or ignored fields. If so, the whole value counts as
                secret.
        """
        try:
            return list(self._walk(annotation, hides, 0))
        except Exception:
            return []

    def item_markers(self, annotation: Any) -> tuple[Any, ...]:
        """The markers of the items of a list, or of the values of a dict."""
        try:
            return self._of_items(annotation, 0)
        except Exception:
            return ()

    def tuple_parts(self, annotation: Any, depth: int = 0) -> tuple[Any, ...]:
        """The annotations of the items of a tuple with a fixed length; empty for any other annotation."""
        annotation = self._names.evaluated(annotation)
        origin, args = get_origin(annotation), get_args(annotation)
        if origin is tuple:
            return () if Ellipsis in args else args
        inner = _inner(annotation, origin)
        parts_of_each = (self.tuple_parts(part, depth + 1) for part in inner) if depth < _MAX_DEPTH else ()
        return next((parts for parts in parts_of_each if parts), ())

    def typed_dict(self, annotation: Any) -> type | None:
        """The `TypedDict` of a value; None if the value is no such dict."""
        annotation = self._names.evaluated(annotation)
        inner = (annotation, *map(self._names.evaluated, _inner(annotation, get_origin(annotation))))
        return next(filter(_is_typed_dict, inner), None)

    def typed_dicts(self, annotation: Any, depth: int = 0) -> Iterator[type]:
        """The `TypedDict` classes of a value or of the items of a list, in the order in which they are written."""
        annotation = self._names.evaluated(annotation)
        if depth > _MAX_DEPTH:
            return
        if _is_typed_dict(annotation):
            yield annotation
            return
        origin = get_origin(annotation)
        for part in _inner(annotation, origin) or (get_args(annotation) if _is_listing(origin) else ()):
            yield from self.typed_dicts(part, depth + 1)

    def unpacked(self, annotation: Any) -> tuple[type, ...]:
        """The `TypedDict` inside an `Unpack`."""
        annotation = self._names.evaluated(annotation)
        if getattr(get_origin(annotation), "_name", None) != "Unpack":
            return ()
        return tuple(filter(_is_typed_dict, map(self._names.evaluated, get_args(annotation))))

    def _walk(self, annotation: Any, hides: Callable[[Any], bool] | None, depth: int) -> Iterator[Any]:
        """The markers of an annotation; with `hides`, also those of its items."""
        annotation = self._names.evaluated(annotation)
        if depth > _MAX_DEPTH:
            return
        if type(annotation) is UndefinedName:
            for part in annotation._trackdsl_parts:
                yield from self._walk_or_marker(part, hides, depth)
        elif _marker_of(annotation) is not None:  # A marker without `Annotated`, as in `-> Model`.
            yield annotation
        elif type(annotation) is UnevaluatedText:
            yield from self._in_text(annotation.text, hides, depth)
        else:
            yield from self._walk_form(annotation, hides, depth)

    def _walk_form(self, annotation: Any, hides: Callable[[Any], bool] | None, depth: int) -> Iterator[Any]:
        origin = get_origin(annotation)
        inner = _inner(annotation, origin)
        if hides is not None and not inner and not _is_unrelated(origin):
            inner = get_args(annotation)
            if not _is_listing(origin) and any(map(hides, inner)):
                yield markers.Secret  # The values of a mapping are not masked field by field.
        for part in inner:
            yield from self._walk(part, hides, depth + 1)
        if origin is Annotated:
            yield from filter(None, map(_marker_of, annotation.__metadata__))

    def _walk_or_marker(self, part: Any, hides: Callable[[Any], bool] | None, depth: int) -> Iterator[Any]:
        marker = _marker_of(part)
        yield from self._walk(part, hides, depth + 1) if marker is None else [marker]

    def _in_text(self, text: str, hides: Callable[[Any], bool] | None, depth: int) -> Iterator[Any]:
        """The markers that the text of an annotation names."""
        for name in dict.fromkeys(re.findall(r"[^\W\d]\w*", text)):
            if name in _HIDING_MARKERS:
                yield _HIDING_MARKERS[name]
            else:
                yield from self._walk_or_marker(self._names[name], hides, depth)

    def _of_items(self, annotation: Any, depth: int) -> tuple[Any, ...]:
        annotation = self._names.evaluated(annotation)
        origin, args = get_origin(annotation), get_args(annotation)
        inner = _inner(annotation, origin)
        if not inner and (_is_listing(origin) or _is_mapping(origin)) and (origin is not tuple or Ellipsis in args):
            inner = tuple(arg for arg in args if arg is not Ellipsis)[-1:]
        markers_of_each = (tuple(self._walk(part, None, 0)) or self._of_items(part, depth + 1) for part in inner)
        return next(filter(None, markers_of_each), ()) if depth < _MAX_DEPTH else ()


def annotations_of(fn: Callable[..., Any]) -> Annotations:
    """The annotations of a function or of another callable.

    Their names are looked up in the module and the closure of the function. During decoration, also in the local
    variables of the functions and classes around it.
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not isinstance(fn, type) and not hasattr(fn, "__qualname__"):
        fn = type(fn).__call__
    inner = inspect.unwrap(fn)
    inner = getattr(inner, "__func__", inner)
    raw = raw_annotations(fn) or raw_annotations(inner)
    if not raw:
        return Annotations({})
    scopes = [type_parameters(inner), closure_variables(inner), *enclosing_locals(inner)]
    return Annotations(raw, *scopes, getattr(inner, "__globals__", {}))


def _inner(annotation: Any, origin: Any) -> tuple[Any, ...]:
    """The annotations inside a form that describe the same value: the parts of a union, of `Annotated`, of `Final`."""
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
    """A part of `Annotated` if it is a marker, else None. A user's `==` may do anything, so it is never called."""
    if type(extra) is UndefinedName:
        return _HIDING_MARKERS.get(extra._trackdsl_name)
    if any(extra is kind for kind in _MARKERS) or issubclass(type(extra), _MARKERS):
        return extra
    return None


def _is_unrelated(origin: Any) -> bool:
    """Whether the arguments of a form do not describe parts of the value, such as those of `Callable`."""
    unrelated = (Literal, type, get_origin(Callable[[], None]))
    return any(origin is form for form in unrelated) or getattr(origin, "_name", None) == "Unpack"


def _is_listing(origin: Any) -> bool:
    return (isinstance(origin, type) and issubclass(list, origin)) or origin is tuple


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(dict, origin)


def _is_typed_dict(kind: Any) -> bool:
    is_dict = isinstance(kind, type) and issubclass(kind, dict)
    return is_dict and hasattr(kind, "__required_keys__") and hasattr(kind, "__total__")
