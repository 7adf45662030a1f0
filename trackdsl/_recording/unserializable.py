"""The parts of a structure that JSON cannot hold. Each becomes a file of its own, which a tag of the run names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from trackdsl._core.artifact_paths import masked_path
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import mask_prose
from trackdsl._recording.emit import append_tags
from trackdsl._recording.params import path_part
from trackdsl.errors import report
from trackdsl.handlers._handler import Scalar
from trackdsl.handlers._plain import summary_of
from trackdsl.handlers._registry import handler_of
from trackdsl.handlers._types import class_name

#: At most this many parts have a tag of their own; the others share one.
_MAX_TAGS = 20
#: At most this many parts become files; the others are described in one line.
_MAX_FILES = 1000


class OmittedParts:
    """The parts that one JSON file does not contain, collected while it is made.

    Args:
        run: whose file it is.
        artifact_path: the path of the file.
        keep: keeps a value at a path, and returns its final path; None where parts are only described in one line.

    Attributes:
        reasons: position of a part in the file → why it is left out.
    """

    def __init__(
        self, run: RunHandle, artifact_path: str, keep: Callable[[RunHandle, str, Any], str | None] | None
    ) -> None:
        self.reasons: dict[str, str] = {}
        self._run = run
        self._artifact_path = masked_path(artifact_path)
        self._keep = keep
        self._taken: set[str] = set()

    def keep(self, path: tuple[str, ...], value: Any) -> Scalar:
        """Keep a part as a file; return the text that replaces it: the path of the file, or the class of a pickle."""
        if self._keep is None:
            self.add_reason(path, f"JSON cannot hold {class_name(value)}: it is described in one line")
            return summary_of(value)
        if len(self._taken) >= _MAX_FILES:
            self.add_reason(path, f"JSON cannot hold {class_name(value)}: {_MAX_FILES} parts are kept already")
            return summary_of(value)
        handler = handler_of(value)
        kept = self._keep(self._run, self._free(path, handler.suffix), value)
        where = "it could not be kept" if kept is None else f"it is kept as {kept}"
        self.add_reason(path, f"JSON cannot hold {class_name(value)}: {where}")
        return class_name(value) if kept is None or handler.executes else kept

    def add_reason(self, path: tuple[str, ...], why: str) -> None:
        """Remember why the file does not contain a part as it is."""
        self.reasons["/".join(path)] = mask_prose(why)[:500]

    def write_tags(self) -> None:
        """Write the notes as tags of the run, and one line per file to the log."""
        if not self.reasons:
            return
        named = dict(list(self.reasons.items())[:_MAX_TAGS])
        tags = {f"trackdsl.omitted.{self._artifact_path}{path and f'/{path}'}": why for path, why in named.items()}
        if len(self.reasons) > len(named):
            tags[f"trackdsl.omitted.{self._artifact_path}"] = (
                f"{len(self.reasons)} parts; the others: see {self._folder()}"
            )
        append_tags(self._run, tags)
        path, why = next(iter(named.items()))
        more = f", and {len(self.reasons) - 1} more" if len(self.reasons) > 1 else ""
        report(
            "omitted",
            f"trackdsl: {self._artifact_path!r} does not contain {path or 'its value'!r}: {why}{more}",
            key=self._artifact_path,
        )

    def _folder(self) -> str:
        return f"{self._artifact_path.removesuffix(PurePosixPath(self._artifact_path).suffix)}.parts"

    def _free(self, path: tuple[str, ...], suffix: str) -> str:
        artifact_path = "/".join([self._folder(), *map(path_part, path or ("value",))])
        free, count = f"{artifact_path}{suffix}", 1
        while free in self._taken:
            count += 1
            free = f"{artifact_path}-{count}{suffix}"
        self._taken.add(free)
        return free
