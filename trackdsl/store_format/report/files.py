"""Which files of a tree's runs a report shows, within the room that a page has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from trackdsl.store_format.report.node import RunNode
from trackdsl.store_format.report.shown_files import ShownFile, kind_of, scaled_file, shown_file

#: In bytes on the page: of files that are shown first, each and all, and of all that are shown.
_SMALL, _ALL_SMALL, _ALL = 540_000, 950_000, 1_700_000
#: In bytes: to how much a larger picture is scaled down, and how many are, since that takes time.
_LARGEST_SCALED, _MOST_SCALED = 300_000, 20


class RunFile(Protocol):
    """A file of a run."""

    @property
    def path(self) -> str:
        """Its path in the run."""

    @property
    def size(self) -> int | None:
        """In bytes; None if the store does not say."""


class FileStore(Protocol):
    """The files of runs."""

    def files(self, run_id: str) -> Iterable[RunFile]:
        """The files of a run, without those of its models."""

    def content(self, run_id: str, path: str) -> bytes | None:
        """The content of a file; None if it cannot be read."""


@dataclass(frozen=True)
class Reading:
    """Limits for what is read, in bytes.

    Attributes:
        largest: of one file.
        everything: of all files.
    """

    largest: int = 20_000_000
    everything: int = 80_000_000


@dataclass(frozen=True)
class ListedFile:
    """A file that a report only names."""

    run: RunNode
    path: str
    size: int | None


@dataclass(frozen=True)
class Chosen:
    """The files of a report, in the order of the runs: those that are shown, and those that are named."""

    shown: list[ShownFile]
    listed: list[ListedFile]


def choose_files(runs: Sequence[RunNode], store: FileStore, limits: Reading) -> Chosen:
    """Choose the files that a report shows.

    Tables are small whatever their files are: only their first rows are shown. Small figures and pages come next, and
    large ones get the room that is left, pictures with fewer pixels.

    Args:
        runs: the runs, the most important first.
        store: their files.
        limits: how much of them is read.
    """
    choice = _Choice(store, limits)
    found = [
        ListedFile(run, file.path, file.size)
        for run in runs
        for file in store.files(run.run_id)
        if not file.path.startswith("trackdsl/")
    ]
    shown: dict[int, ShownFile] = {}
    for small in (True, False):
        for at, file in enumerate(found):
            if at not in shown and (made := choice.show(file, small=small)) is not None:
                shown[at] = made
    return Chosen([shown[at] for at in sorted(shown)], [file for at, file in enumerate(found) if at not in shown])


class _Choice:
    """What is shown so far, as far as limits count it."""

    def __init__(self, store: FileStore, limits: Reading) -> None:
        self._store = store
        self._largest = limits.largest
        self._left = limits.everything
        self._room = _ALL
        self._scaled = 0

    def show(self, file: ListedFile, *, small: bool) -> ShownFile | None:
        """A file as it is shown; None if it is none that is, or there is no room.

        Args:
            file: the file.
            small: whether those are asked for that come first, else the others.
        """
        kind = kind_of(file.path)
        size = min(self._largest, _SMALL) if file.size is None else file.size
        is_small = kind == "table" or size * 4 // 3 <= _SMALL
        if not kind or small is not is_small or size > min(self._largest, self._left):
            return None
        content = self._store.content(file.run.run_id, file.path)
        if content is None:
            return None
        self._left -= len(content)
        if len(content) > self._largest:
            return None
        made = None
        if not small and kind == "figure" and self._scaled < _MOST_SCALED:
            made = scaled_file(file.run, file.path, content, _LARGEST_SCALED)
            self._scaled += made is not None
        made = made or shown_file(file.run, file.path, content)
        room = self._room - (_ALL - _ALL_SMALL) * (small and kind != "table")
        if made is None or made.weight > room:
            return None
        self._room -= made.weight
        return made
