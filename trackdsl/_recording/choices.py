"""What is wanted of returned values: what `track_returns` was told, and what the return annotation says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from trackdsl._core.suggest import suggestion_for
from trackdsl.handlers._annotations import Annotations
from trackdsl.handlers._marked_fields import Fields, own_markers, typed_dict_fields, value_markers

#: How many of the names that there were are listed beside one that there was not.
_MAX_LISTED = 10


@dataclass(frozen=True)
class Choices:
    """What `track_returns` was told.

    Attributes:
        function: the name of the function.
        names: of the returned values, in order.
        metrics: the only names to record as metrics, or None for all numbers.
        artifacts: the only names to record as files, or None for all the rest.
        paths: where those are to be, as far as it was said.
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
        """The choices as the user wrote them; a text is one name."""
        paths = dict(artifacts) if isinstance(artifacts, Mapping) else {}
        return cls(function, names, _as_set(metrics), _as_set(artifacts), paths)

    def is_chosen_metric(self, name: str, *, number: bool) -> bool:
        """Whether a value is to be a metric by its name, or, where it is a number, by that of a structure around it."""
        return self.metrics is not None and any(
            each in self.metrics for each in (with_outer(name) if number else [name])
        )

    def is_chosen_artifact(self, name: str) -> bool:
        """Whether a name is among those of the files."""
        return self.artifacts is not None and name in self.artifacts

    def is_chosen(self, name: str) -> bool:
        """Whether an option names a value."""
        return self.is_chosen_artifact(name) or (self.metrics is not None and name in self.metrics)

    def unmet(self, met: Collection[str], returned: str) -> dict[str, str]:
        """The names that no value had, each with the reason why nothing is recorded for it.

        Args:
            met: the names that values had.
            returned: how many values there were, for the reason; nothing where they were those of a mapping.
        """
        found = {}
        for option, names in (
            ("", self.names),
            ("(metrics=...)", sorted(self.metrics or ())),
            ("(artifacts=...)", sorted(self.artifacts or ())),
        ):
            for name in names:
                if name in met:
                    continue
                told = returned
                if option or not returned:
                    listed = ", ".join(list(dict.fromkeys(met))[:_MAX_LISTED]) or "nothing that has a name"
                    told = f"no such value{suggestion_for(name, met).text} Returned: {listed}"
                found[name] = f"@track_returns{option} names it, but {self.function}() returned {told}"
        return found


@dataclass(frozen=True)
class Expected:
    """What the annotation says of a returned value.

    Attributes:
        markers: what is to become of it.
        fields: those of a `TypedDict`, which the value itself does not tell.
        parts: the same for each value of a tuple.
    """

    markers: tuple[Any, ...] = ()
    fields: Fields | None = None
    parts: tuple[Expected, ...] = ()

    @classmethod
    def of(cls, annotations: Annotations, annotation: Any) -> Expected:
        """What one annotation says."""
        parts = annotations.tuple_parts(annotation)
        return cls(
            own_markers(annotations, annotation),
            typed_dict_fields(annotations, annotation),
            tuple(cls(value_markers(annotations, part), typed_dict_fields(annotations, part)) for part in parts),
        )

    def says_anything(self) -> bool:
        """Whether it changes how a value is recorded."""
        return bool(self.markers) or self.fields is not None or self.marks_parts()

    def marks_parts(self) -> bool:
        """Whether it says anything of the values of a tuple one by one."""
        return any(part.says_anything() for part in self.parts)

    def part(self, index: int) -> Expected:
        """What it says of one value of a tuple."""
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
