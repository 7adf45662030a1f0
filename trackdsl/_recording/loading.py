"""`load_artifact`: what a handler wrote, read back by it.

What decides is the tag that was recorded beside the artifact and the handlers of this process, never the artifact
itself. A format that can run code is read only when asked to, and after its hash is checked.
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
#: Formats of files that no handler has written, none of which runs code: suffix → the name of a handler.
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
    """A private copy of an artifact, and what is known of it."""

    path: Path
    note: FileNote


def load_artifact(
    run: RunHandle | str | Any, path: str, *, trusted: bool = False, tracking_uri: str | None = None
) -> Any:
    """Read an artifact back as the object it was written from.

    Frames, arrays, JSON, text, pictures and bytes load as they are. A file that no handler wrote is read by its suffix,
    and where that says nothing, as bytes. A pickle, and a model that holds one, can run any code when it is loaded: it
    loads with `trusted=True` alone, and only while its SHA-256 is the one that was recorded when it was written.

    Args:
        run: a `Run`, the id of a run (MLflow's or trackdsl's) or its name, of which the newest counts, or an
            `mlflow.entities.Run`.
        path: the artifact's path in the run, such as `frames/train.parquet`, or a model's name.
        trusted: whoever recorded the run is trusted with running code here.
        tracking_uri: where the run is; the run's own, else the configured one.

    Returns:
        the object. Figures come back as pictures.

    Raises:
        UntrustedArtifact: loading it may run code, and `trusted` was not given.
        ArtifactError: there is no such artifact, it has changed since it was written, it cannot be read, or its path
            leads out of the run.
        RunNotReady: the run is not at MLflow yet.

    Example:
        >>> frame = load_artifact("0123456789abcdef0123456789abcdef", "clean.parquet")  # doctest: +SKIP
    """
    try:
        place = checked_path(path)
    except (TypeError, ValueError) as error:
        raise ArtifactError(str(error), path=str(path)) from None
    if place != without_devices(place):
        raise ArtifactError(
            f"{place!r} is the name of a device on Windows; trackdsl keeps such a file as {without_devices(place)!r}",
            path=place,
        )
    if not place:
        raise ArtifactError(f"{path!r} names no file: give the path of a file, or a model's name", path=path)
    place = quoted_path(place)
    with tempfile.TemporaryDirectory(prefix="trackdsl-") as folder:
        fetched = _from_journal(run, place, path, Path(folder)) if isinstance(run, RunHandle) else None
        if fetched is None:
            fetched = _from_mlflow(run, place, path, Path(folder), tracking_uri)
        return read_fetched(fetched, place, trusted)


def read_fetched(fetched: Fetched, place: str, trusted: bool) -> Any:
    """Read what was fetched, by the handler that wrote it.

    Raises:
        UntrustedArtifact, ArtifactError: see `load_artifact`.
    """
    path, note = fetched.path, fetched.note
    suffix = path.suffix.lower()
    if not note.handler and suffix in _PICKLES:
        raise UntrustedArtifact(
            f"{place!r} is a pickle of which no SHA-256 was recorded, so trackdsl does not load it. Download it with "
            "mlflow.artifacts.download_artifacts, and load it yourself if you know where it comes from.",
            path=place,
        )
    if not note.handler and path.is_dir():
        raise ArtifactError(f"{place!r} is a folder: name one of the files in it", path=place)
    if not note.handler and suffix not in _BY_SUFFIX:
        return path.read_bytes()
    handler = _handler(note, suffix, place)
    if path.suffix != suffix:  # Handlers tell formats by suffixes in small letters.
        given, path = path, path.rename(path.with_suffix(suffix))
        _sidecar.move(given, path)
    if handler.executes:
        _check_trust(path, note, place, trusted)
        if (path / FOLDER).is_dir():
            _offer_code(path / FOLDER)
    try:
        return handler.read(path)
    except Exception as error:
        reraise_from_signal(error)
        raise ArtifactError(f"{place!r} cannot be read: {mask_text(format_error(error))}", path=place) from error


#: The code of models that were loaded; their modules may be imported, and read from, as long as the program runs.
_code: list[tempfile.TemporaryDirectory[str]] = []


def _offer_code(folder: Path) -> None:
    """Let the modules be imported that a model brings, where there are none of these names."""
    kept = tempfile.TemporaryDirectory(prefix="trackdsl-code-")
    shutil.copytree(folder, kept.name, dirs_exist_ok=True)
    _code.append(kept)
    sys.path.append(kept.name)


def _handler(note: FileNote, suffix: str, place: str) -> Handler:
    name = note.handler or _BY_SUFFIX[suffix]
    handler = handler_named(name)
    if handler is None:
        raise ArtifactError(
            f"{place!r} was written by the handler for {name}, which is not registered here. Install the package that "
            "brings it, or call register_handler.",
            path=place,
        )
    return handler


def _check_trust(path: Path, note: FileNote, place: str, trusted: bool) -> None:
    if not trusted:
        raise UntrustedArtifact(
            f"loading {place!r} can run any code that is in it. Pass trusted=True if you trust whoever recorded it.",
            path=place,
        )
    found = sha256_of_files(path) if path.is_dir() else sha256_of(path)
    if found != note.sha256:
        raise ArtifactError(
            f"{place!r} is not what was written: its SHA-256 is {found}, and {note.sha256 or 'none'} was recorded.",
            path=place,
        )


def _from_journal(run: RunHandle, place: str, name: str, folder: Path) -> Fetched | None:
    """An artifact that this process has recorded and that is not delivered yet."""
    writer = run.target.writer
    if writer is None:
        return None
    found = types = None
    # The journal may be delivered, and removed, while it is read.
    with contextlib.suppress(OSError):
        for event in read_all(writer.directory):
            if isinstance(event, (events.File, events.Model)) and event.run == run.key:
                rest = _below(event, place, name)
                found = (event, rest) if rest is not None else found
                types = event if isinstance(event, events.File) and event.path == _sidecar.place_of(place) else types
        if found is not None:
            event, rest = found
            source = snapshot_path(writer.directory, event.snapshot)
            target = folder / Path(place).name
            source = source / "model" if isinstance(event, events.Model) else source
            _copy(source / rest if rest else source, target)
            if types is not None and isinstance(event, events.File) and event.types:
                _copy(snapshot_path(writer.directory, types.snapshot), _sidecar.beside(target))
            return Fetched(target, FileNote() if rest else FileNote(event.handler, event.sha256))
    return None


def _below(event: events.File | events.Model, place: str, name: str) -> str | None:
    """What is left of `place` below an artifact; None where it is another one's. A model has its name as given."""
    if isinstance(event, events.Model):
        return "" if event.name in (name, place) else None
    if event.path == place:
        return ""
    if event.directory and (not event.path or place.startswith(f"{event.path}/")):
        return place[len(event.path) + 1 if event.path else 0 :]
    return None


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copyfile(source, target)


def _from_mlflow(run: Any, place: str, name: str, folder: Path, tracking_uri: str | None) -> Fetched:
    if isinstance(run, RunHandle) and not run.target.delivers:
        raise ArtifactError(f"run {run.name!r} has no artifact {place!r}", path=place)
    from mlflow import MlflowClient, artifacts
    from mlflow.exceptions import MlflowException

    from trackdsl.store_format.journals import absence_message

    uri = tracking_uri or (run.target.uri if isinstance(run, RunHandle) else target_for(settings.tracking_uri()).uri)
    client = MlflowClient(tracking_uri=uri)
    id_ = run.run_id if isinstance(run, RunHandle) else getattr(getattr(run, "info", None), "run_id", run)
    try:
        found = find_mlflow_run(client, id_, place, by_name=True)
    except MlflowException as error:
        reraise_from_signal(error)
        missing = f"there is no run {id_!r}: {mask_text(format_error(error))}"
        raise ArtifactError(absence_message(f"run {id_!r}", uri, missing), path=place) from None
    try:
        note, model = note_of(found.data.tags, place), None
        for called in dict.fromkeys((name, place)):
            noted = note_of(found.data.tags, called)
            handler = handler_named(noted.handler)
            if model is None and handler is not None and handler.model:
                note, model = noted, _model_uri(client, found.info, called)
        if model is not None:
            path = Path(artifacts.download_artifacts(artifact_uri=model, dst_path=str(folder), tracking_uri=uri))
        else:
            path = _downloaded(found.info, place, folder, uri)
            if note.types:
                _downloaded(found.info, _sidecar.place_of(place), folder, uri)
    except (MlflowException, OSError) as error:
        reraise_from_signal(error)
        missing = f"run {id_} has no artifact {place!r}: {mask_text(format_error(error))}"
        raise ArtifactError(absence_message(f"artifact {place!r} of run {id_}", uri, missing), path=place) from None
    if not path.exists() or (model is None and path.name != Path(place).name):
        missing = f"run {id_} has no artifact {place!r}"
        raise ArtifactError(absence_message(f"artifact {place!r} of run {id_}", uri, missing), path=place)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(f"{place!r} leads out of the run's folder", path=place)
    refuse_links(path, place)
    return Fetched(path, note)


def _downloaded(run: Any, place: str, folder: Path, uri: str) -> Path:
    from mlflow import artifacts

    root = _folder(run.artifact_uri)
    if root is not None and os.path.lexists(root / place):
        return _copied(root / place, place, folder)
    return Path(
        artifacts.download_artifacts(run_id=run.run_id, artifact_path=place, dst_path=str(folder), tracking_uri=uri)
    )


def _model_uri(client: Any, run: Any, place: str) -> str | None:
    """The model that a run has under this name, by its id: MLflow 3.1 asks a server for minutes by the run's."""
    from trackdsl.store_format.logged_models import logged_name

    # MLflow takes no quotes in a model's name, so none can end the text here.
    where = f"name = '{logged_name(place)}' AND source_run_id = '{run.run_id}'"
    found = client.search_logged_models([run.experiment_id], where, max_results=1)
    return f"models:/{found[0].model_id}" if found else None


def find_mlflow_run(client: Any, id_: Any, place: str, *, by_name: bool = False) -> Any:
    """The run of an id, MLflow's or trackdsl's own; or else, where that may be asked, the newest of a name."""
    from mlflow.exceptions import MlflowException

    if not isinstance(id_, str) or not _MLFLOW_ID.fullmatch(id_):
        raise ArtifactError(f"{id_!r} is no run: pass a Run or its id", path=place)
    try:
        return client.get_run(id_)
    except MlflowException:
        # It may be trackdsl's own id.
        experiments = [experiment.experiment_id for experiment in client.search_experiments(view_type=3)]
        found = client.search_runs(experiments, f"tags.`trackdsl.id` = '{id_}'", max_results=1) if experiments else []
        if not found and experiments and by_name:
            where = f"attributes.run_name = '{id_}'"
            found = client.search_runs(experiments, where, order_by=["start_time DESC"], max_results=1)
        if not found:
            raise
        return found[0]


def note_of(tags: dict[str, str], place: str) -> FileNote:
    """What the tags of a run say about an artifact.

    Raises:
        ArtifactError: what they say is damaged.
    """
    try:
        return note_of_file(tags, place) or FileNote()
    except ValueError as error:
        raise ArtifactError(f"what was recorded of {place!r} is damaged: {error}", path=place) from None


def _folder(root: str) -> Path | None:
    """The folder of a run's artifacts, where the store is one of files."""
    if root.startswith("file://"):
        return Path(unquote(urlsplit(root).path))
    return None if "://" in root or ":" in root.partition("/")[0] else Path(root)


def _copied(source: Path, place: str, folder: Path) -> Path:
    """Copy from a store of files, refusing links: they may lead anywhere on this machine."""
    path = source
    for _ in Path(place).parts:
        if path.is_symlink():
            raise ArtifactError(f"{place!r} is, or lies behind, a link, which may lead anywhere", path=place)
        path = path.parent
    refuse_links(source, place)
    target = folder / source.name
    _copy(source, target)
    return target


def refuse_links(path: Path, place: str) -> None:
    """See to it that a folder holds no links.

    Raises:
        ArtifactError: it does.
    """
    for directory, folders, files in os.walk(path):
        for name in (*folders, *files):
            if os.path.islink(os.path.join(directory, name)):
                raise ArtifactError(f"{place!r} holds a link, {name!r}, which may lead anywhere", path=place)
