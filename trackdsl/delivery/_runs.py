"""Which MLflow run each of our runs became: a text file in the journal's folder, one line per fact.

o <id> <MLflow run> <MLflow experiment>    opened by the program of this journal
a <id> <MLflow run> <MLflow experiment>    opened by somebody else, who ends it too
r <id> <MLflow run> <MLflow experiment>    opened before, and gone on with by the program of this journal, which ends it
c <id>                                     closed
m <id> <our id of its parent>              opened without its parent, of which nothing is known
p <id>                                     has its parent after all
l <id> <our id of its parent>              of a rank: its parent is that of all ranks of the launch
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from trackdsl.delivery._fallback_encoding import Keys
from trackdsl.errors import logger
from trackdsl.journal._files import open_regular, read_regular

_NAME = "runs"


@dataclass
class KnownRun:
    """A run that exists at MLflow.

    Attributes:
        run_id: MLflow's id.
        experiment_id: MLflow's id of its experiment.
        open: whether this journal has to end it.
        ours: whether the program of this journal opened it.
        continued: whether the program of this journal goes on with it, and did not open it.
        params: parameters that MLflow has, by name; None where that was not looked up yet.
        keys: what it has, where the store takes several keys for one.
        made: when this process has made it, on the monotonic clock; long ago where another one has.
    """

    run_id: str
    experiment_id: str
    open: bool = True
    ours: bool = True
    continued: bool = False
    params: dict[str, str] | None = None
    keys: Keys | None = None
    made: float = -math.inf


class RunMap:
    """The runs of one journal.

    Args:
        directory: the journal's folder.

    Attributes:
        orphans: runs that were, or are about to be, opened without their parents, with our ids of those.
        ranks: runs of ranks, with our ids of the roots that they share with others.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME
        self._runs: dict[bytes, KnownRun] = {}
        for id_, run in read_runs(directory):
            self._runs[id_] = run
        self.orphans = _read_orphans(directory)
        self.ranks = _read_ranks(directory)
        if not _ends_with_a_line(directory):
            self._note("\n")

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, id_: bytes) -> KnownRun | None:
        """The run with our id, if it exists at MLflow."""
        return self._runs.get(id_)

    def add(self, id_: bytes, run: KnownRun) -> None:
        """Note that a run exists."""
        self._runs[id_] = run
        self._note(f"o {id_.hex()} {run.run_id} {run.experiment_id}\n")

    def adopt(self, id_: bytes, run: KnownRun) -> None:
        """Note a run that somebody else opened and ends."""
        self._runs[id_] = replace(run, open=False, ours=False, continued=False)
        self._note(f"a {id_.hex()} {run.run_id} {run.experiment_id}\n")

    def go_on(self, id_: bytes, run: KnownRun) -> None:
        """Note a run that goes on, under an id of its own."""
        self._runs[id_] = run
        self._note(f"r {id_.hex()} {run.run_id} {run.experiment_id}\n")

    def open_as(self, run_id: str) -> list[bytes]:
        """Our ids of the runs of this journal that are a run of MLflow's, and that nobody has ended."""
        return [id_ for id_, run in self._runs.items() if run.run_id == run_id and run.open]

    def continued(self) -> list[str]:
        """MLflow's ids of the runs that the program of this journal goes on with, or has gone on with."""
        return [run.run_id for run in self._runs.values() if run.continued]

    def close(self, id_: bytes) -> None:
        """Note that a run has ended."""
        self._runs[id_].open = False
        self._runs[id_].params = None
        self._note(f"c {id_.hex()}\n")

    def note_orphan(self, id_: bytes, parent: bytes) -> None:
        """Note that a run is opened without its parent, before it is: somebody has to look for it afterwards."""
        if id_ not in self.orphans:
            self.orphans[id_] = parent
            self._note(f"m {id_.hex()} {parent.hex()}\n")

    def note_parent(self, id_: bytes) -> None:
        """Note that such a run has its parent after all."""
        del self.orphans[id_]
        self._note(f"p {id_.hex()}\n")

    def note_rank(self, id_: bytes, root: bytes) -> None:
        """Note that a run is that of a rank, before it is opened: its end may be that of the root."""
        if self.ranks.get(id_) != root:
            self.ranks[id_] = root
            self._note(f"l {id_.hex()} {root.hex()}\n")

    def still_open(self) -> list[bytes]:
        """Ids of the runs that nobody has ended, latest first."""
        return [id_ for id_, run in reversed(self._runs.items()) if run.open]

    def maybe_written(self) -> list[bytes]:
        """Ids of the runs that the program of this journal may still write to: those of others it does not end."""
        return [id_ for id_, run in self._runs.items() if run.open or not run.ours]

    def ours(self) -> list[bytes]:
        """Ids of the runs that the program of this journal opened."""
        return [id_ for id_, run in self._runs.items() if run.ours]

    def _note(self, line: str) -> None:
        try:
            with open(open_regular(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a", encoding="ascii") as file:
                file.write(line)
        except OSError as error:
            # Delivery goes on: what this file would tell can be found at MLflow, by tag.
            logger.warning("trackdsl cannot note its runs in %s: %s", self._path, error)


def find_noted(directory: Path, id_: bytes) -> KnownRun | None:
    """One run noted in a journal's folder, if it is there."""
    # A look is all that most calls take: it is waited for, and thousands may be noted.
    return dict(read_runs(directory)).get(id_) if names_run(directory, id_.hex()) else None


def names_run(directory: Path, id_: str) -> bool:
    """Whether a run is noted in a journal's folder, by our id of it or MLflow's."""
    try:
        return id_.encode() in read_regular(directory / _NAME)
    except OSError:
        return False


def read_runs(directory: Path) -> Iterator[tuple[bytes, KnownRun]]:
    """The runs noted in a journal's folder, in order; torn lines are passed over."""
    found: dict[bytes, KnownRun] = {}
    for words in _lines(directory):
        try:
            id_ = bytes.fromhex(words[1])
            if words[0] in ("o", "a", "r") and len(words) == 4:
                known = KnownRun(words[2], words[3], open=words[0] != "a", ours=words[0] == "o")
                known.continued = words[0] == "r"
                found[id_] = known
            elif words[0] == "c" and id_ in found:
                found[id_].open = False
        except (ValueError, IndexError):
            continue
    yield from found.items()


def _read_orphans(directory: Path) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for words in _lines(directory):
        try:
            if words[0] == "m":
                found[bytes.fromhex(words[1])] = bytes.fromhex(words[2])
            elif words[0] == "p":
                found.pop(bytes.fromhex(words[1]), None)
        except (ValueError, IndexError):
            continue
    return found


def _read_ranks(directory: Path) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for words in _lines(directory):
        with contextlib.suppress(ValueError, IndexError):
            if words[0] == "l":
                found[bytes.fromhex(words[1])] = bytes.fromhex(words[2])
    return found


def _ends_with_a_line(directory: Path) -> bool:
    """Whether the next line can follow; one that was torn by a power cut would swallow it."""
    try:
        text = read_regular(directory / _NAME)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return not text or text.endswith(b"\n")


def _lines(directory: Path) -> list[list[str]]:
    try:
        text = read_regular(directory / _NAME).decode("ascii", "replace")
    except OSError:
        return []
    return [line.split(" ") for line in text.split("\n")[:-1]]
