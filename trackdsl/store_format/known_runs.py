"""Which MLflow run each of our runs became: the text file `runs` in a journal's folder, one fact on each line.

o <id> <MLflow run> <MLflow experiment>    the program of this journal opened the run
a <id> <MLflow run> <MLflow experiment>    another process opened the run, and ends it
r <id> <MLflow run> <MLflow experiment>    the program of this journal resumed an earlier run, and ends it
c <id>                                     the run has ended
m <id> <our id of its parent>              the run was opened without its parent, which is unknown
p <id>                                     the parent of such a run was found later
l <id> <our id of its parent>              the run is that of a rank: all ranks of the launch share its parent

Delivery writes the file; programs and commands read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trackdsl.journal._files import read_regular

#: The file's name.
NAME = "runs"


@dataclass
class KnownRun:
    """A run that exists at MLflow.

    Attributes:
        run_id: MLflow's id.
        experiment_id: MLflow's id of its experiment.
        open: whether this journal has to end it.
        ours: whether the program of this journal opened it.
        continued: whether the program of this journal resumed it.
    """

    run_id: str
    experiment_id: str
    open: bool = True
    ours: bool = True
    continued: bool = False


def find_noted(directory: Path, id_: bytes) -> KnownRun | None:
    """The MLflow run of one of our runs, if the file names it."""
    # Most calls find nothing: a search in the text is much quicker than parsing thousands of lines.
    return dict(read_runs(directory)).get(id_) if names_run(directory, id_.hex()) else None


def names_run(directory: Path, id_: str) -> bool:
    """Whether the file names a run, by our id of it or by MLflow's."""
    try:
        return id_.encode() in read_regular(directory / NAME)
    except OSError:
        return False


def read_runs(directory: Path) -> Iterator[tuple[bytes, KnownRun]]:
    """Our id and the MLflow run of each line, in order; torn lines are skipped."""
    found: dict[bytes, KnownRun] = {}
    for words in read_facts(directory):
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


def read_facts(directory: Path) -> list[list[str]]:
    """The words of each whole line; none if there is no file."""
    try:
        text = read_regular(directory / NAME).decode("ascii", "replace")
    except OSError:
        return []
    return [line.split(" ") for line in text.split("\n")[:-1]]
