"""Snapshots of artifacts: a copy in the journal's folder, made before the call returns, then one event.

The copy is made by the kernel (`copy_file_range`, a shared extent where the file system can), never through memory.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from trackdsl._core.argument_order import has_suffix, is_path
from trackdsl._core.artifact_paths import checked_path, masked_path, portable_path
from trackdsl._core.events import File, ModelInput
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import mask_prose, mask_text
from trackdsl._recording.copies import copy_file, copy_folder, rename_unsafe, sha256_of
from trackdsl._recording.emit import append_params, append_tags
from trackdsl._recording.flatten import Flat
from trackdsl._recording.params import LONG_TEXT, cut_texts, params_of, path_part
from trackdsl._recording.unserializable import OmittedParts
from trackdsl.errors import format_error, is_fault, report, reraise_from_signal
from trackdsl.handlers import _sidecar
from trackdsl.handlers._content import content_of, has_content, text_of_key
from trackdsl.handlers._handler import Handler
from trackdsl.handlers._pickled import Pickled
from trackdsl.handlers._registry import handler_for, handler_of, name_of, writer_for
from trackdsl.handlers._types import class_name
from trackdsl.handlers.json import Json, write_json
from trackdsl.handlers.scalars import secret
from trackdsl.handlers.text import Text
from trackdsl.journal._allocation import is_shortage
from trackdsl.store_format.tags import RENAMED, TRUNCATED

#: A list of more files than this is one file.
_MAX_PARTS = 200


def named(source: Any) -> Path:
    """Check the path of a file or folder.

    Raises:
        FileNotFoundError: the path is empty or None, such as that of a checkpoint that was never written. An empty
            `Path` would mean the working directory.
    """
    if source is None or not os.fspath(source):
        raise FileNotFoundError(2, "no file is named", source)
    return Path(source)


def keep_given(run: RunHandle, source: Any, artifact_path: str | None) -> None:
    """Keep a file or folder, several of them, or an object as a file; see `Run.log_artifact`."""
    if source is None or is_path(source):
        snapshot(run, named(source), artifact_path)
    elif artifact_path is None or (isinstance(source, (list, tuple)) and all(map(is_path, source))):
        folder = None if artifact_path is None else f"{artifact_path.rstrip('/')}/"
        for one in source:
            snapshot(run, named(one), folder)
    else:
        handler = handler_of(source)
        keep_object(run, artifact_path if has_suffix(artifact_path) else f"{artifact_path}{handler.suffix}", source)


def snapshot(run: RunHandle, source: Path, artifact_path: str | None) -> None:
    """Keep a copy of a file or folder; see `Run.log_artifact`."""
    if source.is_dir():
        name = source.resolve().name
        keep(run, str(PurePosixPath(artifact_path or "") / name), lambda to: copy_folder(source, to), directory=True)
        return
    if artifact_path is None:
        target_path = source.name
    elif PurePosixPath(artifact_path).suffix and not artifact_path.endswith("/"):
        target_path = artifact_path
    else:
        target_path = str(PurePosixPath(artifact_path) / source.name)
    keep(run, target_path, lambda to: copy_file(source, to))


def snapshot_content(run: RunHandle, source: Path, artifact_path: str | None) -> None:
    """Keep the content of a folder; see `Run.log_artifacts`. A single file is kept itself."""
    if source.is_file():
        snapshot(run, source, artifact_path)
        return
    keep(run, artifact_path or "", lambda to: copy_folder(source, to), directory=True)


def write_text(run: RunHandle, text: Any, artifact_file: str) -> None:
    """Keep text as a file."""
    if isinstance(text, (bytes, bytearray)):
        text = text.decode("utf-8", "backslashreplace")
    keep(run, artifact_file, lambda to: _write(to, mask_text(str(text))))


def write_structure(run: RunHandle, value: Any, artifact_file: str, *, with_files: bool = True) -> None:
    """Keep a structure as JSON or YAML, with all of its content.

    Args:
        run: whose file it is.
        value: the structure.
        artifact_file: its path in the run.
        with_files: whether what JSON cannot hold becomes files of its own; else it is described in one line.
    """
    omitted = OmittedParts(run, artifact_file, keep_object if with_files else None)
    native = PurePosixPath(artifact_file).suffix.lower() in (".yaml", ".yml")
    tree = content_of(value, omitted.keep, omitted.add_reason, native_keys=native)
    keep(run, artifact_file, lambda to: write_json(tree, to), handler="builtins.dict")
    omitted.write_tags()


def keep_whole(run: RunHandle, flat: Flat, prefix: str = "") -> None:
    """Keep values that are too deep or too large for parameters as files, and write the tags of parameters.

    Models among the values become inputs of the run.
    """
    for model in flat.models:
        run.emit(ModelInput(run.key, model, time.time_ns()))
    for key, value in flat.whole.items():
        artifact_path = f"trackdsl/params/{path_part(prefix + key)}.json"
        # Arrays and frames among the arguments are described, not copied: the user did not ask for a copy.
        write_structure(run, value, artifact_path, with_files=False)
        append_tags(run, {f"{TRUNCATED}{prefix}{key}": f"too large for parameters, whole in {artifact_path}"})
    if flat.paths:
        paths = {prefix + key: path for key, path in flat.paths.items()}
        append_tags(run, {"trackdsl.params.paths": json.dumps(paths, ensure_ascii=False)})
    append_tags(run, {f"trackdsl.omitted.{prefix}{key}": why for key, why in flat.omitted.items()})


def add_params(run: RunHandle, pairs: Iterable[tuple[Any, Any]]) -> None:
    """Record parameters; what is too deep, too large or too long for one is kept whole as a file."""
    flat = params_of(pairs)
    append_params(run, keep_long(run, flat.values))
    keep_whole(run, flat)


def keep_long(run: RunHandle, values: dict[str, Any]) -> dict[str, Any]:
    """Cut long texts, which would not fit the journal, and keep the whole of them as files; return the cut values."""
    long = {key: value for key, value in values.items() if isinstance(value, str) and len(value) > LONG_TEXT}
    for key, value in long.items():
        write_text(run, value, f"trackdsl/whole/{path_part(key)}.txt")
    return cut_texts(values) if long else values


def keep_object(run: RunHandle, artifact_path: str, value: Any, own: Handler | None = None) -> str | None:
    """Keep an object as a file.

    Args:
        run: whose file it is.
        artifact_path: its path in the run; the suffix selects the format. If the object cannot have that format, its
            handler's own format is used, and if that fails too, a pickle.
        value: the object.
        own: its handler, where that is known.

    Returns:
        its path in the run; None if it could not be kept, which a tag reports.
    """
    artifact_path = masked_path(artifact_path)
    if _is_written_by_content(value, PurePosixPath(artifact_path).suffix.lower()):
        write_structure(run, value, artifact_path)
        return artifact_path
    own = handler_of(value) if own is None else own
    handler = writer_for(value, own, PurePosixPath(artifact_path).suffix.lower())
    if handler is None and (parts := _parts_written(value, PurePosixPath(artifact_path).suffix.lower())):
        kept = [keep_object(run, numbered(artifact_path, text_of_key(name)), part) for name, part in parts.items()]
        return next(filter(None, kept), None)
    if handler is None:
        suffix = PurePosixPath(artifact_path).suffix
        reason = f"{class_name(value)} cannot be written as {suffix}; kept as {artifact_path}{own.suffix}"
        append_tags(run, {f"trackdsl.omitted.{artifact_path}": reason})
        artifact_path, handler = f"{artifact_path}{own.suffix}", own
    if _reveals(handler, value):
        return _keep_masked(run, artifact_path, value)
    if _keep_by(run, artifact_path, value, handler):
        return artifact_path
    if handler.executes:
        return None
    pickled = handler_for(object)
    artifact_path = f"{artifact_path.removesuffix(handler.suffix)}{pickled.suffix}"
    if _reveals(pickled, value):
        return _keep_masked(run, artifact_path, value)
    return artifact_path if _keep_by(run, artifact_path, value, pickled) else None


def numbered(artifact_path: str, name: str) -> str:
    """The path of one of several files, with its number or key before the suffix.

    >>> numbered("plots/roc.png", "0")
    'plots/roc.0.png'
    """
    suffix = PurePosixPath(artifact_path).suffix
    return f"{artifact_path.removesuffix(suffix)}.{path_part(name)}{suffix}" if name else artifact_path


def _parts_written(value: Any, suffix: str) -> dict[Any, Any]:
    """The parts of a list or dict, if each of them can be a file with this suffix; else nothing."""
    found = handler_for(type(value)).content(value)
    parts = dict(enumerate(found)) if isinstance(found, (list, tuple)) else found
    if not isinstance(parts, Mapping) or len(parts) > _MAX_PARTS:
        return {}
    parts = {name: part for name, part in parts.items() if part is not None}
    handlers = [handler_of(part) for part in parts.values()]
    fitting = all(suffix in (one.suffix, *one.suffixes) and one.suffix not in (".json", ".txt") for one in handlers)
    return dict(parts) if fitting else {}


def _is_written_by_content(value: Any, suffix: str) -> bool:
    """Whether a value is written as JSON or YAML by its content. Some handlers write such files in their own form."""
    if suffix not in (".json", ".yaml", ".yml"):
        return False
    handler = handler_for(type(value))
    own_form = suffix in (handler.suffix, *handler.suffixes) and not isinstance(handler, Json)
    return not own_form and has_content(value)


def _reveals(handler: Handler, value: Any) -> bool:
    """Whether a handler would write a secret that it cannot mask."""
    # Imported late, because a program that records only numbers never needs it.
    from trackdsl.handlers._secret_scan import holds_secret

    if isinstance(handler, Text):
        return not isinstance(value, (str, os.PathLike)) and holds_secret(value)
    return isinstance(handler, Pickled) and handler is not secret and holds_secret(value)


def _keep_masked(run: RunHandle, artifact_path: str, value: Any) -> str | None:
    """Keep the parts of a value that are not secret, as JSON; nothing of an object with a secret in an attribute."""
    if not has_content(value):
        reason = f"{class_name(value)} holds a secret, which its pickle would contain; record the parts you need"
        report("artifact", f"trackdsl left out {artifact_path!r}: {reason}", key=artifact_path)
        append_tags(run, {f"trackdsl.omitted.{artifact_path}": reason})
        return None
    json_path = f"{artifact_path.removesuffix(PurePosixPath(artifact_path).suffix)}.json"
    reason = f"{class_name(value)} holds a secret; its other parts are in {json_path}"
    append_tags(run, {f"trackdsl.omitted.{artifact_path}": reason})
    write_structure(run, value, json_path, with_files=False)
    return json_path


def _keep_by(run: RunHandle, artifact_path: str, value: Any, handler: Handler) -> bool:
    name = name_of(handler, type(value))
    return keep(
        run,
        artifact_path,
        lambda to: _write_by(handler, value, to),
        handler=name,
        hashed=handler.executes,
        what=class_name(value),
    )


def _write_by(handler: Handler, value: Any, path: Path) -> None:
    # Handlers select the format by a suffix in lower case.
    lower = path.with_suffix(path.suffix.lower())
    handler.write(value, lower)
    if lower != path:
        lower.rename(path)
        _sidecar.move(lower, path)


def _keep_types(run: RunHandle, artifact_path: str, path: Path) -> bool:
    """Keep the types that a handler wrote next to a file, and report values that will differ when read back."""
    types = _sidecar.types_of(path)
    differs = types.pop(_sidecar.DIFFERS, "")
    if differs:
        reason = mask_prose(f"read back, it differs: {differs}")[:500]
        report("artifact", f"trackdsl wrote {artifact_path!r}, but {reason}", key=artifact_path)
        append_tags(run, {f"trackdsl.omitted.{artifact_path}": reason})
    _sidecar.sidecar_path(path).unlink(missing_ok=True)
    return bool(types) and keep(run, _sidecar.path_of_types(artifact_path), partial(_write, text=json.dumps(types)))


def keep(
    run: RunHandle,
    artifact_path: str,
    write: Callable[[Path], dict[str, str] | None],
    *,
    directory: bool = False,
    handler: str = "",
    hashed: bool = False,
    what: str = "",
) -> bool:
    """Write a snapshot and its event; False if that failed, which a tag reports."""
    if run.target.discards:
        return True
    try:
        artifact_path = masked_path(artifact_path)
        requested, artifact_path = artifact_path, portable_path(artifact_path)
        renamed = {artifact_path: requested} if artifact_path != checked_path(requested) else {}
        path, relative = run.target.new_file(PurePosixPath(artifact_path).name or "content")
        try:
            missing = write(path) or {}
            types = bool(handler) and _keep_types(run, artifact_path, path)
            digest = sha256_of(path) if hashed else ""
            if directory:
                renamed |= {
                    f"{artifact_path}/{new}": f"{artifact_path}/{old}" for new, old in rename_unsafe(path).items()
                }
        except BaseException:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise
    except BaseException as error:
        if not is_fault(error):
            raise
        reraise_from_signal(error)
        _report_failure(run, artifact_path, what, error)
        return False
    append_tags(run, {RENAMED + new: masked_path(old) for new, old in renamed.items()})
    if missing:
        _report_missing(run, artifact_path, missing)
    run.emit(File(run.key, artifact_path, relative, directory, handler, digest, types), vital=True)
    return True


def _report_failure(run: RunHandle, artifact_path: str, what: str, error: BaseException) -> None:
    if is_shortage(error):
        run.target.unrecorded += 1
    reason = mask_prose(f"{what}: {format_error(error)}" if what else format_error(error))
    report("artifact", f"trackdsl could not keep the artifact {artifact_path!r}: {reason}", key=artifact_path)
    append_tags(run, {f"trackdsl.omitted.{artifact_path or 'log_artifacts'}": reason[:500]})


def _report_missing(run: RunHandle, artifact_path: str, missing: dict[str, str]) -> None:
    report("artifact", f"trackdsl left out of {artifact_path!r}: {missing}", key=artifact_path)
    names = {name: masked_path(f"{artifact_path}/{name}") for name in missing}
    append_tags(run, {f"trackdsl.omitted.{names[name]}": mask_prose(why)[:500] for name, why in missing.items()})


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
