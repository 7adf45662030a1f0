"""What comparisons and reports both read of a recorded run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class RunFacts(Protocol):
    """A recorded run, as far as each reader of runs needs it."""

    @property
    def run_id(self) -> str:
        """MLflow's id."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def status(self) -> str:
        """`FINISHED`, `FAILED`, `KILLED` or `RUNNING`."""

    @property
    def params(self) -> Mapping[str, str]:
        """Its parameters, as text."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """The latest value of each of its metrics."""

    @property
    def tags(self) -> Mapping[str, str]:
        """Its tags."""
