"""The handle of a recorded model: its id at MLflow, and methods that load and register it.

`log_model` returns at once. The methods that need MLflow wait for delivery.
"""

from __future__ import annotations

import os
import time
from typing import Any

from trackdsl._config import resolve as settings
from trackdsl._core.events import Model, model_key
from trackdsl._core.handle import RunHandle
from trackdsl._runs.loading import read_fetched
from trackdsl._runs.model_registry import fetch_logged, find_recorded, register_model
from trackdsl._server.reachable import check
from trackdsl.errors import ArtifactError, RunNotReady, TrackingServerError
from trackdsl.handlers.references import Handle, remember_loaded
from trackdsl.store_format.files_tag import FileNote

#: Seconds between two checks whether the store answers.
_SLICE = 2.0
#: Seconds to wait where no delivery of this program is under way.
_PATIENCE = 60.0
#: Seconds between two queries of the store, where no delivery of this program is under way.
_POLL = 0.1
#: Seconds without an answer of the store after which waiting ends.
_AWAY = 10.0


class RecordedModel(Handle):
    """A recorded model. You get one from `log_model`.

    You can send it to other processes and pass it to `log_metric(..., model=...)`. If it is an argument of a stage, the
    stage's run has the model as an input.

    Attributes:
        name: the model's name.

    Example:
        >>> recorded = run.log_model(model, "classifier")  # doctest: +SKIP
        >>> recorded.uri  # doctest: +SKIP
        'models:/m-0123456789abcdef0123456789abcdef'
        >>> recorded.register("churn").version  # doctest: +SKIP
        1
    """

    __module__ = "trackdsl"
    __slots__ = ("_model_id", "_note", "_process", "_reason", "_run", "_uri")

    def __init__(self, run: RunHandle | None, name: str, recorded: Model | str) -> None:
        """Make the handle of a model.

        Args:
            run: the run that recorded it; None if there was none.
            name: the model's name.
            recorded: its event, or why it was not recorded.
        """
        super().__init__(name, "" if isinstance(recorded, str) else model_key(recorded))
        self._run = run
        self._reason = recorded if isinstance(recorded, str) else ""
        self._note = FileNote() if isinstance(recorded, str) else FileNote(recorded.handler, recorded.sha256)
        self._uri = "" if run is None else run.target.uri
        self._model_id: str | None = None
        self._process = os.getpid()

    @property
    def model_id(self) -> str:
        """MLflow's id of the model. Waits for its delivery; see `wait`."""
        return self.wait()

    @property
    def uri(self) -> str:
        """The URI that MLflow loads the model by, `models:/<model id>`; waits like `model_id`."""
        return f"models:/{self.model_id}"

    def wait(self, timeout: float | None = None) -> str:
        """Wait until MLflow has the whole model.

        Args:
            timeout: the most seconds to wait; by default as long as delivery is at work, and 60 s without it. If the
                store does not answer, waiting ends after 10 s.

        Returns:
            MLflow's id of the model.

        Raises:
            RunNotReady: MLflow does not have it in time, or this program delivers nothing (offline, disabled).
            ArtifactError: it was never recorded, or MLflow refused it.
        """
        if self._model_id is None:
            self._model_id = self._wait(timeout)
        return self._model_id

    def load(self, *, timeout: float | None = None) -> Any:
        """Load the model from where MLflow keeps it, as the object that was recorded.

        The files must have the SHA-256 that this program computed, so only its own files are loaded.

        Args:
            timeout: as for `wait`.

        Returns:
            the estimator, network, or other object.

        Raises:
            RunNotReady: see `wait`.
            ArtifactError: see `wait`; or the files were changed, or cannot be read.
        """
        uri = f"models:/{self.wait(timeout)}"
        with fetch_logged(self._uri, uri, self._note) as fetched:
            value = read_fetched(fetched, uri, trusted=True)
        remember_loaded(value, self.model_id)
        return value

    def register(self, name: str, *, timeout: float | None = None) -> Any:
        """Make the model the next version of a registered model.

        Args:
            name: of the registered model, which is created if it does not exist.
            timeout: as for `wait`.

        Returns:
            the `mlflow.entities.model_registry.ModelVersion`.

        Raises:
            OptionError: MLflow cannot accept the name.
            RegistryError: MLflow refuses, for example because the name belongs to a prompt.
            RunNotReady, ArtifactError: see `wait`.
        """
        return register_model(f"models:/{self.wait(timeout)}", name, tracking_uri=self._uri, timeout=timeout)

    def _wait(self, timeout: float | None) -> str:
        self._check_recorded()
        from trackdsl.delivery import flush

        limit = _PATIENCE if timeout is None else timeout
        uri, give_up, away_since = self._uri, time.monotonic() + limit, 0.0
        while True:
            begun = time.monotonic()
            delivered = timeout is None and flush()  # As long as delivery is at work, which does not count.
            give_up += time.monotonic() - begun
            delivered = delivered or flush(max(0.0, min(_SLICE, give_up - time.monotonic())))
            away = None if delivered else _why_away(uri)
            found = find_recorded(uri, self.key) if delivered or (away is None and self._run_exists()) else None
            if found is not None:
                return found
            now = time.monotonic()
            away_since = 0.0 if away is None else away_since or now
            if delivered and self._run is not None and self._is_own():
                raise ArtifactError(
                    f"MLflow has no model {self.name!r} of run {self._run.name!r}, though all of the run is delivered: "
                    f"a tag `trackdsl.omitted.{self.name}` of the run says why, unless it was deleted.",
                    path=self.name,
                )
            if settings.mode() == "offline" or now >= give_up or (away_since and now - away_since >= _AWAY):
                offline = "this program is offline" if settings.mode() == "offline" else None
                raise self._not_ready(away or offline or f"it was not delivered in {limit:g} s")
            if delivered:  # What this process recorded is delivered, so the model is another process's.
                time.sleep(_POLL)

    def _is_own(self) -> bool:
        """Whether this process recorded the model, and not its parent before a fork."""
        return self._process == os.getpid()

    def _run_exists(self) -> bool:
        """Whether MLflow has the run. Before that, delivery may be creating the store, so it must not be read."""
        if self._run is None or not self._is_own():
            return not self._uri.startswith("sqlite") or os.path.exists(self._uri.partition(":///")[2])
        try:
            return bool(self._run.wait_for_mlflow(0))
        except RunNotReady:
            return False

    def _check_recorded(self) -> None:
        if self._reason:
            raise ArtifactError(f"model {self.name!r} was not recorded: {self._reason}", path=self.name)
        target = self._run.target if self._run is not None and self._is_own() else None
        delivers = settings.mode() != "disabled" and (target is None or (target.writer is not None and target.delivers))
        if not delivers:
            raise RunNotReady(
                f"model {self.name!r} has no id at MLflow: this program delivers nothing. Set TRACKDSL_MODE=online.",
                run=self.key,
            )

    def _not_ready(self, reason: str) -> RunNotReady:
        return RunNotReady(
            f"model {self.name!r} is not at MLflow yet: {reason}. It is kept on this machine: make sure that the store "
            "answers and run `trackdsl sync`, then ask again. `trackdsl status` shows what is waiting.",
            run=self.key,
            reason=reason,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.name, self.key, self._uri, self._reason, self._note, self._model_id)

    def __repr__(self) -> str:
        return f"<RecordedModel {self.name!r} {self._model_id or 'not delivered yet'}>"


def _restored(name: str, key: str, uri: str, reason: str, note: FileNote, model_id: str | None) -> RecordedModel:
    handle = RecordedModel(None, name, reason)
    handle.key, handle._uri, handle._note, handle._model_id = key, uri, note, model_id
    return handle


def _why_away(uri: str) -> str | None:
    """Why the store does not answer; None if it answers."""
    try:
        check(uri)
    except TrackingServerError as error:
        return str(error)
    return None


def unrecorded(name: str, reason: str) -> RecordedModel:
    """The handle of a model that was not recorded."""
    return RecordedModel(None, name, reason)
