"""`load_artifact`: read an artifact by the handler that wrote it.

A tag of the run names the handler; the artifact itself never decides. A format that can run code is read only with
`trusted=True`, and after its hash is checked.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from trackdsl._config import resolve as settings
from trackdsl._core import events
from trackdsl._core.artifact_paths import checked_path, quoted_path, without_devices
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import mask_text
from trackdsl._recording.artifacts import sha256_of
from trackdsl.errors import ArtifactError, UntrustedArtifact, format_error, reraise_from_signal
from trackdsl.handlers import _sidecar
from trackdsl.handlers._code import FOLDER
from trackdsl.handlers._handler import Handler
from trackdsl.handlers._model_files import sha256_of_files
from trackdsl.handlers._registry import handler_named
from trackdsl.journal._reader import read_all
from trackdsl.journal._snapshots import snapshot_path
from trackdsl.journal._target import target_for
from trackdsl.store_format.files_tag import FileNote, note_of_file

_MLFLOW_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: Suffix → the handler for files that no handler wrote. None of these formats can run code.
_BY_SUFFIX = {
    **dict.fromkeys((".json", ".yaml", ".yml"), "builtins.dict"),
    **dict.fromkeys((".txt", ".md", ".log", ".html", ".svg", ".xml", ".sql", ".py"), "builtins.str"),
    **dict.fromkeys((".csv", ".parquet"), "pandas.DataFrame"),
    **dict.fromkeys((".npy", ".npz"), "numpy.ndarray"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tiff"), "PIL.Image.Image"),
}
_PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".dill", ".cloudpickle")


@dataclass
class Fetched:
    """A private copy of an artifact, and what was recorded about it."""

    path: Path
    note: FileNote


def load_artifact(
    run: RunHandle | str | Any, path: str, *, trusted: bool = False, tracking_uri: str | None = None
) -> Any:
    """Read an artifact back as the object it was written from.

    Frames, arrays, JSON, text, images and bytes load as what they were. A file that no handler wrote is read by its
    suffix; with an unknown suffix, as bytes. A pickle, and a model with a pickle inside, can run any code when it is
    loaded. It loads only with `trusted=True`, and only if its SHA-256 is the one that was recorded with it.

    Args:
        run: a `Run`, the id of a run (MLflow's or trackdsl's), the name of a run (the newest one counts), or an
            `mlflow.entities.Run`.
        path: the artifact's path in the run, such as `frames/train.parquet`, or a model's name.
        trusted: allow code from this run to be executed, because you trust its author.
        tracking_uri: the store of the run; that of the `Run`, else the configured one.

    Returns:
        the object. A figure comes back as an image.

    Raises:
        UntrustedArtifact: loading it may run code, and `trusted` is not set.
        ArtifactError: there is no such artifact, it was changed since, it cannot be read, or its path leads out of the
            run.
        RunNotReady: the run is not at MLflow yet.

    Example:
        >>> frame = load_artifact("0123456789abcdef0123456789abcdef", "clean.parquet")  # doctest: +SKIP
    """
    try:
        artifact_path = checked_path(path)
    except (TypeError, ValueError) as error:
        raise ArtifactError(str(error), path=str(path)) from None
    if artifact_path != without_devices(artifact_path):
        raise ArtifactError(
            f"{artifact_path!r} is the name of a device on Windows; trackdsl keeps such a file as "
            f"{without_devices(artifact_path)!r}",
            path=artifact_path,
        )
    if not artifact_path:
        raise ArtifactError(f"{path!r} names no file: pass the path of a file, or a model's name", path=path)
    artifact_path = quoted_path(artifact_path)
    with tempfile.TemporaryDirectory(prefix="trackdsl-") as folder:
        fetched = _from_journal(run, artifact_path, path, Path(folder)) if isinstance(run, RunHandle) else None
        if fetched is None:
            fetched = _from_mlflow(run, artifact_path, path, Path(folder), tracking_uri)
        return read_fetched(fetched, artifact_path, trusted)


def read_fetched(fetched: Fetched, artifact_path: str, trusted: bool) -> Any:
    """Read a fetched artifact by the handler that wrote it.

    Raises:
        UntrustedArtifact, ArtifactError: see `load_artifact`.
    """
    path, note = fetched.path, fetched.note
    suffix = path.suffix.lower()
    if not note.handler and suffix in _PICKLES:
        raise UntrustedArtifact(
            f"{artifact_path!r} is a pickle of which no SHA-256 was recorded, so trackdsl does not load it. "
            "Download it with mlflow.artifacts.download_artifacts, and load it yourself if you know where it comes "
            "from.",
            path=artifact_path,
        )
    if not note.handler and path.is_dir():
        raise ArtifactError(f"{artifact_path!r} is a folder: name one of the files in it", path=artifact_path)
    if not note.handler and suffix not in _BY_SUFFIX:
        return path.read_bytes()
    handler = _handler(note, suffix, artifact_path)
    if path.suffix != suffix:  # Handlers select the format by a suffix in lower case.
        given, path = path, path.rename(path.with_suffix(suffix))
        _sidecar.move(given, path)
    if handler.executes:
        _check_trust(path, note, artifact_path, trusted)
        if (path / FOLDER).is_dir():
            _offer_code(path / FOLDER)
    try:
        return handler.read(path)
    except Exception as error:
        reraise_from_signal(error)
        raise ArtifactError(
            f"{artifact_path!r} cannot be read: {mask_text(format_error(error))}", path=artifact_path
        ) from error


#: The code of loaded models. The program may import its modules until it ends.
_code: list[tempfile.TemporaryDirectory[str]] = []


def _offer_code(folder: Path) -> None:
    """Make the modules that come with a model importable; modules of the program with equal names come first."""
    kept = tempfile.TemporaryDirectory(prefix="trackdsl-code-")
    shutil.copytree(folder, kept.name, dirs_exist_ok=True)
    _code.append(kept)
    sys.path.append(kept.name)


def _handler(note: FileNote, suffix: str, artifact_path: str) -> Handler:
    name = note.handler or _BY_SUFFIX[suffix]
    handler = handler_named(name)
    if handler is None:
        raise ArtifactError(
            f"{artifact_path!r} was written by the handler for {name}, which is not registered here. Install the "
            "package that brings it, or call register_handler.",
            path=artifact_path,
        )
    return handler


def _check_trust(path: Path, note: FileNote, artifact_path: str, trusted: bool) -> None:
    if not trusted:
        raise UntrustedArtifact(
            f"loading {artifact_path!r} can run any code that is in it. Pass trusted=True if you trust its author.",
            path=artifact_path,
        )
    found = sha256_of_files(path) if path.is_dir() else sha256_of(path)
    if found != note.sha256:
        raise ArtifactError(
            f"{artifact_path!r} is not what was written: its SHA-256 is {found}, but {note.sha256 or 'none'} was "
            "recorded.",
            path=artifact_path,
        )


def _from_journal(run: RunHandle, artifact_path: str, name: str, folder: Path) -> Fetched | None:
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
                    if isinstance(event, events.File) and event.path == _sidecar.place_of(artifact_path)
                    else types
                )
        if found is not None:
            event, rest = found
            source = snapshot_path(writer.directory, event.snapshot)
            target = folder / Path(artifact_path).name
            source = source / "model" if isinstance(event, events.Model) else source
            _copy(source / rest if rest else source, target)
            if types is not None and isinstance(event, events.File) and event.types:
                _copy(snapshot_path(writer.directory, types.snapshot), _sidecar.beside(target))
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


def _from_mlflow(run: Any, artifact_path: str, name: str, folder: Path, tracking_uri: str | None) -> Fetched:
    if isinstance(run, RunHandle) and not run.target.delivers:
        raise ArtifactError(f"run {run.name!r} has no artifact {artifact_path!r}", path=artifact_path)
    from mlflow import MlflowClient, artifacts
    from mlflow.exceptions import MlflowException

    from trackdsl.store_format.journals import absence_message

    uri = tracking_uri or (run.target.uri if isinstance(run, RunHandle) else target_for(settings.tracking_uri()).uri)
    client = MlflowClient(tracking_uri=uri)
    id_ = run.run_id if isinstance(run, RunHandle) else getattr(getattr(run, "info", None), "run_id", run)
    try:
        found = find_mlflow_run(client, id_, artifact_path, by_name=True)
    except MlflowException as error:
        reraise_from_signal(error)
        missing = f"there is no run {id_!r}: {mask_text(format_error(error))}"
        raise ArtifactError(absence_message(f"run {id_!r}", uri, missing), path=artifact_path) from None
    try:
        note, model = note_of(found.data.tags, artifact_path), None
        for called in dict.fromkeys((name, artifact_path)):
            noted = note_of(found.data.tags, called)
            handler = handler_named(noted.handler)
            if model is None and handler is not None and handler.model:
                note, model = noted, _model_uri(client, found.info, called)
        if model is not None:
            path = Path(artifacts.download_artifacts(artifact_uri=model, dst_path=str(folder), tracking_uri=uri))
        else:
            path = _downloaded(found.info, artifact_path, folder, uri)
            if note.types:
                _downloaded(found.info, _sidecar.place_of(artifact_path), folder, uri)
    except (MlflowException, OSError) as error:
        reraise_from_signal(error)
        missing = f"run {id_} has no artifact {artifact_path!r}: {mask_text(format_error(error))}"
        raise ArtifactError(
            absence_message(f"artifact {artifact_path!r} of run {id_}", uri, missing), path=artifact_path
        ) from None
    if not path.exists() or (model is None and path.name != Path(artifact_path).name):
        missing = f"run {id_} has no artifact {artifact_path!r}"
        raise ArtifactError(
            absence_message(f"artifact {artifact_path!r} of run {id_}", uri, missing), path=artifact_path
        )
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(f"{artifact_path!r} leads out of the run's folder", path=artifact_path)
    refuse_links(path, artifact_path)
    return Fetched(path, note)


def _downloaded(run: Any, artifact_path: str, folder: Path, uri: str) -> Path:
    from mlflow import artifacts

    root = _folder(run.artifact_uri)
    if root is not None and os.path.lexists(root / artifact_path):
        return _copied(root / artifact_path, artifact_path, folder)
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
        raise ArtifactError(f"{id_!r} is no run: pass a Run or its id", path=artifact_path)
    try:
        return client.get_run(id_)
    except MlflowException:
        # The id may be trackdsl's own.
        experiments = [experiment.experiment_id for experiment in client.search_experiments(view_type=3)]
        found = client.search_runs(experiments, f"tags.`trackdsl.id` = '{id_}'", max_results=1) if experiments else []
        if not found and experiments and by_name:
            where = f"attributes.run_name = '{id_}'"
            found = client.search_runs(experiments, where, order_by=["start_time DESC"], max_results=1)
        if not found:
            raise
        return found[0]


def note_of(tags: dict[str, str], artifact_path: str) -> FileNote:
    """What the tags of a run say about an artifact.

    Raises:
        ArtifactError: what they say is damaged.
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


def _copied(source: Path, artifact_path: str, folder: Path) -> Path:
    """Copy from a local store. Links are refused: they may lead anywhere on this machine."""
    path = source
    for _ in Path(artifact_path).parts:
        if path.is_symlink():
            raise ArtifactError(
                f"{artifact_path!r} is, or lies behind, a link, which may lead anywhere", path=artifact_path
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
                    f"{artifact_path!r} holds a link, {name!r}, which may lead anywhere", path=artifact_path
                )
