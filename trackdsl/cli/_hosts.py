"""The spools of other hosts, which use the same state folder: what waits there, and which of it has ended for sure.

One spool per host name: a cluster's nodes share a home folder, and a container that is started anew has another name on
the same volume. What a program recorded there is delivered from here only where it is sure that it has ended, as its
own host would deliver it too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trackdsl.journal import _spool
from trackdsl.journal._files import read_regular
from trackdsl.journal._mounts import FileSystem, boot_id, file_system
from trackdsl.journal._reader import Position
from trackdsl.journal._spool import wake
from trackdsl.journal._writer import ENDED
from trackdsl.store_format.journals import Journal, look

#: How old the note of a program's end has to be, in seconds. Machines see changes of a shared file system up to a
#: minute late, and code that runs at a program's exit may record something after the note.
_QUIET = 120.0


@dataclass(frozen=True)
class Waiting:
    """A journal of another host.

    Attributes:
        journal: the journal.
        why_not: why it is not sure that its program has ended; empty where it is.
        runs: it is seen that the program still runs, or one that it belongs together with.
    """

    journal: Journal
    why_not: str = ""
    runs: bool = False


@dataclass(frozen=True)
class Host:
    """The spool of another host, or of this one in another place.

    Attributes:
        name: the host's name.
        spool: its folder.
        waiting: the journals that wait there.
    """

    name: str
    spool: Path
    waiting: tuple[Waiting, ...]

    @property
    def title(self) -> str:
        """Its name for people: this host may have a spool in another place too."""
        return f"{self.name}, in {self.spool}" if self.name == _spool.host() else self.name

    def is_called(self, name: str) -> bool:
        """Whether the user means this host."""
        names = {self.name, *(w.journal.origin.host for w in self.waiting if w.journal.origin is not None)}
        return name.casefold() in {each.casefold() for each in names}


def other_hosts(spool: Path, *, beside_any: bool = False) -> list[Host]:
    """What waits in the spools of other hosts.

    Args:
        spool: the one in use.
        beside_any: look beside the default place also where another spool is in use.
    """
    beside = _spool.others(spool)
    if not beside_any and not any(spool.parent == place for place in _places()):
        return []
    hosts = (_host(each) for each in beside)
    return [host for host in hosts if host.waiting]


def relatives(journals: Iterable[Journal]) -> list[list[Journal]]:
    """Journals, together with those of programs that started each other: they refer to each other."""
    groups: list[tuple[set[str], list[Journal]]] = []
    for journal in journals:
        origin = journal.origin
        names = {journal.directory.name} if origin is None else {origin.prefix, *origin.ancestors} - {""}
        near = [group for group in groups if group[0] & names]
        groups = [group for group in groups if not group[0] & names]
        groups.append((names.union(*(group[0] for group in near)), [*(j for g in near for j in g[1]), journal]))
    return [group[1] for group in groups]


def summary(hosts: list[Host]) -> str:
    """How much waits, and what to do about it, in a sentence for people."""
    count = sum(len(host.waiting) for host in hosts)
    waits = "1 journal of another host waits" if count == 1 else f"{count} journals of other hosts wait"
    names = ", ".join(host.title for host in hosts)
    return f"{waits}; `trackdsl sync --all-hosts` delivers those whose programs have ended ({names})"


def _places() -> list[Path]:
    found = []
    for place in (_spool.default_path, _spool.fallback_path):
        try:
            found.append(place().parent)
        except (OSError, RuntimeError):
            continue
    return found


def _host(spool: Path) -> Host:
    kind = file_system(spool)
    waiting = [journal for journal in look(spool) if journal.waits]
    reasons = {journal.directory: _why_not_ended(journal, kind) for journal in waiting}
    found = []
    for group in relatives(waiting):
        unsure = [journal for journal in group if reasons[journal.directory]]
        for journal in group:
            why_not = reasons[journal.directory]
            if unsure and not why_not:
                why_not = f"it belongs together with {unsure[0].program}, which may still run"
            found.append(Waiting(journal, why_not, any(each.alive for each in group)))
    found.sort(key=lambda each: each.journal.directory.name)
    return Host(spool.name, spool, tuple(found))


def _why_not_ended(journal: Journal, kind: FileSystem) -> str:
    """Why it is not sure that a program has ended; empty where it is."""
    if journal.alive:
        return "it still runs"
    origin = journal.origin
    if kind.is_local or (origin is not None and origin.boot and origin.boot == boot_id()):
        return ""  # The kernel that its lock was taken from is this one, and says that it is free.
    if not kind.has_common_locks:
        return f"its file system ({kind.kind or 'of unknown kind'}) shows no locks of other machines"
    noted = _noted_end(journal.directory)
    if noted is None or noted < journal.end:
        where = "another host" if origin is None else origin.host
        return f"no note says that it has ended, and its lock on {where} cannot be seen from here"
    if _age(journal.directory / ENDED) < _QUIET:
        return f"it ended a moment ago; from here this counts after {_QUIET:.0f} s"
    return ""


def _noted_end(directory: Path) -> Position | None:
    try:
        number, offset = read_regular(directory / ENDED).split()
        return Position(int(number), int(offset))
    except (OSError, ValueError):
        return None


def _age(path: Path) -> float:
    """How old a file is by the clock of its file system: those of two machines may differ."""
    try:
        spool = path.parents[2]
        wake(spool)
        return os.stat(spool / _spool.WAKE).st_mtime - os.stat(path).st_mtime
    except OSError:
        return min(_QUIET - 1, time.time() - os.stat(path).st_mtime)
