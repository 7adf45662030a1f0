"""What a sink that writes runs itself leaves to another one: models, traces, and artifacts that are not local files."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from trackdsl._core.events import Model
from trackdsl.delivery.store._local_artifacts import LocalArtifacts
from trackdsl.delivery.store._run_trace import RunTrace
from trackdsl.delivery.store._sink import ClientSink, RemoteFiles


class PartialSink(ABC):
    """A part of a sink: artifacts in local folders are written here, and other ones by another sink, as models are.

    Args:
        open_other: opens the other sink, which may import MLflow. This is done when it is first needed.
    """

    def __init__(self, open_other: Callable[[], ClientSink]) -> None:
        self._open_other = open_other
        self._opened: ClientSink | None = None
        self._opening = threading.Lock()
        self._local = LocalArtifacts()

    def close(self) -> None:
        """See `Sink`."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def files(self, run_id: str) -> RemoteFiles | None:
        """See `Sink`."""
        return self._other() if self._folder_of(run_id) is None else None

    def write_artifact(self, run_id: str, local: Path, path: str, *, directory: bool) -> None:
        """See `Sink`."""
        folder = self._folder_of(run_id)
        if folder is None:
            self._other().write_artifact(run_id, local, path, directory=directory)
        else:
            self._local.write(folder, local, path, directory=directory)

    def write_text(self, run_id: str, text: str, path: str) -> None:
        """See `Sink`."""
        folder = self._folder_of(run_id)
        if folder is None:
            self._other().write_text(run_id, text, path)
        else:
            self._local.write_text(folder, text, path)

    def read_artifact(self, run_id: str, path: str) -> bytes | None:
        """See `Sink`."""
        folder = self._folder_of(run_id)
        return self._other().read_artifact(run_id, path) if folder is None else self._local.read(folder, path)

    def list_files(self, run_id: str, most: int) -> list[tuple[str, int | None]]:
        """See `Sink`."""
        folder = self._folder_of(run_id)
        return self._other().list_files(run_id, most) if folder is None else self._local.listed(folder, most)

    def write_model(self, run_id: str, experiment_id: str, event: Model, local: Path) -> str:
        """See `Sink`."""
        return self._other().write_model(run_id, experiment_id, event, local)

    def write_trace(self, trace: RunTrace, check_interrupt: Callable[[], None]) -> str:
        """See `Sink`."""
        return self._other().write_trace(trace, check_interrupt)

    def find_model(self, key: str, experiment_id: str) -> str | None:
        """See `Sink`."""
        return self._other().find_model(key, experiment_id)

    def model_points(self, model_id: str) -> list[tuple[str, str, int, int]]:
        """See `Sink`."""
        return self._other().model_points(model_id)

    def write_model_points(
        self, run_id: str, model_id: str, points: list[tuple[str, float, int, int]], dataset: tuple[str, str] | None
    ) -> None:
        """See `Sink`."""
        self._other().write_model_points(run_id, model_id, points, dataset)

    def write_model_input(self, run_id: str, model_id: str) -> None:
        """See `Sink`."""
        self._other().write_model_input(run_id, model_id)

    @abstractmethod
    def _folder_of(self, run_id: str) -> Path | None:
        """The local folder of a run's artifacts; None if they are elsewhere."""

    def _other(self) -> ClientSink:
        with self._opening:
            if self._opened is None:
                self._opened = self._open_other()
            return self._opened
