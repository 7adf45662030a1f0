"""The spools of other hosts in the same state folder, and which of the programs there have certainly ended.

Each host name has its own spool. The nodes of a cluster share a home folder; a container that starts again has another
name on the same volume. Records of another host are delivered from here only if their program has certainly ended,
because the other host would deliver them too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trackdsl.journal import _spool, _spool_choice
from trackdsl.journal._files import read_regular
from trackdsl.journal._format import ENDED
from trackdsl.journal._mounts import FileSystem, boot_id, file_system
from trackdsl.journal._segments import Position
from trackdsl.journal._spool import wake
from trackdsl.store_format.journals import Journal, read_journals

#: The file that says that a program has ended has to be older than this, in seconds. Machines see changes in a shared
#: file system up to a minute late, and code that runs at the exit of a program may record something after it.
_QUIET = 120.0


@dataclass(frozen=True)
class WaitingJournal:
    """A journal of another host.

    Attributes:
        journal: the journal.
        why_not: why its program may still run; empty if it has certainly ended.
        runs: whether the program certainly runs, or one that it started or that started it.
    """

    journal: Journal
    why_not: str = ""
    runs: bool = False


@dataclass(frozen=True)
class Host:
    """The spool of another host, or another spool of this one.

    Attributes:
        name: the host's name.
        spool: its folder.
        waiting: the journals that wait there.
    """

    name: str
    spool: Path
    waiting: tuple[WaitingJournal, ...]

    @property
    def title(self) -> str:
        """Its name; with the spool's path if it is another spool of this host."""
        return f"{self.name}, in {self.spool}" if self.name == _spool_choice.host() else self.name

    def is_called(self, name: str) -> bool:
        """Whether this host has a name, in any case."""
        names = {self.name, *(w.journal.origin.host for w in self.waiting if w.journal.origin is not None)}
        return name.casefold() in {each.casefold() for each in names}


def other_hosts(spool: Path, *, beside_any: bool = False) -> list[Host]:
    """The other hosts whose spools contain journals that wait.

    Args:
        spool: the spool in use.
        beside_any: search the default folder of spools even if the spool in use is not in it.
    """
    beside = _spool_choice.others(spool)
    if not beside_any and not any(spool.parent == folder for folder in _folders_of_spools()):
        return []
    hosts = (_host(each) for each in beside)
    return [host for host in hosts if host.waiting]


def relatives(journals: Iterable[Journal]) -> list[list[Journal]]:
    """Groups of journals that refer to each other, because one program started the other."""
    groups: list[tuple[set[str], list[Journal]]] = []
    for journal in journals:
        origin = journal.origin
        names = {journal.directory.name} if origin is None else {origin.prefix, *origin.ancestors} - {""}
        near = [group for group in groups if group[0] & names]
        groups = [group for group in groups if not group[0] & names]
        groups.append((names.union(*(group[0] for group in near)), [*(j for g in near for j in g[1]), journal]))
    return [group[1] for group in groups]


def summary(hosts: list[Host]) -> str:
    """A sentence about how many journals wait, and what to do."""
    count = sum(len(host.waiting) for host in hosts)
    waits = "1 journal of another host waits" if count == 1 else f"{count} journals of other hosts wait"
    names = ", ".join(host.title for host in hosts)
    return f"{waits}; `trackdsl sync --all-hosts` delivers those whose programs have ended ({names})"


def _folders_of_spools() -> list[Path]:
    found = []
    for path_of_spool in (_spool_choice.default_path, _spool_choice.fallback_path):
        try:
            found.append(path_of_spool().parent)
        except (OSError, RuntimeError):
            continue
    return found


def _host(spool: Path) -> Host:
    kind = file_system(spool)
    waiting = [journal for journal in read_journals(spool) if journal.waits]
    reasons = {journal.directory: _why_not_ended(journal, kind) for journal in waiting}
    found = []
    for group in relatives(waiting):
        unsure = [journal for journal in group if reasons[journal.directory]]
        for journal in group:
            why_not = reasons[journal.directory]
            if unsure and not why_not:
                why_not = f"its runs are connected with those of {unsure[0].program}, which may still run"
            found.append(WaitingJournal(journal, why_not, any(each.alive for each in group)))
    found.sort(key=lambda each: each.journal.directory.name)
    return Host(spool.name, spool, tuple(found))


def _why_not_ended(journal: Journal, kind: FileSystem) -> str:
    """Why a program may still run; empty if it has certainly ended, and other hosts have seen it too."""
    if journal.alive:
        return "it still runs"
    if why := why_unsure(journal, kind):
        return why
    if not _shows_locks(journal, kind) and _age(journal.directory / ENDED) < _QUIET:
        return f"it ended a moment ago; other hosts wait {_QUIET:.0f} s before they deliver its records"
    return ""


def why_unsure(journal: Journal, kind: FileSystem) -> str:
    """Why it is not certain here that a program whose lock seems free has ended; empty if it has.

    Args:
        journal: its journal, in a spool that several machines use.
        kind: the file system of the spool.
    """
    if _shows_locks(journal, kind):
        return ""
    if not kind.has_common_locks:
        return f"its file system ({kind.kind or 'of unknown kind'}) shows no locks of other machines"
    noted = _marked_end(journal.directory)
    if noted is None or noted < journal.end:
        where = "another host" if journal.origin is None else journal.origin.host
        return f"no file records its end, and its lock on {where} cannot be seen from here"
    return ""


def _shows_locks(journal: Journal, kind: FileSystem) -> bool:
    """Whether this machine sees the lock of a program."""
    origin = journal.origin
    return kind.is_local or (origin is not None and bool(origin.boot) and origin.boot == boot_id())


def _marked_end(directory: Path) -> Position | None:
    try:
        number, offset = read_regular(directory / ENDED).split()
        return Position(int(number), int(offset))
    except (OSError, ValueError):
        return None


def _age(path: Path) -> float:
    """The age of a file in seconds, by the clock of its file system: the clocks of two machines may differ."""
    try:
        spool = path.parents[2]
        wake(spool)
        return os.stat(spool / _spool.WAKE).st_mtime - os.stat(path).st_mtime
    except OSError:
        return min(_QUIET - 1, time.time() - os.stat(path).st_mtime)
