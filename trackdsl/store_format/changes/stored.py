"""The two artifacts of a root run: `trackdsl/changes.json`, and `trackdsl/source.json` with what is new in it.

Source, the list of packages and a patch are kept once for each version, by their hash: in the first run that had it.
`kept_in` says which run that is.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from trackdsl._core.decoders import json_decoder
from trackdsl._core.escaping import printable
from trackdsl._core.source_text import digest_of
from trackdsl.store_format.changes.compare import Change, Changes
from trackdsl.store_format.changes.diff import diff_lines
from trackdsl.store_format.changes.recorded import Program

PATH = "trackdsl/changes.json"
SOURCE_PATH = "trackdsl/source.json"
PREVIOUS_TAG = "trackdsl.previous"
CHANGED_TAG = "trackdsl.changed"
#: The script of a root run whose function does not say what it is of.
SCRIPT_TAG = "trackdsl.script"
VERSION = 1
#: Lines of all diffs together, and of one.
_MOST_LINES, _MOST_LINES_EACH = 2000, 200
_LONGEST_LINE = 500


class Previous(msgspec.Struct, frozen=True):
    """The run that a run is compared with.

    Attributes:
        run_id: MLflow's id.
        name: its name.
        start: when it began, in milliseconds since 1970.
    """

    run_id: str
    name: str
    start: int


class Stored(msgspec.Struct, frozen=True):
    """The content of `trackdsl/changes.json`.

    Attributes:
        version: of this format.
        summary: what changed, in one line.
        previous: the run that it was compared with; None if there was none.
        changes: see `Changes`.
        diffs: unified diffs of the definitions that changed, by name; of the patch under `uncommitted changes`.
        unknown: sentences about what is not known of the run itself.
        python, commit: see `Program`.
        packages, patch: the keys of the list of packages and of the patch, see `kept_in`; None if they are not known.
        code, partial: see `Program`.
        datasets: the digests of datasets by their names, of each run that has some, by its id.
        kept_in: the runs whose `trackdsl/source.json` has the text of each key.
        notes: hashes of the descriptions that were written to this run.
        unknown_before: sentences about what is not known of the run that it was compared with.
    """

    version: int = VERSION
    summary: str = ""
    previous: Previous | None = None
    changes: Changes = Changes()
    diffs: Mapping[str, str] = {}
    unknown: tuple[str, ...] = ()
    python: str = ""
    commit: str = ""
    packages: str | None = None
    patch: str | None = None
    code: Mapping[str, Mapping[str, str]] = {}
    datasets: Mapping[str, Mapping[str, str]] = {}
    kept_in: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    unknown_before: tuple[str, ...] = ()

    @property
    def not_known(self) -> tuple[str, ...]:
        """Sentences about what the comparison could not know, of either run."""
        others = (sentence for sentence in self.unknown_before if sentence not in self.unknown)
        before = (f"of the run before: {sentence}" for sentence in others)
        return tuple(dict.fromkeys([*self.unknown, *before]))

    def program(self, texts: Mapping[str, str]) -> Program:
        """The program that recorded the run.

        Args:
            texts: what is kept, by key, as far as it could be read.
        """
        packages = None if self.packages is None else texts.get(self.packages)
        # Texts of patches are not needed to compare them.
        return Program(
            self.python,
            None if packages is None else packages_of(packages),
            self.commit,
            self.patch,
            self.code,
            self.partial,
        )

    def encode(self) -> str:
        """The content of the file."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode()


def unknown_of(stored: Stored | None, program: Program, *, below: bool = False) -> tuple[str, ...]:
    """Sentences about what is not known of a run.

    Args:
        stored: what it keeps; None if it keeps nothing.
        program: what could be read of that.
        below: whether it is below a root run, which keeps it.
    """
    if stored is None:
        return (f"its source and packages are not known: {'its root' if below else 'the'} run does not keep them",)
    if stored.packages is not None and program.packages is None:
        return (*stored.unknown, "its packages are not known, because the run that kept their list is gone")
    return stored.unknown


def decode(content: bytes | str | None) -> Stored | None:
    """The content of `trackdsl/changes.json`; None if it is none, or of a later version."""
    try:
        found: Stored = json_decoder(Stored).decode(content or b"")
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    return found if found.version == VERSION else None


def decode_texts(content: bytes | str | None) -> dict[str, str]:
    """The content of `trackdsl/source.json`; empty if it cannot be read."""
    try:
        found: dict[str, str] = json_decoder(dict[str, str]).decode(content or b"")
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return {}
    return found


def encode_texts(texts: Mapping[str, str]) -> str:
    """The content of `trackdsl/source.json`."""
    return msgspec.json.format(msgspec.json.encode(dict(texts)), indent=1).decode()


def packages_text(packages: Mapping[str, str]) -> str:
    """A list of packages as text, one a line.

    >>> packages_text({"numpy": "2.0"})
    'numpy==2.0'
    """
    return "\n".join(f"{name}=={version}" for name, version in packages.items())


def packages_of(text: str) -> dict[str, str]:
    """The list of packages that a text has."""
    return dict(line.split("==", 1) for line in text.splitlines() if "==" in line)


def key_of(text: str) -> str:
    """The key of a text that is kept; that of a definition is its digest."""
    return digest_of(text)


def needed_texts(changes: Changes) -> list[str]:
    """The keys of the texts that the diffs of changes are made of."""
    found = [key for change in _with_text(changes) for key in (change.before, change.after) if key]
    return list(dict.fromkeys(found))


def diffs(changes: Changes, texts: Mapping[str, str]) -> dict[str, str]:
    """Unified diffs of what changed, as far as the texts are there; long ones are cut."""
    found: dict[str, str] = {}
    left = _MOST_LINES
    for change in _with_text(changes):
        if left <= 0:
            break
        before, after = (texts.get(key) if key else "" for key in (change.before, change.after))
        if before is None or after is None or (change.kind == "patch" and not after):
            continue
        # A patch is a diff already.
        new_patch = change.kind == "patch" and not before
        pieces = after.splitlines() if new_patch else diff_lines(before, after)
        lines = [printable(line[:_LONGEST_LINE]) for line in pieces]
        room = min(left, _MOST_LINES_EACH)
        cut = [f"… {len(lines) - room} more lines"] if len(lines) > room else []
        found[change.name or "uncommitted changes"] = "\n".join([*lines[:room], *cut])
        left -= len(lines)
    return found


def _with_text(changes: Changes) -> list[Change]:
    return [*changes.of_kind("source"), *changes.of_kind("patch")]
