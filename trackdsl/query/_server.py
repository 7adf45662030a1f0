"""Reads runs of a tracking server without MLflow, whose import takes longer than most queries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trackdsl.delivery.known_server import KnownServer, Run
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundExperiment, FoundRun, HistoryPoint

if TYPE_CHECKING:
    from trackdsl.delivery.known_tables import Entry


class ServerReader(PagedReader):
    """Reads a server; of artifacts that it does not keep itself, MLflow's client reads the content.

    Args:
        uri: the tracking URI.
        server: the server.
    """

    def __init__(self, uri: str, server: KnownServer) -> None:
        super().__init__(uri)
        self._server = server

    def close(self) -> None:
        """See `PagedReader`."""
        self._server.close()

    def experiments(self, *, deleted: bool = False) -> list[FoundExperiment]:
        """See `PagedReader`."""
        return [FoundExperiment(id_, name) for id_, name in self._server.experiments(deleted=deleted)]

    def history(self, run_id: str, key: str) -> list[HistoryPoint]:
        """See `PagedReader`."""
        return [HistoryPoint(step, value, time) for step, value, time in self._server.history(run_id, key)]

    def content(self, run_id: str, path: str) -> bytes | None:
        """See `PagedReader`."""
        uri = self._server.artifacts_of(run_id)
        return super().content(run_id, path) if uri is None else self._server.content(uri, path)

    def files(self, run_id: str, folder: str) -> list[Entry]:
        """See `PagedReader`."""
        uri = self._server.artifacts_of(run_id)
        return super().files(run_id, folder) if uri is None else self._server.files(uri, folder)

    def _found_pages(
        self, experiments: list[str], wanted: str, order: list[str], size: int, *, deleted: bool
    ) -> Iterator[list[FoundRun]]:
        for page in self._server.found(experiments, wanted, order, size, deleted=deleted):
            yield [_run_of(run) for run in page]


def _run_of(run: Run) -> FoundRun:
    return FoundRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        experiment_id=run.info.experiment_id,
        status=run.info.status,
        start=run.info.start_time,
        end=run.info.end_time,
        params={each.key: each.value for each in run.data.params},
        metrics={each.key: each.value for each in run.data.metrics},
        tags={each.key: each.value for each in run.data.tags},
    )
