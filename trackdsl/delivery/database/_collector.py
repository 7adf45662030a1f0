"""Collecting what is to be written to runs, so that many changes are one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from trackdsl._core.redaction import mask_text
from trackdsl.delivery.database._changes import ChangeSet, NewRun, RunChange
from trackdsl.delivery.database._tables import Tables
from trackdsl.delivery.store._errors import Denied, Refused, RefusedTogether, Unavailable

#: A change set of this many points and fields is written before it grows further. Transactions stay short, and a server
#: writes one part while the next one is collected.
_PART = 20_000


class ChangeCollector:
    """Collects a change set within `collecting`, and writes it at the end of that; outside, each change at once.

    Args:
        tables: where the changes are written.

    Attributes:
        active: whether changes are collected.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._changes: ChangeSet = {}
        self._size = 0
        self.active = False

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Collect changes until the end of the block, and write them; after an exception, forget them."""
        self.active = True
        try:
            yield
            self.flush()
        except BaseException:
            self._tables.forget()
            raise
        finally:
            self.active = False
            self._clear()

    def new_run(self, run_id: str) -> NewRun | None:
        """The collected creation of a run; None if the run exists already, or is unknown here."""
        change = self._changes.get(run_id)
        return None if change is None else change.new

    def change(self, run_id: str) -> RunChange:
        """The collected changes of a run. After adding to them, call `added`."""
        change = self._changes.get(run_id)
        if change is None:
            change = self._changes[run_id] = RunChange()
        return change

    def added(self, count: int) -> None:
        """Count added points and fields, and write the change set when it is large enough.

        Raises:
            RefusedTogether: the store refuses the collected changes as a whole.
            Refused: it refuses this change, which was written at once.
            Unavailable: it cannot be reached.
        """
        self._size += count
        if not self.active:
            try:
                self._tables.carry_out(self._changes)
            except Exception as error:
                raise _masked(error) from None
            finally:
                self._clear()
        elif self._size >= _PART:
            self._write(self._tables.begin)

    def flush(self) -> None:
        """Write what is collected; if that fails, it stays collected."""
        self._write(self._tables.carry_out if self._changes else lambda _: self._tables.settle())

    def flush_run(self, run_id: str) -> None:
        """Write what is collected, if that includes anything of this run."""
        if run_id in self._changes:
            self.flush()

    def _write(self, how: Callable[[ChangeSet], None]) -> None:
        try:
            how(self._changes)
        except Exception as error:
            # `Denied` may concern only some of the runs.
            if isinstance(error, Unavailable) and not isinstance(error, Denied):
                raise _masked(error) from None
            raise RefusedTogether(mask_text(str(error))) from None
        self._clear()

    def _clear(self) -> None:
        self._changes, self._size = {}, 0


def _masked(error: Exception) -> Exception:
    error.args = (mask_text(str(error)),)
    return error


def experiment_number(experiment_id: str) -> int:
    """The store's id of an experiment as the number that it is in a database.

    Raises:
        Refused: it is not a number, so there is no such experiment.
    """
    try:
        return int(experiment_id)
    except ValueError:
        raise Refused(f"No Experiment with id={experiment_id} exists") from None
