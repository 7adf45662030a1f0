"""The local folders of runs' artifacts, of runs that exist and of those that are only collected."""

from __future__ import annotations

from pathlib import Path

from trackdsl.delivery.database._collector import ChangeCollector
from trackdsl.delivery.database._tables import Tables
from trackdsl.delivery.database._writer import append_path
from trackdsl.delivery.store._local_artifacts import local_folder


class RunFolders:
    """Finds the artifact folders of runs.

    Args:
        tables: MLflow's tables.
        collector: has the runs that are not written yet.
    """

    def __init__(self, tables: Tables, collector: ChangeCollector) -> None:
        self._tables = tables
        self._collector = collector
        self._locations: dict[int, str] = {}
        self._last: tuple[str, Path | None] = "", None

    def folder_of(self, run_id: str) -> Path | None:
        """The local folder of a run's artifacts, or None if they are elsewhere.

        Raises:
            Unavailable: the store cannot be reached.
        """
        new = self._collector.new_run(run_id)
        if new is None:
            if self._last[0] != run_id:  # It never changes, and a run's files come one after the other.
                self._last = run_id, local_folder(self._tables.artifact_uri(run_id))
            return self._last[1]
        location = self._locations.get(new.experiment_id)
        if location is None:
            location = self._locations[new.experiment_id] = self._tables.experiment(new.experiment_id)[2]
        return local_folder(append_path(location, f"{run_id}/artifacts"))
