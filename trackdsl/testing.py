"""For tests of programs that use trackdsl: they see what the program records, without MLflow.

    from trackdsl.testing import capture_runs

    def test_training():
        with capture_runs() as captured:
            train(lr=0.1)
        assert captured.one("train").params["lr"] == 0.1

With pytest, the fixture `trackdsl_runs` does the same for a whole test.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trackdsl._config import resolve as settings
from trackdsl._config.state import state
from trackdsl._core import context as _context
from trackdsl._core import runtime
from trackdsl.journal import _target
from trackdsl.journal._reader import read_all
from trackdsl.journal._replay import Point, RecordedRun, replay
from trackdsl.journal._spool import journals, make
from trackdsl.journal._store_target import CAPTURED, Target

__all__ = ["Captured", "Point", "RecordedRun", "capture_runs", "reset"]

# Tracebacks, help and pickles name public objects by where users import them from.
for _public in (Point, RecordedRun):
    _public.__module__ = __name__


def reset() -> None:
    """Restore trackdsl's state after its import, so that tests do not affect each other.

    This ends sessions, leaves scopes that are open, closes the journals of this process, and forgets what
    `configure` set, which secret values were seen and which warnings were logged. Environment variables are read again.
    Handlers stay registered, as modules register them when they are imported.

    Raises:
        ExceptionGroup: part of it failed; the rest was done.

    Example:
        >>> import trackdsl
        >>> trackdsl.configure(experiment_name="churn")
        >>> reset()
        >>> trackdsl.settings.experiment_name() == "churn"
        False
    """
    runtime.reset()


class Captured:
    """The runs that were recorded inside of `capture_runs`, up to now or up to the end of the block.

    Args:
        spool: the folder of the journals.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._kept: list[RecordedRun] | None = None

    def finish(self) -> None:
        """Read all runs a last time, before the folder is removed."""
        self._kept = self.runs

    @property
    def runs(self) -> list[RecordedRun]:
        """All runs, in the order in which they began."""
        if self._kept is not None:
            return self._kept
        found = [(event, directory) for directory in journals(self._spool) for event in read_all(directory)]
        return replay(found)

    @property
    def roots(self) -> list[RecordedRun]:
        """The runs without a parent."""
        return [run for run in self.runs if run.parent is None]

    def named(self, name: str) -> list[RecordedRun]:
        """The runs with this name, in the order in which they began."""
        return [run for run in self.runs if run.name == name]

    def one(self, name: str) -> RecordedRun:
        """The only run with this name.

        Raises:
            LookupError: no run has this name, or more than one.
        """
        found = self.named(name)
        if len(found) != 1:
            names = ", ".join(run.path for run in self.runs) or "none at all"
            raise LookupError(f"{len(found)} runs are named {name!r}; recorded: {names}")
        return found[0]


@contextlib.contextmanager
def capture_runs() -> Iterator[Captured]:
    """Record every run that begins inside to a temporary folder, whatever the settings. Nothing is sent to MLflow.

    Yields:
        a `Captured`, which has the runs inside and after the block. Files of artifacts only exist inside.

    Example:
        >>> from trackdsl import stage
        >>> with capture_runs() as captured, stage("fit", lr=0.1):
        ...     pass
        >>> captured.one("fit").params
        {'lr': 0.1}
    """
    configured, disabled = settings.configured(), state.disabled
    with tempfile.TemporaryDirectory(prefix="trackdsl-") as folder:
        captured = Captured(make(Path(folder)))
        target = Target(CAPTURED, folder, spool=Path(folder), deliver=False)
        before = _target.override(target)
        outer = _context.current()
        _context.enter(None)  # Children of a run around the block would go to that run's target.
        state.disable(False)
        try:
            yield captured
        finally:
            _context.enter(outer)
            _target.override(before)
            target.close()
            settings.restore(configured)
            state.disable(disabled)
            state.apply()
            captured.finish()
