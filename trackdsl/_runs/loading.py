"""`load_artifact`: read an artifact by the handler that wrote it.

A tag of the run names the handler; the artifact itself never decides. A format that can run code is read only with
`trusted=True`, and after its hash is checked.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from trackdsl._core import runtime
from trackdsl._core.artifact_paths import checked_path, quoted_path, without_devices
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import mask_text
from trackdsl._core.runtime import Phase
from trackdsl._recording.copies import sha256_of
from trackdsl._runs.fetching import Fetched, fetch_from_journal, fetch_from_mlflow
from trackdsl.errors import ArtifactError, UntrustedArtifact, format_error, reraise_from_signal
from trackdsl.handlers import _sidecar
from trackdsl.handlers._code import FOLDER
from trackdsl.handlers._handler import Handler
from trackdsl.handlers._model_files import sha256_of_files
from trackdsl.handlers._registry import handler_named
from trackdsl.store_format.files_tag import FileNote

#: Suffix → the handler for files that no handler wrote. None of these formats can run code.
_BY_SUFFIX = {
    **dict.fromkeys((".json", ".yaml", ".yml"), "builtins.dict"),
    **dict.fromkeys((".txt", ".md", ".log", ".html", ".svg", ".xml", ".sql", ".py"), "builtins.str"),
    **dict.fromkeys((".csv", ".parquet"), "pandas.DataFrame"),
    **dict.fromkeys((".npy", ".npz"), "numpy.ndarray"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tiff"), "PIL.Image.Image"),
}
_PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".dill", ".cloudpickle")


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
        raise ArtifactError(f"{path!r} does not name a file: pass the path of a file, or a model's name", path=path)
    artifact_path = quoted_path(artifact_path)
    with tempfile.TemporaryDirectory(prefix="trackdsl-") as folder:
        fetched = fetch_from_journal(run, artifact_path, path, Path(folder)) if isinstance(run, RunHandle) else None
        if fetched is None:
            fetched = fetch_from_mlflow(run, artifact_path, path, Path(folder), tracking_uri)
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
            f"{artifact_path!r} is a pickle without a recorded SHA-256, so trackdsl does not load it. "
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


#: The folders with the code of loaded models. The program may import its modules until it ends.
_code: list[str] = []


def _remove_code() -> None:
    while _code:
        shutil.rmtree(_code.pop(), ignore_errors=True)


# A forked child that ends leaves the folders to its parent, which may import from them later.
runtime.register("the code of loaded models", Phase.FILES, after_fork=_code.clear)
atexit.register(_remove_code)


def _offer_code(folder: Path) -> None:
    """Make the modules that come with a model importable; modules of the program with equal names come first."""
    kept = tempfile.mkdtemp(prefix="trackdsl-code-")
    _code.append(kept)
    shutil.copytree(folder, kept, dirs_exist_ok=True)
    sys.path.append(kept)


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
