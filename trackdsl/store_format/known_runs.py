"""Which MLflow run each of our runs became, in a journal's ledger. Delivery notes it; programs and commands read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trackdsl.store_format.journal_ledger import read_journal
from trackdsl.store_format.ledger import RUN, RunValue, changes_in, latest

#: How a run came to a journal: its program opened it; another process opened it, and ends it; its program resumed it.
OPENED, ADOPTED, RESUMED = "o", "a", "r"


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


def value_of(id_: bytes, run: KnownRun) -> RunValue:
    """A run in the format of the ledger."""
    how = OPENED if run.ours else RESUMED if run.continued else ADOPTED
    return "" if run.run_id == id_.hex() else run.run_id, run.experiment_id, how, run.open


def run_of(id_: bytes, value: RunValue) -> KnownRun:
    """A run in the ledger."""
    run_id, experiment_id, how, open_ = value
    return KnownRun(run_id or id_.hex(), experiment_id, open_, how == OPENED, how == RESUMED)


def find_delivered(directory: Path, id_: bytes) -> KnownRun | None:
    """The MLflow run of one of our runs, if the ledger names it."""
    # Most calls find nothing: a search in the bytes is much quicker than parsing thousands of notes.
    content = read_journal(directory)
    return dict(_runs(content)).get(id_) if id_ in content else None


def names_run(directory: Path, id_: str) -> bool:
    """Whether the ledger names a run, by our id of it or by MLflow's."""
    content = read_journal(directory)
    try:
        ours = bytes.fromhex(id_)
    except ValueError:
        ours = b""
    if not id_ or not (id_.encode("utf-8", "replace") in content or (ours and ours in content)):
        return False
    return any(id_ == run.run_id or ours == known for known, run in _runs(content))


def read_runs(directory: Path) -> Iterator[tuple[bytes, KnownRun]]:
    """Our id and the MLflow run of each run of a journal, in order."""
    yield from _runs(read_journal(directory))


def _runs(content: bytes) -> Iterator[tuple[bytes, KnownRun]]:
    for id_, value in latest(changes_in(content), RUN).items():
        yield id_, run_of(id_, value)
