"""Reads runs with their trees, and with what they keep about their programs, and compares two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from trackdsl.query._awaited_changes import AwaitedChanges
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundRun
from trackdsl.query._store import text_of
from trackdsl.query._tree import root_of
from trackdsl.store_format.changes.compare import compare_trees
from trackdsl.store_format.changes.descriptions import one_line
from trackdsl.store_format.changes.recorded import Program, Recorded, stages_of, without_datasets
from trackdsl.store_format.changes.stored import (
    PATH,
    SOURCE_PATH,
    Previous,
    Stored,
    decode,
    decode_texts,
    diffs,
    needed_texts,
    unknown_of,
)
from trackdsl.store_format.original_names import originals_of
from trackdsl.store_format.tags import COMMIT_TAG

#: Texts come from at most this many other runs.
_MOST_HOLDERS = 20


class RecordedRuns:
    """Runs with their trees, and with what they keep about their programs; each is read once.

    Args:
        reader: reads the store.
        below: the runs below each of those that are asked for, by its id, if they were read already.
    """

    def __init__(self, reader: PagedReader, below: Mapping[str, Sequence[FoundRun]] | None = None) -> None:
        self._reader = reader
        self._below = below
        self._texts = _Texts(reader)
        self._kept: dict[str, Stored | None] = {}
        self._awaited = AwaitedChanges(reader.uri)
        self._recorded: dict[str, Recorded] = {}

    def wait(self, *runs: FoundRun) -> None:
        """Wait until delivery has written what changed in the root runs of trees, as long as it is at work."""
        if self._awaited.ids():
            roots = (root_of(run, self._reader) for run in runs)
            self._awaited.wait([root.run_id for root in roots if root.status != "RUNNING"])

    def is_awaited(self, root: FoundRun) -> bool:
        """Whether what changed in a root run is still to be written."""
        return root.run_id in self._awaited.ids()

    def stored(self, run: FoundRun) -> Stored | None:
        """The stored changes of the root run of a tree; None if it has none."""
        if run.run_id not in self._kept:
            root = root_of(run, self._reader)
            self._kept[run.run_id] = decode(text_of(self._reader, root.run_id, PATH))
        return self._kept[run.run_id]

    def recorded(self, run: FoundRun) -> Recorded:
        """A run and those below it, with their program. Superseded ones are left out."""
        if run.run_id not in self._recorded:
            stored = self.stored(run)
            below = self._reader.descendants(run) if self._below is None else self._below[run.run_id]
            below = [one for one in below if one.run_id != run.run_id and not one.superseded]
            program = Program(commit=run.tags.get(COMMIT_TAG, ""))
            if stored is not None:
                program = stored.program(self._texts.of(stored, [stored.packages or ""]))
            datasets = stored.datasets if stored is not None else {}
            stages = stages_of(run, below, datasets, originals_of([run, *below]))
            self._recorded[run.run_id] = Recorded(run.run_id, run.name, run.start or 0, stages, program)
        return self._recorded[run.run_id]

    def changes(self, run: FoundRun, other: FoundRun) -> Stored:
        """The changes of a run since another one."""
        stored, theirs = self.stored(run), self.stored(other)
        before, after = self.recorded(other), self.recorded(run)
        unknown = unknown_of(stored, after.program, below=run.parent is not None)
        if stored is None or theirs is None:
            before, after = without_datasets(before), without_datasets(after)
            unknown = (*unknown, "datasets are not compared, because those of one run are not known")
        changed = compare_trees(before, after)
        needed = needed_texts(changed)
        known = {**self._texts.of(theirs, needed), **self._texts.of(stored, needed)}
        found = msgspec.structs.replace(
            stored or Stored(),
            previous=Previous(other.run_id, other.name, other.start or 0),
            changes=changed,
            diffs=diffs(changed, known),
            unknown=unknown,
            unknown_before=unknown_of(theirs, before.program, below=other.parent is not None),
        )
        return msgspec.structs.replace(found, summary=one_line(changed, found.not_known))


class _Texts:
    """The texts that runs keep in `trackdsl/source.json`; each file is read once."""

    def __init__(self, reader: PagedReader) -> None:
        self._reader = reader
        self._read: dict[str, dict[str, str]] = {}

    def of(self, stored: Stored | None, keys: list[str]) -> dict[str, str]:
        """The texts of some keys, as far as they can be read."""
        texts = {}
        for key in keys:
            holder = None if stored is None else stored.kept_in.get(key)
            if holder is not None and (text := self._of_run(holder).get(key)) is not None:
                texts[key] = text
        return texts

    def _of_run(self, run_id: str) -> dict[str, str]:
        if run_id not in self._read and len(self._read) < _MOST_HOLDERS:
            self._read[run_id] = decode_texts(text_of(self._reader, run_id, SOURCE_PATH))
        return self._read.get(run_id, {})
