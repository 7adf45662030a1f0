"""A private copy of an artifact: from the journal of this process, or from MLflow."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from trackdsl._config import resolve as settings
from trackdsl._core import events
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import mask_text
from trackdsl.errors import ArtifactError, format_error, reraise_from_signal
from trackdsl.handlers import _sidecar
from trackdsl.handlers._registry import handler_named
from trackdsl.journal._reader import read_all
from trackdsl.journal._snapshots import snapshot_path
from trackdsl.journal._target import target_for
from trackdsl.store_format.files_tag import FileNote, note_of_file
from trackdsl.store_format.tags import ID_TAG

_MLFLOW_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass
class Fetched:
    """A private copy of an artifact, and what was recorded about it."""

    path: Path
    note: FileNote


def fetch_from_journal(run: RunHandle, artifact_path: str, name: str, folder: Path) -> Fetched | None:
    """An artifact that this process recorded and that is not delivered yet; else None."""
    writer = run.target.writer
    if writer is None:
        return None
    found = types = None
    # Delivery may remove the journal while it is read.
    with contextlib.suppress(OSError):
        for event in read_all(writer.directory):
            if isinstance(event, (events.File, events.Model)) and event.run == run.key:
                rest = _below(event, artifact_path, name)
                found = (event, rest) if rest is not None else found
                types = (
                    event
                    if isinstance(event, events.File) and event.path == _sidecar.path_of_types(artifact_path)
                    else types
                )
        if found is not None:
            event, rest = found
            source = snapshot_path(writer.directory, event.snapshot)
            target = folder / Path(artifact_path).name
            source = source / "model" if isinstance(event, events.Model) else source
            _copy(source / rest if rest else source, target)
            if types is not None and isinstance(event, events.File) and event.types:
                _copy(snapshot_path(writer.directory, types.snapshot), _sidecar.sidecar_path(target))
            return Fetched(target, FileNote() if rest else FileNote(event.handler, event.sha256))
    return None


def _below(event: events.File | events.Model, artifact_path: str, name: str) -> str | None:
    """The rest of `artifact_path` below an artifact; None if it is not inside. A model is found by its name."""
    if isinstance(event, events.Model):
        return "" if event.name in (name, artifact_path) else None
    if event.path == artifact_path:
        return ""
    if event.directory and (not event.path or artifact_path.startswith(f"{event.path}/")):
        return artifact_path[len(event.path) + 1 if event.path else 0 :]
    return None


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copyfile(source, target)


def fetch_from_mlflow(run: Any, artifact_path: str, name: str, folder: Path, tracking_uri: str | None) -> Fetched:
    if isinstance(run, RunHandle) and not run.target.delivers:
        raise ArtifactError(f"run {run.name!r} has no artifact {artifact_path!r}", path=artifact_path)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = tracking_uri or (run.target.uri if isinstance(run, RunHandle) else target_for(settings.tracking_uri()).uri)
    client = MlflowClient(tracking_uri=uri)
    id_ = run.run_id if isinstance(run, RunHandle) else getattr(getattr(run, "info", None), "run_id", run)
    try:
        found = find_mlflow_run(client, id_, artifact_path, by_name=True)
    except MlflowException as error:
        reraise_from_signal(error)
        raise _absent(f"run {id_!r}", f"there is no run {id_!r}", uri, artifact_path, error) from None
    what, missing = f"artifact {artifact_path!r} of run {id_}", f"run {id_} has no artifact {artifact_path!r}"
    try:
        fetched = _fetch_model(client, found, (name, artifact_path), folder, uri)
        is_model = fetched is not None
        if fetched is None:
            fetched = _fetch_file(found, artifact_path, folder, uri)
    except (MlflowException, OSError) as error:
        reraise_from_signal(error)
        raise _absent(what, missing, uri, artifact_path, error) from None
    path = fetched.path
    if not path.exists() or (not is_model and path.name != Path(artifact_path).name):
        raise _absent(what, missing, uri, artifact_path)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(f"{artifact_path!r} is outside the run's folder", path=artifact_path)
    refuse_links(path, artifact_path)
    return fetched


def _absent(what: str, missing: str, uri: str, artifact_path: str, error: Exception | None = None) -> ArtifactError:
    """The error about something that MLflow does not have: it may be among the events that are not delivered yet."""
    from trackdsl.store_format.journals import absence_message

    reason = missing if error is None else f"{missing}: {mask_text(format_error(error))}"
    return ArtifactError(absence_message(what, uri, reason), path=artifact_path)


def _fetch_model(client: Any, run: Any, names: tuple[str, ...], folder: Path, uri: str) -> Fetched | None:
    """The run's model with the first of these names that one has; None if there is none."""
    from mlflow import artifacts

    for name in dict.fromkeys(names):
        note = note_of(run.data.tags, name)
        handler = handler_named(note.handler)
        if handler is None or not handler.model:
            continue
        model = _model_uri(client, run.info, name)
        if model is not None:
            path = artifacts.download_artifacts(artifact_uri=model, dst_path=str(folder), tracking_uri=uri)
            return Fetched(Path(path), note)
    return None


def _fetch_file(run: Any, artifact_path: str, folder: Path, uri: str) -> Fetched:
    note = note_of(run.data.tags, artifact_path)
    path = _download(run.info, artifact_path, folder, uri)
    if note.types:
        _download(run.info, _sidecar.path_of_types(artifact_path), folder, uri)
    return Fetched(path, note)


def _download(run: Any, artifact_path: str, folder: Path, uri: str) -> Path:
    from mlflow import artifacts

    root = _folder(run.artifact_uri)
    if root is not None and os.path.lexists(root / artifact_path):
        return _copy_local(root / artifact_path, artifact_path, folder)
    return Path(
        artifacts.download_artifacts(
            run_id=run.run_id, artifact_path=artifact_path, dst_path=str(folder), tracking_uri=uri
        )
    )


def _model_uri(client: Any, run: Any, artifact_path: str) -> str | None:
    """The URI of the run's model of this name, with the model's id: with the run's id, MLflow 3.1 takes minutes."""
    from trackdsl.store_format.logged_models import logged_name

    # A model's name in MLflow contains no quotes, so it cannot end the string.
    where = f"name = '{logged_name(artifact_path)}' AND source_run_id = '{run.run_id}'"
    found = client.search_logged_models([run.experiment_id], where, max_results=1)
    return f"models:/{found[0].model_id}" if found else None


def find_mlflow_run(client: Any, id_: Any, artifact_path: str, *, by_name: bool = False) -> Any:
    """The run with an id, MLflow's or trackdsl's; with `by_name`, else the newest run of that name."""
    from mlflow.exceptions import MlflowException

    if not isinstance(id_, str) or not _MLFLOW_ID.fullmatch(id_):
        raise ArtifactError(f"{id_!r} is not a run: pass a Run or its id", path=artifact_path)
    try:
        return client.get_run(id_)
    except MlflowException:
        # The id may be trackdsl's own.
        experiments = [experiment.experiment_id for experiment in client.search_experiments(view_type=3)]
        found = client.search_runs(experiments, f"tags.`{ID_TAG}` = '{id_}'", max_results=1) if experiments else []
        if not found and experiments and by_name:
            where = f"attributes.run_name = '{id_}'"
            found = client.search_runs(experiments, where, order_by=["start_time DESC"], max_results=1)
        if not found:
            raise
        return found[0]


def note_of(tags: dict[str, str], artifact_path: str) -> FileNote:
    """The note about an artifact in the tags of its run.

    Raises:
        ArtifactError: the note is damaged.
    """
    try:
        return note_of_file(tags, artifact_path) or FileNote()
    except ValueError as error:
        raise ArtifactError(f"the tag about {artifact_path!r} is damaged: {error}", path=artifact_path) from None


def _folder(root: str) -> Path | None:
    """The folder of a run's artifacts, if they are local files."""
    if root.startswith("file://"):
        return Path(unquote(urlsplit(root).path))
    return None if "://" in root or ":" in root.partition("/")[0] else Path(root)


def _copy_local(source: Path, artifact_path: str, folder: Path) -> Path:
    """Copy from a local store. Links are refused: they may lead anywhere on this machine."""
    path = source
    for _ in Path(artifact_path).parts:
        if path.is_symlink():
            raise ArtifactError(
                f"{artifact_path!r} is a link, or is inside a linked folder, and a link may lead anywhere",
                path=artifact_path,
            )
        path = path.parent
    refuse_links(source, artifact_path)
    target = folder / source.name
    _copy(source, target)
    return target


def refuse_links(path: Path, artifact_path: str) -> None:
    """Check that a folder contains no links.

    Raises:
        ArtifactError: it contains one.
    """
    for directory, folders, files in os.walk(path):
        for name in (*folders, *files):
            if os.path.islink(os.path.join(directory, name)):
                raise ArtifactError(
                    f"{artifact_path!r} contains a link, {name!r}, which may lead anywhere", path=artifact_path
                )
