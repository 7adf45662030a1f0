"""The tag `trackdsl.files`: how each file of a run is read back, as one JSON object by path.

    {"clean.parquet": {"handler": "pandas.DataFrame"}, "model.pkl": {"handler": "object", "sha256": "0a56…"}}

Where the tag would be longer than MLflow accepts, it continues in `trackdsl.files.2`, `trackdsl.files.3` and so on.
Each of them is a JSON object, so that one can be read without the others. If several name a path, the last one counts.

A tag can be added to only by reading it first, so two machines that add to one tag at the same moment could lose what
the other added. Therefore one delivery process alone changes a tag: that of the spool which made the run. Its name is
in `trackdsl.call`. Other spools write tags of their own, `trackdsl.files.from-<spool>`, for example where a run is
resumed on another machine. An entry for a path that another spool has recorded before carries a higher `revision`.

Older versions of trackdsl wrote one tag for each file, `trackdsl.artifact.<path>`. They are still read.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from trackdsl._core.decoders import json_decoder
from trackdsl.store_format.call_tag import SPOOL, call_of
from trackdsl.store_format.limits import fit_key

FILES_TAG = "trackdsl.files"
#: Begins the tag of one file in older versions; its path follows.
SINGLE_FILE_TAG = "trackdsl.artifact."
#: In characters. MLflow accepts 8000; versions before 2.17, and databases that they created, accept 5000.
MAX_FILES = 5000
#: Longer paths are cut, and end with a hash of the whole, so that an entry fits a tag.
_LONGEST_PATH = 1000
_NAME = re.compile(r"trackdsl\.files(\.from-(?P<spool>[0-9a-f]+))?(\.(?P<number>[1-9][0-9]{0,5}))?")


class FileNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """The note about a file, or a model, from when it was written.

    Attributes:
        handler: the name of the handler that wrote it and reads it back.
        sha256: its hash, where reading it can run code.
        types: whether a file next to it holds the types of its values.
        revision: higher than that of every entry for the same path that another spool has written before.
    """

    handler: str = ""
    sha256: str = ""
    types: bool = False
    revision: int = 0


def note_of_file(tags: Mapping[str, str], path: str) -> FileNote | None:
    """The note about a file in the tags of a run; None if there is none.

    Args:
        tags: all tags of the run.
        path: the file's path in the run, or the name of a model.

    Raises:
        ValueError: the note is damaged.
    """
    found: list[FileNote] = []
    damage: ValueError | None = None
    for part in _parts(tags):
        try:
            entry = _entries(tags[part.tag]).get(_key(path))
            if entry is not None:
                found.append(msgspec.convert(entry, FileNote))
        except ValueError as error:  # Another part may hold the path.
            damage = error
    newest = max((note.revision for note in found), default=0)
    single = tags.get(_single_tag(path))
    if single is not None and newest == 0:
        note: FileNote = json_decoder(FileNote).decode(single)
        return note
    if found:
        return [note for note in found if note.revision == newest][-1]
    if damage is not None:
        raise damage
    return None


def with_files(held: Mapping[str, str], spool: str, notes: Mapping[str, FileNote]) -> dict[str, str]:
    """The tags to write so that a run's tags name more files.

    Writing the same notes again gives the same tags.

    Args:
        held: the tags that the run has at the store.
        spool: the spool that writes; see the top of this module.
        notes: what to add, by the files' paths.
    """
    owner = "" if call_of(held).get(SPOOL) == spool else spool
    own: dict[int, dict[str, Any]] = {}
    others: list[dict[str, Any]] = []
    for part in _parts(held):
        entries: dict[str, Any] = {}
        with contextlib.suppress(ValueError):  # A damaged part is written again.
            entries = _entries(held[part.tag])
        if part.spool == owner:
            own[part.number] = entries
        else:
            others.append(entries)
    changed: set[int] = set()
    for path, note in notes.items():
        key = _key(path)
        revisions = [0, *(_revision(entries, key) for entries in own.values())]
        revisions += [_revision(entries, key) + 1 for entries in others]
        revisions += [1] if _single_tag(path) in held else []
        entry = msgspec.to_builtins(msgspec.structs.replace(note, revision=max(revisions)))
        changed.add(_put(own, key, entry))
    base = f"{FILES_TAG}.from-{owner}" if owner else FILES_TAG
    return {base if number == 1 else f"{base}.{number}": json.dumps(own[number]) for number in sorted(changed)}


def _put(parts: dict[int, dict[str, Any]], key: str, entry: dict[str, Any]) -> int:
    """Add an entry to the parts of a tag; returns the number of the part that holds it now.

    An entry stays in its part while it fits there. If it moved, it could be lost: the store may accept one of two
    tags and then become unreachable. An entry that has outgrown its part is added to the last one, which counts.
    """
    holding = [number for number in parts if key in parts[number]]
    for number in dict.fromkeys([*holding[-1:], *list(parts)[-1:]]):
        grown = parts[number] | {key: entry}
        if len(json.dumps(grown)) <= MAX_FILES:
            parts[number] = grown
            return number
    number = max(parts, default=0) + 1
    parts[number] = {key: entry}
    return number


class _Part(NamedTuple):
    """One tag that names files: which spool writes it, and its number among the tags of that spool."""

    spool: str
    number: int
    tag: str


def _parts(tags: Mapping[str, str]) -> list[_Part]:
    matches = (_NAME.fullmatch(tag) for tag in tags)
    return sorted(_Part(found["spool"] or "", int(found["number"] or 1), found[0]) for found in matches if found)


def _entries(text: str) -> dict[str, Any]:
    """The entries of a tag.

    Raises:
        ValueError: it is damaged.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("the tag holds no JSON object")
    return found


def _revision(entries: Mapping[str, Any], key: str) -> int:
    """The revision of an entry; -1 where there is no such entry."""
    entry = entries.get(key)
    found = entry.get("revision", 0) if isinstance(entry, dict) else -1
    return found if isinstance(found, int) else -1


def _single_tag(path: str) -> str:
    """The tag of a file in older versions."""
    return fit_key(f"{SINGLE_FILE_TAG}{path}")


def _key(path: str) -> str:
    """The name of an entry: the path, which is cut where it is so long that no tag would hold it."""
    return path if len(json.dumps(path)) <= _LONGEST_PATH else fit_key(path)
