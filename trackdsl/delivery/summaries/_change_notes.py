"""Compares a root run with the last comparable one, and writes to the run what changed.

Everything that is written may be written again: the same names, the same content. So a root run whose process is killed
in the middle is simply done again.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from trackdsl.delivery.store._errors import Refused
from trackdsl.delivery.store._sink import GONE, Batch, Sink, TreeRun
from trackdsl.delivery.summaries._previous_run import previous_run
from trackdsl.delivery.summaries._program_contents import PROGRAM, ProgramContents, Site
from trackdsl.delivery.summaries._scripts import by_script, script_of
from trackdsl.journal._origin import Origin
from trackdsl.store_format.call_tag import call_of
from trackdsl.store_format.changes.compare import compare_trees
from trackdsl.store_format.changes.descriptions import description, one_line
from trackdsl.store_format.changes.recorded import Program, Recorded, Stage, stages_of
from trackdsl.store_format.changes.stored import (
    CHANGED_TAG,
    PATH,
    PREVIOUS_TAG,
    SCRIPT_TAG,
    SOURCE_PATH,
    Previous,
    Stored,
    decode,
    decode_texts,
    diffs,
    encode_texts,
    key_of,
    needed_texts,
    packages_text,
    unknown_of,
)
from trackdsl.store_format.original_names import originals_of
from trackdsl.store_format.tags import COMMIT_TAG, NOTE_TAG, PARENT_TAG

#: If a tree has more runs, the first ones are compared, up to this number.
MOST_STAGES = 2000
#: Functions whose source is read.
_MOST_SITES = 200
#: The texts of a diff are spread over at most this many runs, so that few have to be read; beyond that, a run keeps all
#: of its own.
_MOST_HOLDERS = 10
#: Descriptions of a run that are remembered as ours.
_MOST_NOTES = 5

#: What a program consists of, by the functions of its stages.
Capture = Callable[[list[Site]], ProgramContents]


def write_changes(sink: Sink, run_id: str, origin: Origin, capture: Capture) -> bool:
    """Write to a root run what changed since the last comparable run.

    Args:
        sink: the store.
        run_id: the store's id of the run.
        origin: its program.
        capture: finds out what the program consists of.

    Returns:
        whether there is nothing more to do: the run is done, or it is gone. False while it is running.

    Raises:
        Unavailable: the store cannot be reached.
        Refused: the run was deleted a moment ago, or the store does not take what is written.
    """
    tree = sink.tree(run_id, MOST_STAGES)
    if not tree or tree[0].tags.get(PARENT_TAG):
        return True
    if not tree[0].end or tree[0].status == "RUNNING":
        return False
    _ChangeNotes(sink, tree, origin).write(capture)
    return True


class _ChangeNotes:
    """One root run that is compared with the one before."""

    def __init__(self, sink: Sink, tree: list[TreeRun], origin: Origin) -> None:
        self._sink = sink
        script = script_of(origin) if by_script(tree[0].tags) else ""
        #: The tag that the root run gets when all is done: so the next run of the script finds it.
        self._script = {SCRIPT_TAG: script} if script else {}
        self._root = dataclasses.replace(tree[0], tags=tree[0].tags | self._script)
        self._tree = tree
        self._python = origin.python
        self._stages = _stages_of(tree)
        self._texts: dict[str, dict[str, str]] = {}

    def write(self, capture: Capture) -> None:
        """Compare the root run with the last comparable one, and write the result to it."""
        captured = capture(_sites(self._tree))
        texts = _texts_of(captured)
        before = previous_run(self._sink, self._root)
        earlier = None if before is None else self._file_of(before.run_id)
        kept_in, fresh = self._kept(texts, earlier)
        stored = self._stored(captured, kept_in)
        after = Recorded(self._root.run_id, self._root.name, self._root.start, self._stages, stored.program(texts))
        older = None if before is None else self._recorded(before, earlier)
        changes = None if older is None else compare_trees(older, after)
        if changes is not None and older is not None:
            previous = Previous(older.run_id, older.name, older.start)
            missing = [key for key in needed_texts(changes) if key not in texts]
            source_diffs = diffs(changes, {**self._read(missing, earlier), **texts})
            unknown = unknown_of(earlier, older.program)
            stored = replace(stored, previous=previous, changes=changes, diffs=source_diffs, unknown_before=unknown)
        note = description(changes, after, older, self._root.experiment_id, stored.not_known)
        self._write(replace(stored, summary=one_line(changes, stored.not_known)), fresh, note)

    def _write(self, stored: Stored, fresh: Mapping[str, str], note: str) -> None:
        run_id = self._root.run_id
        tags = {CHANGED_TAG: stored.summary, **self._script}
        if stored.previous is not None:
            tags[PREVIOUS_TAG] = stored.previous.run_id
        theirs, ours = self._root.tags.get(NOTE_TAG), []
        if theirs is not None:
            # One of ours has its hash in the file: of an attempt that was killed, or from before the run was resumed.
            attempt = self._file_of(run_id)
            ours = [] if attempt is None else [*attempt.notes]
        if theirs is None or key_of(theirs) in ours:
            tags[NOTE_TAG] = note
        if fresh:
            self._sink.write_text(run_id, encode_texts(fresh), SOURCE_PATH)
        stored = replace(stored, notes=(*ours, key_of(note))[-_MOST_NOTES:])
        self._sink.write_text(run_id, stored.encode(), PATH)
        # Last: a run with these tags has the files.
        self._sink.write(run_id, Batch(tags=tags))
        self._sink.commit()

    def _file_of(self, run_id: str) -> Stored | None:
        return decode(self._sink.read_artifact(run_id, PATH))

    def _recorded(self, root: TreeRun, stored: Stored | None) -> Recorded:
        """The run before, as far as it is known: it may be of a version that kept no source."""
        tree = self._sink.tree(root.run_id, MOST_STAGES) or [root]
        stages = _stages_of(tree)
        program = Program(commit=root.tags.get(COMMIT_TAG, ""))
        if stored is not None:
            program = stored.program(self._read([stored.packages] if stored.packages else [], stored))
        return Recorded(root.run_id, root.name, root.start, stages, program)

    def _stored(self, captured: ProgramContents, kept_in: Mapping[str, str]) -> Stored:
        packages = None if captured.packages is None else key_of(packages_text(captured.packages))
        unknown = [*captured.unknown]
        if len(self._tree) >= MOST_STAGES:
            unknown.append(f"of a tree of this size, only the first {MOST_STAGES:,} runs are compared")
        return Stored(
            unknown=tuple(unknown),
            partial=tuple(captured.partial),
            python=self._python,
            commit=self._root.tags.get(COMMIT_TAG, ""),
            packages=packages,
            patch=captured.patch and key_of(captured.patch),
            code={key: {name: one.digest for name, one in uses.items()} for key, uses in captured.code.items()},
            datasets={run.run_id: run.datasets for run in self._tree if run.datasets},
            kept_in=kept_in,
        )

    def _kept(self, texts: Mapping[str, str], earlier: Stored | None) -> tuple[dict[str, str], dict[str, str]]:
        """The runs that keep the texts, and the texts that this run keeps: those that no living run has."""
        known = {} if earlier is None else {key: run_id for key, run_id in earlier.kept_in.items() if key in texts}
        holders = set(known.values())
        if len(holders) >= _MOST_HOLDERS:
            holders = set()
        living = {run_id for run_id in holders if self._sink.status(run_id) != GONE}
        kept_in = {key: run_id for key, run_id in known.items() if run_id in living}
        fresh = {key: text for key, text in texts.items() if key not in kept_in}
        return kept_in | dict.fromkeys(fresh, self._root.run_id), fresh

    def _read(self, keys: list[str], stored: Stored | None) -> dict[str, str]:
        """Texts by key, as far as the runs that keep them are still there."""
        texts: dict[str, str] = {}
        for key in keys:
            holder = None if stored is None else stored.kept_in.get(key)
            if holder is None:
                continue
            if holder not in self._texts:
                with contextlib.suppress(Refused):
                    self._texts[holder] = decode_texts(self._sink.read_artifact(holder, SOURCE_PATH))
            text = self._texts.get(holder, {}).get(key)
            if text is not None:
                texts[key] = text
        return texts


def _stages_of(tree: list[TreeRun]) -> tuple[Stage, ...]:
    return stages_of(tree[0], tree[1:], {run.run_id: run.datasets for run in tree}, originals_of(tree))


def _sites(tree: list[TreeRun]) -> list[Site]:
    sites = [_site_of(run.tags) for run in tree if call_of(run.tags).get("function")]
    program = [] if call_of(tree[0].tags).get("function") else [PROGRAM]
    return list(dict.fromkeys([*program, *sites]))[:_MOST_SITES]


def _site_of(tags: Mapping[str, str]) -> Site:
    call = call_of(tags)
    return str(call.get("function")), str(call.get("file") or ""), str(call.get("source_hash") or "")


def _texts_of(captured: ProgramContents) -> dict[str, str]:
    """The texts of a program that its run keeps, by key."""
    texts = {one.digest: one.text for uses in captured.code.values() for one in uses.values()}
    if captured.packages is not None:
        text = packages_text(captured.packages)
        texts[key_of(text)] = text
    if captured.patch:
        texts[key_of(captured.patch)] = captured.patch
    return texts
