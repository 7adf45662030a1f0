"""Evaluate annotations, also those with names that are not defined.

A name may be missing, for example because it is imported for type checkers only. It gets a placeholder, so that the
markers around it are still found.
"""

from __future__ import annotations

import builtins
import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Union


class UndefinedName:
    """A placeholder for a name that is not defined."""

    __slots__ = ("_trackdsl_name", "_trackdsl_parts")
    __iter__ = None  # An object with `__getitem__` could otherwise be iterated without end.

    def __init__(self, name: str, parts: tuple[Any, ...] = ()) -> None:
        self._trackdsl_name = name
        self._trackdsl_parts = parts

    def __getattr__(self, name: str) -> UndefinedName:
        if name.startswith("__"):  # `typing` recognizes its own forms by such attributes.
            raise AttributeError(name)
        return UndefinedName(name)

    def __getitem__(self, parts: Any) -> UndefinedName:
        return UndefinedName(self._trackdsl_name, parts if type(parts) is tuple else (parts,))

    def __call__(self, *_: Any, **__: Any) -> UndefinedName:
        return UndefinedName(self._trackdsl_name)

    def __or__(self, other: Any) -> Any:
        return Union[self, other]  # noqa: UP007 - neither side may be a type

    def __ror__(self, other: Any) -> Any:
        return Union[other, self]  # noqa: UP007


class UnevaluatedText:
    """The text of an annotation that raised an error when it was evaluated."""

    def __init__(self, text: str) -> None:
        self.text = text


class Names(dict[str, Any]):
    """The namespace for the evaluation of annotations.

    Args:
        scopes: mappings in which names are looked up, nearest first. Python's builtins come last.

    Attributes:
        missing: the names that were looked up and not found.
        failed: whether an annotation could not be evaluated for another reason than a missing name.
    """

    def __init__(self, *scopes: Mapping[str, Any]) -> None:
        super().__init__()
        self._scopes = (*scopes, vars(builtins))
        self.missing: set[str] = set()
        self.failed = False

    def __missing__(self, name: str) -> Any:
        for scope in self._scopes:
            if name in scope:
                return scope[name]
        self.missing.add(name)
        return UndefinedName(name)

    def evaluated(self, annotation: Any) -> Any:
        """The object that an annotation names, if it is text; else the annotation itself."""
        if type(annotation) is typing.ForwardRef:
            annotation = annotation.__forward_arg__
        if type(annotation) is not str:
            return annotation
        try:
            return eval(annotation, {}, self)  # noqa: S307 - the annotation is the user's own code, as `typing` runs it
        except Exception:  # An annotation may raise anything. The decorated function must run all the same.
            self.failed = True
            return UnevaluatedText(annotation)


def raw_annotations(owner: Any) -> Mapping[str, Any]:
    """The annotations of a function or class as they are stored; empty if they cannot be read."""
    try:
        if sys.version_info >= (3, 14):
            import annotationlib

            return annotationlib.get_annotations(owner, format=annotationlib.Format.FORWARDREF)
        return inspect.get_annotations(owner)
    except Exception:  # A user's object may have anything under the name `__annotations__`.
        return {}


def type_parameters(owner: Any) -> dict[str, Any]:
    """The type parameters of a function or class, such as `T` in `def f[T](x: T)`, by name."""
    return {parameter.__name__: parameter for parameter in getattr(owner, "__type_params__", ())}


def closure_variables(fn: Any) -> dict[str, Any]:
    """The variables of enclosing functions that a function uses, by name."""
    variables = {}
    names = getattr(getattr(fn, "__code__", None), "co_freevars", ())
    for name, cell in zip(names, getattr(fn, "__closure__", None) or (), strict=False):
        try:
            variables[name] = cell.cell_contents
        except ValueError:  # The variable has no value yet.
            continue
    return variables


def enclosing_locals(fn: Any) -> Iterator[Mapping[str, Any]]:
    """The local variables of the functions and classes around `fn`, as long as these still run."""
    around = str(getattr(fn, "__qualname__", "")).split(".")[:-1]
    frame = decorating_frame() if around else None
    while frame is not None and frame.f_code.co_name in around:
        yield frame.f_locals
        frame = frame.f_back


def decorating_frame() -> types.FrameType | None:
    """The user's frame in which a function is being decorated."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "trackdsl":
        frame = frame.f_back
    return frame
