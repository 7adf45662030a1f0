"""For the tests of programs that use trackdsl: see what they record, without MLflow.

    from trackdsl.testing import capture_runs

    def test_training():
        with capture_runs() as captured:
            train(lr=0.1)
        assert captured.one("train").params["lr"] == 0.1

With pytest, the fixture `trackdsl_runs` does the same for the length of a test.
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

__all__ = ["Captured", "Point", "RecordedRun", "capture_runs", "reset"]


def reset() -> None:
    """Put trackdsl back to what it was after its import, so that no test sees what an earlier one left.

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
    """What was recorded inside `capture_runs`, up to now or up to its end.

    Args:
        spool: the folder of the journals.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._kept: list[RecordedRun] | None = None

    def finish(self) -> None:
        """Read everything a last time, before the folder goes."""
        self._kept = self.runs

    @property
    def runs(self) -> list[RecordedRun]:
        """All runs, in the order they began."""
        if self._kept is not None:
            return self._kept
        found = [(event, directory) for directory in journals(self._spool) for event in read_all(directory)]
        return replay(found)

    @property
    def roots(self) -> list[RecordedRun]:
        """The runs that have no parent."""
        return [run for run in self.runs if run.parent is None]

    def named(self, name: str) -> list[RecordedRun]:
        """The runs of a name, in the order they began."""
        return [run for run in self.runs if run.name == name]

    def one(self, name: str) -> RecordedRun:
        """The one run of a name.

        Raises:
            LookupError: there is none, or more than one.
        """
        found = self.named(name)
        if len(found) != 1:
            names = ", ".join(run.path for run in self.runs) or "none at all"
            raise LookupError(f"{len(found)} runs are named {name!r}; recorded: {names}")
        return found[0]


@contextlib.contextmanager
def capture_runs() -> Iterator[Captured]:
    """Record every run that begins inside to a temporary folder, whatever the settings; nothing is delivered.

    Yields:
        a `Captured`, which can be asked inside and after the block. The snapshots of artifacts are there inside only.

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
        target = _target.Target(_target.CAPTURED, folder, spool=Path(folder), deliver=False)
        before = _target.override(target)
        outer = _context.current()
        _context.enter(None)  # A run around the block has a target of its own, which its children would inherit.
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
