"""A tracking server for queries: its runs, experiments and files, read through MLflow's REST API without MLflow."""

from __future__ import annotations

from collections.abc import Iterator

from trackdsl.delivery.rest._answers import Run
from trackdsl.delivery.rest._artifacts import ServerArtifacts, root_of
from trackdsl.delivery.rest._requests import Rest
from trackdsl.delivery.rest._runs import ServerRuns
from trackdsl.delivery.store._local_artifacts import Entry, LocalArtifacts, local_folder

__all__ = ["KnownServer", "Run"]

#: How often to ask again if a server cannot answer now, as MLflow's client does.
_RETRIES = 7


class KnownServer:
    """A server whose answers are read here. All methods raise `STORE_ERRORS`.

    Args:
        uri: the tracking URI.
    """

    def __init__(self, uri: str) -> None:
        self._rest = Rest(uri, own=False, retries=_RETRIES)
        self._runs = ServerRuns(self._rest)
        self._artifacts = ServerArtifacts(self._rest)
        self._local = LocalArtifacts()

    def close(self) -> None:
        """Close the connections."""
        self._rest.close()

    def experiments(self, *, deleted: bool) -> list[tuple[str, str]]:
        """The ids and names of its experiments; of deleted ones only if `deleted` is true."""
        return self._runs.experiments("ALL" if deleted else "ACTIVE_ONLY")

    def found(
        self, experiments: list[str], wanted: str, order: list[str], size: int, *, deleted: bool
    ) -> Iterator[list[Run]]:
        """See `ServerRuns.found`; deleted runs only if `deleted` is true."""
        return self._runs.found(experiments, wanted, "ALL" if deleted else "ACTIVE_ONLY", order, size)

    def history(self, run_id: str, key: str) -> list[tuple[int, float, int]]:
        """The points of a metric: step, value, time in milliseconds since 1970."""
        return self._runs.metric_history(run_id, key, None)

    def artifacts_of(self, run_id: str) -> str | None:
        """The URI of a run's artifacts; None if only MLflow's client can read them."""
        uri = self._runs.artifact_uri(run_id)
        return uri if root_of(uri) is not None or local_folder(uri) is not None else None

    def content(self, uri: str, path: str) -> bytes | None:
        """The content of a file below an URI of `artifacts_of`; None if there is none."""
        root, folder = root_of(uri), local_folder(uri)
        if root is not None:
            return None if self._artifacts.find(root, path) is None else self._artifacts.content(root, path)
        return None if folder is None else self._local.read(folder, path)

    def files(self, uri: str, inner: str) -> list[Entry]:
        """What is directly in a folder below an URI of `artifacts_of`, by path."""
        root, folder = root_of(uri), local_folder(uri)
        if root is not None:
            listed = self._artifacts.listed(root, inner or None)
            return [Entry(one.path, one.is_dir, one.file_size) for one in listed]
        return [] if folder is None else self._local.entries(folder, inner)
