"""The parts of a structure that JSON cannot hold: each becomes a file of its own, which a tag of the run names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from trackdsl._core.artifact_paths import masked_path
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import mask_prose
from trackdsl._recording.emit import append_tags, path_part
from trackdsl.errors import report
from trackdsl.handlers._handler import Scalar
from trackdsl.handlers._plain import summary_of
from trackdsl.handlers._registry import handler_of
from trackdsl.handlers._types import class_name

#: So many parts have a tag each; the others share one.
_MAX_TAGS = 20
#: So many parts become files; the others are described in one line.
_MAX_FILES = 1000


class OmittedParts:
    """What is left out of one file of JSON, gathered while that is made.

    Args:
        run: whose file it is.
        place: the path of the file.
        keep: keeps a value under a path, and returns where it is; None where values are only told in one line.

    Attributes:
        told: what is said of each part, by its place in the file.
    """

    def __init__(self, run: RunHandle, place: str, keep: Callable[[RunHandle, str, Any], str | None] | None) -> None:
        self.told: dict[str, str] = {}
        self._run = run
        self._place = masked_path(place)
        self._keep = keep
        self._taken: set[str] = set()

    def keep(self, path: tuple[str, ...], value: Any) -> Scalar:
        """Keep a part as a file; returns what stands in its place: the path of the file, of a pickle the class."""
        if self._keep is None:
            self.note(path, f"JSON cannot hold {class_name(value)}: it is described in one line")
            return summary_of(value)
        if len(self._taken) >= _MAX_FILES:
            self.note(path, f"JSON cannot hold {class_name(value)}: {_MAX_FILES} parts are kept already")
            return summary_of(value)
        handler = handler_of(value)
        kept = self._keep(self._run, self._free(path, handler.suffix), value)
        where = "it could not be kept" if kept is None else f"it is kept as {kept}"
        self.note(path, f"JSON cannot hold {class_name(value)}: {where}")
        return class_name(value) if kept is None or handler.executes else kept

    def note(self, path: tuple[str, ...], why: str) -> None:
        """Say why a part does not stand in the file as it is."""
        self.told["/".join(path)] = mask_prose(why)[:500]

    def write_tags(self) -> None:
        """Write what was noted to the run, and to the log once for each file."""
        if not self.told:
            return
        named = dict(list(self.told.items())[:_MAX_TAGS])
        tags = {f"trackdsl.omitted.{self._place}{path and f'/{path}'}": why for path, why in named.items()}
        if len(self.told) > len(named):
            tags[f"trackdsl.omitted.{self._place}"] = f"{len(self.told)} parts; the others: see {self._folder()}"
        append_tags(self._run, tags)
        path, why = next(iter(named.items()))
        more = f", and {len(self.told) - 1} more" if len(self.told) > 1 else ""
        report(
            "omitted", f"trackdsl: {self._place!r} does not hold {path or 'its value'!r}: {why}{more}", key=self._place
        )

    def _folder(self) -> str:
        return f"{self._place.removesuffix(PurePosixPath(self._place).suffix)}.parts"

    def _free(self, path: tuple[str, ...], suffix: str) -> str:
        place = "/".join([self._folder(), *map(path_part, path or ("value",))])
        free, count = f"{place}{suffix}", 1
        while free in self._taken:
            count += 1
            free = f"{place}-{count}{suffix}"
        self._taken.add(free)
        return free
