"""`Handler`, the base class of all handlers, and the types of what its methods return."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trackdsl.handlers._types import class_name

if TYPE_CHECKING:
    from trackdsl.handlers._dataset import DatasetProfile
    from trackdsl.handlers._flavor import Flavor

Scalar = bool | int | float | str | None

#: `Handler.content` returns this if JSON cannot hold the value, so that it needs a file of its own.
NEEDS_OWN_FILE: Any = object()

#: An array or frame with more cells than this needs a file of its own.
MAX_CELLS = 100_000


class Placeholder(str):
    """A text that replaces a value which was not read or cannot be read.

    Args:
        text: describes the value: `???`, or a type and a shape.
        why: the reason.
        missing: whether a parameter with this value is reported as omitted.
    """

    why: str
    missing: bool

    def __new__(cls, text: str, why: str, *, missing: bool = True) -> Placeholder:
        placeholder = super().__new__(cls, text)
        placeholder.why, placeholder.missing = why, missing
        return placeholder


class Handler:
    """How trackdsl records values of some types. Subclass it and override what differs.

    A handler must not change the value and must not keep a reference to it.

    Attributes:
        suffix: the suffix of the files that it writes, with the dot.
        suffixes: other suffixes that `write` accepts, for a path that the user chose.
        executes: whether reading a file may run code in it, so that loading needs `trusted=True`.
        model: whether values are recorded as MLflow models by default.
        listed: whether values are lists of another type. `content` returns the items.
        named: whether `content` returns only a name, so that the value itself cannot be restored from it.
        save_options: the options of `save_model` by name, each with its possible values; empty if any value is allowed.
        refers: whether values refer to a model that is already at MLflow.
        is_text: whether the summary is the whole value as text. Such a summary is quoted in a list.

    Example:
        >>> class Upper(Handler):
        ...     suffix = ".txt"
        ...     def write(self, value, path):
        ...         path.write_text(value.name.upper())
        ...     def read(self, path):
        ...         return path.read_text()
    """

    suffix: str = ".pkl"
    suffixes: tuple[str, ...] = ()
    executes: bool = False
    model: bool = False
    listed: bool = False
    named: bool = False
    save_options: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    refers: bool = False
    is_text: bool = False

    def accepts(self, value: Any) -> bool:
        """Whether `write` can store the whole value. If not, the value is pickled."""
        return True

    def children(self, value: Any) -> Mapping[Any, Any] | None:
        """The parts of a structure by name, each of which becomes a parameter; None if the value has no parts."""
        return None

    def content(self, value: Any) -> Any:
        """The whole value for a JSON file: a dict, a list or a plain value, with items of any type.

        Returns:
            `NEEDS_OWN_FILE` if JSON cannot hold the value.
        """
        parts = self.children(value)
        return NEEDS_OWN_FILE if parts is None else parts

    def summary(self, value: Any) -> Scalar:
        """The value as a parameter: a number or one line of text. Never its `repr`, which may be huge."""
        return class_name(value)

    def write(self, value: Any, path: Path) -> None:
        """Write `value` to the new file `path`, whose suffix is one of the handler's.

        Raises:
            Exception: any error; trackdsl records it on the run.
        """
        raise NotImplementedError(f"{type(self).__name__} writes no files")

    def read(self, path: Path) -> Any:
        """Read a value that `write` has written."""
        raise NotImplementedError(f"{type(self).__name__} reads no files")

    def dataset(self, value: Any) -> DatasetProfile | None:
        """Digest, schema and size for an MLflow dataset input; None if the value is not data."""
        return None

    def dataset_of_parts(self, parts: Mapping[Any, Any]) -> DatasetProfile | None:
        """The dataset input for a dict of values, all of which this handler handles; None if they are not tensors."""
        return None

    def save_model(self, value: Any, folder: Path) -> Flavor | None:
        """Write the files of a model to `folder` in the format of an MLflow flavour; None if it is not a model."""
        return None


class AdaptedHandler(Handler):
    """A handler made from an object that has only some of the methods and attributes of a handler.

    Args:
        handler: an object with a `suffix` and `write(value, path)`.
    """

    def __init__(self, handler: Any) -> None:
        for name in _MEMBERS:
            if hasattr(handler, name):
                setattr(self, name, getattr(handler, name))


_MEMBERS = ("suffix", "suffixes", "executes", "model", "listed", "named", "is_text", "accepts", "children", "content",
            "summary", "write", "read", "dataset", "dataset_of_parts", "save_model")  # fmt: skip
