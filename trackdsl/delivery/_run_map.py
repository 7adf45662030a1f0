"""The runs of one journal, as known to its delivery; `store_format.known_runs` describes the file that keeps them."""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

from trackdsl.delivery._fallback_encoding import Keys
from trackdsl.errors import logger
from trackdsl.journal._files import open_regular, read_regular
from trackdsl.store_format.known_runs import NAME, KnownRun, read_facts, read_runs


@dataclass
class DeliveredRun(KnownRun):
    """A run that exists at MLflow, with what its delivery has learned of it.

    Attributes:
        params: parameters that MLflow has, by name; None if they were not looked up yet.
        keys: its keys, if the store may treat several keys as equal.
        made: when this process created it, on the monotonic clock; minus infinity if another process did.
    """

    params: dict[str, str] | None = None
    keys: Keys | None = None
    made: float = -math.inf


class RunMap:
    """The runs of one journal.

    Args:
        directory: the journal's folder.

    Attributes:
        without_parent: runs that were, or will be, created without their parents, with our ids of the parents.
        ranks: runs of ranks, with our ids of their shared roots.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._runs: dict[bytes, DeliveredRun] = {}
        for id_, run in read_runs(directory):
            self._runs[id_] = DeliveredRun(run.run_id, run.experiment_id, run.open, run.ours, run.continued)
        self.without_parent = _read_without_parent(directory)
        self.ranks = _read_ranks(directory)
        if not _ends_with_a_line(directory):
            self._note("\n")

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, id_: bytes) -> DeliveredRun | None:
        """The run with our id, if it exists at MLflow."""
        return self._runs.get(id_)

    def add(self, id_: bytes, run: DeliveredRun) -> None:
        """Note that a run exists."""
        self._runs[id_] = run
        self._note(f"o {id_.hex()} {run.run_id} {run.experiment_id}\n")

    def adopt(self, id_: bytes, run: DeliveredRun) -> None:
        """Note a run that another process opened and ends."""
        self._runs[id_] = replace(run, open=False, ours=False, continued=False)
        self._note(f"a {id_.hex()} {run.run_id} {run.experiment_id}\n")

    def resume(self, id_: bytes, run: DeliveredRun) -> None:
        """Note a run that was resumed under its own id."""
        self._runs[id_] = run
        self._note(f"r {id_.hex()} {run.run_id} {run.experiment_id}\n")

    def open_as(self, run_id: str) -> list[bytes]:
        """Our ids of this journal's open runs that are a certain MLflow run."""
        return [id_ for id_, run in self._runs.items() if run.run_id == run_id and run.open]

    def continued(self) -> list[str]:
        """MLflow's ids of the runs that the program of this journal has resumed."""
        return [run.run_id for run in self._runs.values() if run.continued]

    def close(self, id_: bytes) -> None:
        """Note that a run has ended."""
        self._runs[id_].open = False
        self._runs[id_].params = None
        self._note(f"c {id_.hex()}\n")

    def note_without_parent(self, id_: bytes, parent: bytes) -> None:
        """Note, before it is created, that a run has no parent: the parent must be looked for later."""
        if id_ not in self.without_parent:
            self.without_parent[id_] = parent
            self._note(f"m {id_.hex()} {parent.hex()}\n")

    def note_parent(self, id_: bytes) -> None:
        """Note that such a run has got its parent."""
        del self.without_parent[id_]
        self._note(f"p {id_.hex()}\n")

    def note_rank(self, id_: bytes, root: bytes) -> None:
        """Note, before it is created, that a run is that of a rank: its end may be that of the root."""
        if self.ranks.get(id_) != root:
            self.ranks[id_] = root
            self._note(f"l {id_.hex()} {root.hex()}\n")

    def still_open(self) -> list[bytes]:
        """Ids of the runs that have not ended, latest first."""
        return [id_ for id_, run in reversed(self._runs.items()) if run.open]

    def maybe_written(self) -> list[bytes]:
        """Ids of the runs that the program of this journal may still write to, including those that others end."""
        return [id_ for id_, run in self._runs.items() if run.open or not run.ours]

    def ours(self) -> list[bytes]:
        """Ids of the runs that the program of this journal opened."""
        return [id_ for id_, run in self._runs.items() if run.ours]

    def _note(self, line: str) -> None:
        try:
            with open(open_regular(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a", encoding="ascii") as file:
                file.write(line)
        except OSError as error:
            # Delivery continues: the facts in this file can also be found at MLflow, by tag.
            logger.warning("trackdsl cannot note its runs in %s: %s", self._path, error)


def _read_without_parent(directory: Path) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for words in read_facts(directory):
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
    for words in read_facts(directory):
        with contextlib.suppress(ValueError, IndexError):
            if words[0] == "l":
                found[bytes.fromhex(words[1])] = bytes.fromhex(words[2])
    return found


def _ends_with_a_line(directory: Path) -> bool:
    """Whether the file ends with a whole line; a torn last line would swallow the next one."""
    try:
        text = read_regular(directory / NAME)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return not text or text.endswith(b"\n")
