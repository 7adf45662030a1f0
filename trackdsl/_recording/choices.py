"""How returned values are to be recorded: the options of `track_returns`, and the return annotation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from trackdsl._core.suggest import suggestion_for
from trackdsl.handlers._annotations import Annotations
from trackdsl.handlers._marked_fields import Fields, own_markers, typed_dict_fields, value_markers

#: At most this many existing names are listed in the message about a missing one.
_MAX_LISTED = 10


@dataclass(frozen=True)
class Choices:
    """The options of `track_returns`.

    Attributes:
        function: the name of the function.
        names: the names of the returned values, in order.
        metrics: the only names to record as metrics, or None for all numbers.
        artifacts: the only names to record as files, or None for all other values.
        paths: name → path of the file, where the user gave one.
    """

    function: str
    names: tuple[str, ...] = ()
    metrics: frozenset[str] | None = None
    artifacts: frozenset[str] | None = None
    paths: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        function: str,
        names: tuple[str, ...],
        metrics: Collection[str] | None,
        artifacts: Collection[str] | Mapping[str, str] | None,
    ) -> Choices:
        """The options as the user wrote them. A text is one name."""
        paths = dict(artifacts) if isinstance(artifacts, Mapping) else {}
        return cls(function, names, _as_set(metrics), _as_set(artifacts), paths)

    def is_chosen_metric(self, name: str, *, number: bool) -> bool:
        """Whether `metrics` contains the name of a value, or for a number the name of a structure around it."""
        return self.metrics is not None and any(
            each in self.metrics for each in (with_outer(name) if number else [name])
        )

    def is_chosen_artifact(self, name: str) -> bool:
        """Whether `artifacts` contains a name."""
        return self.artifacts is not None and name in self.artifacts

    def is_chosen(self, name: str) -> bool:
        """Whether one of the options contains a name."""
        return self.is_chosen_artifact(name) or (self.metrics is not None and name in self.metrics)

    def missing(self, known: Collection[str], returned: str) -> dict[str, str]:
        """The names without a value, each with the reason why nothing is recorded for it.

        Args:
            known: the names of the returned values.
            returned: the number of returned values, for the reason; empty for the values of a mapping.
        """
        found = {}
        for option, names in (
            ("", self.names),
            ("(metrics=...)", sorted(self.metrics or ())),
            ("(artifacts=...)", sorted(self.artifacts or ())),
        ):
            for name in names:
                if name in known:
                    continue
                result = returned
                if option or not returned:
                    listed = ", ".join(list(dict.fromkeys(known))[:_MAX_LISTED]) or "nothing that has a name"
                    result = f"no such value{suggestion_for(name, known).text} Returned: {listed}"
                found[name] = f"@track_returns{option} names it, but {self.function}() returned {result}"
        return found


@dataclass(frozen=True)
class Expected:
    """The annotation of a returned value.

    Attributes:
        markers: its markers.
        fields: the fields of a `TypedDict`, which the value itself does not have.
        parts: the annotation of each value of a tuple.
    """

    markers: tuple[Any, ...] = ()
    fields: Fields | None = None
    parts: tuple[Expected, ...] = ()

    @classmethod
    def of(cls, annotations: Annotations, annotation: Any) -> Expected:
        """Read one annotation."""
        parts = annotations.tuple_parts(annotation)
        return cls(
            own_markers(annotations, annotation),
            typed_dict_fields(annotations, annotation),
            tuple(cls(value_markers(annotations, part), typed_dict_fields(annotations, part)) for part in parts),
        )

    def has_effect(self) -> bool:
        """Whether the annotation changes how a value is recorded."""
        return bool(self.markers) or self.fields is not None or self.marks_parts()

    def marks_parts(self) -> bool:
        """Whether the annotation changes how the values of a tuple are recorded."""
        return any(part.has_effect() for part in self.parts)

    def part(self, index: int) -> Expected:
        """The annotation of one value of a tuple."""
        return self.parts[index] if index < len(self.parts) else _NOTHING


_NOTHING = Expected()


def with_outer(name: str) -> list[str]:
    """A name and those of the structures around it: `a/b`, `a`."""
    found = [name]
    while "/" in name:
        name = name.rpartition("/")[0]
        found.append(name)
    return found


def _as_set(names: Collection[str] | None) -> frozenset[str] | None:
    if names is None:
        return None
    return frozenset([names] if isinstance(names, str) else names)
