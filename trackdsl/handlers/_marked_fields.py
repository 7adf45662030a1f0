"""Markers on values and on the fields of classes: what is recorded of a value, and which fields are hidden."""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trackdsl import markers
from trackdsl._core import runtime
from trackdsl._core.redaction import remember
from trackdsl.handlers._annotation_names import raw_annotations, type_parameters
from trackdsl.handlers._annotations import Annotations
from trackdsl.handlers._plain import MAX_LIST

#: The markers that say how a value is recorded.
_VALUE_MARKERS = (markers.Param, markers.Metric, markers.Artifact, markers.Model, markers.Dataset)
_MAX_DEPTH = 20
_MAX_CLASSES = 1000


@dataclass(eq=False)
class Fields:
    """The marked fields of a class.

    Attributes:
        hidden: fields marked `Secret`.
        ignored: fields marked `Ignore`.
        typed: fields whose type is a `TypedDict` with hidden or ignored fields.
        marked: the other markers of fields, such as `Metric`.
        parts: fields whose type is any `TypedDict`. A dict at run time does not know its `TypedDict`.
    """

    hidden: set[str] = field(default_factory=set)
    ignored: set[str] = field(default_factory=set)
    typed: dict[str, Fields] = field(default_factory=dict)
    marked: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    parts: dict[str, Fields] = field(default_factory=dict)
    #: Names that were not defined, each with the namespace of the module that may define it later.
    _awaited: list[tuple[Mapping[str, Any], str]] = field(default_factory=list, repr=False)
    #: Whether an annotation could not be evaluated for another reason.
    _failed: bool = False
    #: Whether all fields have been read. A class may have a field of its own type.
    _read: bool = False

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_awaited": []}  # Namespaces of modules cannot be pickled.

    def settled(self) -> bool:
        """Whether reading the annotations again would give the same result."""
        return not self._failed and not any(name in scope for scope, name in self._awaited)

    def hide_anything(self, around: tuple[int, ...] = ()) -> bool:
        """Whether a field is hidden or ignored, here or in a nested `TypedDict`."""
        if self.hidden or self.ignored:
            return True
        inside = (*around, id(self))
        return any(id(part) not in inside and part.hide_anything(inside) for part in self.typed.values())

    def conceal(self, value: Any, depth: int = 0) -> Any:
        """A copy of a dict, or of a list of dicts, in which hidden fields are masked and ignored fields are left out.

        The remaining values are the same objects.
        """
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


_known: dict[type, Fields] = runtime.forgets_at_exit({})


class _BeingRead(threading.local):
    """The classes that this thread is reading. A class may have fields of its own type."""

    def __init__(self) -> None:
        self.fields: dict[type, Fields] = {}


_being_read = _BeingRead()


def fields_of(kind: type) -> Fields:
    """The marked fields of a class. The result is cached as soon as all names in its annotations are defined."""
    known = _known.get(kind) or _being_read.fields.get(kind)
    if known is not None and known.settled():
        return known
    outermost = not _being_read.fields
    fields = _being_read.fields[kind] = Fields()
    try:
        for base in reversed(kind.__mro__):
            _read_class(fields, base)
        fields._read = True
    finally:
        if outermost:
            complete, _being_read.fields = _being_read.fields, {}
    if outermost:  # Other threads must not see a class that is only partly read.
        if len(_known) >= _MAX_CLASSES:  # A program that creates classes all the time must not fill the memory.
            _known.clear()
        _known.update(complete)
    return fields


def _read_class(fields: Fields, base: type) -> None:
    raw = raw_annotations(base)
    if not raw:
        return
    module = vars(sys.modules.get(base.__module__, builtins))
    own = {**type_parameters(base), base.__name__: base}
    annotations = Annotations(raw, own, module, vars(base))
    for name in raw:
        _read_field(fields, annotations, name)
    fields._awaited += [(module, name) for name in annotations.missing]
    fields._failed |= annotations.failed


def _read_field(fields: Fields, annotations: Annotations, name: str) -> None:
    annotation = annotations.get(name)
    hidden, ignored = hides(annotations, annotation)
    for chosen, names in ((hidden, fields.hidden), (ignored, fields.ignored)):
        if chosen:
            names.add(name)
        else:  # A subclass may have annotated the field again.
            names.discard(name)
    read: tuple[tuple[dict[str, Any], Any], ...] = (
        (fields.typed, hiding_fields(annotations, annotation)),
        (fields.parts, typed_dict_fields(annotations, annotation)),
        (fields.marked, () if hidden or ignored else value_markers(annotations, annotation)),
    )
    for by_name, of_field in read:
        by_name.pop(name, None)
        if of_field:
            by_name[name] = of_field


def hides(annotations: Annotations, annotation: Any) -> tuple[bool, bool]:
    """Whether an annotation contains `Secret`, and whether it contains `Ignore`; also for items, as of a list."""
    inside = annotations.all_markers(annotation, lambda part: hiding_fields(annotations, part) is not None)
    return _contains(inside, markers.Secret), _contains(inside, markers.Ignore)


def hiding_fields(annotations: Annotations, annotation: Any) -> Fields | None:
    """The fields of a `TypedDict`, or of those in a list, if it hides any of them; else None."""
    try:
        kind = next(annotations.typed_dicts(annotation), None)
        fields = None if kind is None else fields_of(kind)
    except Exception:  # An object in the user's annotation may raise anything.
        return None
    # A class that is still being read may turn out to hide a field.
    return fields if fields is not None and (not fields._read or fields.hide_anything()) else None


def typed_dict_fields(annotations: Annotations, annotation: Any) -> Fields | None:
    """The fields of a `TypedDict`, marked or not; None for any other annotation."""
    kind = annotations.typed_dict(annotation)
    return None if kind is None else fields_of(kind)


@dataclass(frozen=True)
class PartsMarked:
    """An entry among the markers of a tuple, with the markers of its items.

    Attributes:
        parts: the markers of each item.
    """

    parts: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class EachMarked:
    """An entry among the markers of a list or dict, with a marker for each of its items.

    Attributes:
        marker: a marker, or its class.
    """

    marker: Any


def value_markers(annotations: Annotations, annotation: Any) -> tuple[Any, ...]:
    """The markers that say how a value is recorded; the class of a marker if it has no arguments.

    A value that is `Secret` or `Ignore` has only this marker.
    """
    own = own_markers(annotations, annotation)
    if own and own[0] in (markers.Secret, markers.Ignore):
        return own
    parts = tuple(value_markers(annotations, part) for part in annotations.tuple_parts(annotation))
    return (*own, PartsMarked(parts)) if any(parts) else own


def own_markers(annotations: Annotations, annotation: Any) -> tuple[Any, ...]:
    """The markers of a value as a whole, without those of the items of a tuple."""
    parts = annotations.tuple_parts(annotation)
    hidden, ignored = (False, False) if parts else hides(annotations, annotation)
    if hidden or ignored:
        return (markers.Secret if hidden else markers.Ignore,)
    own = tuple(m for m in annotations.markers(annotation) if kind_of_marker(m) in _VALUE_MARKERS)
    # A list of numbers becomes one metric, and a list of files one artifact. A list of models becomes several models.
    return own or tuple(
        EachMarked(m) if kind_of_marker(m) in (markers.Model, markers.Dataset) else m
        for m in annotations.item_markers(annotation)
        if kind_of_marker(m) in _VALUE_MARKERS
    )


def kind_of_marker(marker: Any) -> Any:
    """The class of a marker, which may be written without arguments, as in `Annotated[float, Metric]`."""
    return marker if isinstance(marker, type) else type(marker)


def _contains(extras: list[Any], marker: type) -> bool:
    return any(extra is marker or issubclass(type(extra), marker) for extra in extras)
