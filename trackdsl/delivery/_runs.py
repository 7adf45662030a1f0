"""Which MLflow run each of our runs became: a text file in the journal's folder, one line per fact.

o <id> <MLflow run> <MLflow experiment>    opened by the program of this journal
a <id> <MLflow run> <MLflow experiment>    opened by somebody else, who ends it too
c <id>                                     closed
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trackdsl.errors import logger

_NAME = "runs"


@dataclass
class KnownRun:
    """A run that exists at MLflow.

    Attributes:
        run_id: MLflow's id.
        experiment_id: MLflow's id of its experiment.
        open: whether this journal has to end it.
        ours: whether the program of this journal opened it.
        params: parameters that MLflow has, by name; None where that was not looked up yet.
    """

    run_id: str
    experiment_id: str
    open: bool = True
    ours: bool = True
    params: dict[str, str] | None = None


class RunMap:
    """The runs of one journal.

    Args:
        directory: the journal's folder.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME
        self._runs: dict[bytes, KnownRun] = {}
        for id_, run in read_runs(directory):
            self._runs[id_] = run
        # A line that was torn by a power cut must not swallow the next one.
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
        run.open = run.ours = False
        self._runs[id_] = run
        self._note(f"a {id_.hex()} {run.run_id} {run.experiment_id}\n")

    def close(self, id_: bytes) -> None:
        """Note that a run has ended."""
        self._runs[id_].open = False
        self._runs[id_].params = None
        self._note(f"c {id_.hex()}\n")

    def still_open(self) -> list[bytes]:
        """Ids of the runs that nobody has ended, latest first."""
        return [id_ for id_, run in reversed(self._runs.items()) if run.open]

    def ours(self) -> list[bytes]:
        """Ids of the runs that the program of this journal opened."""
        return [id_ for id_, run in self._runs.items() if run.ours]

    def _note(self, line: str) -> None:
        try:
            with open(self._path, "a", encoding="ascii") as file:
                file.write(line)
        except OSError as error:
            # Delivery goes on: what this file would tell can be found at MLflow, by tag.
            logger.warning("trackdsl cannot note its runs in %s: %s", self._path, error)


def read_runs(directory: Path) -> Iterator[tuple[bytes, KnownRun]]:
    """The runs noted in a journal's folder, in order; torn lines are passed over."""
    found: dict[bytes, KnownRun] = {}
    try:
        lines = (directory / _NAME).read_text(encoding="ascii", errors="replace").split("\n")[:-1]
    except OSError:
        lines = []
    for line in lines:
        words = line.split(" ")
        try:
            id_ = bytes.fromhex(words[1])
            if words[0] in ("o", "a") and len(words) == 4:
                ours = words[0] == "o"
                found[id_] = KnownRun(words[2], words[3], open=ours, ours=ours)
            elif words[0] == "c" and id_ in found:
                found[id_].open = False
        except (ValueError, IndexError):
            continue
    yield from found.items()
